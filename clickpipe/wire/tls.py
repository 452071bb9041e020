"""TLS in which both sides show a certificate.

Each side proves with its own that it belongs: `ca` signs whom it trusts. The listener's must be for the name or the
number that its clients connect to.
"""

from __future__ import annotations

import os
import ssl
from typing import NoReturn

from clickpipe.errors import PlanError


def server_context(cert: str, key: str, ca: str) -> ssl.SSLContext:
    """For who listens: a client without a certificate of `ca` is not let in. Raises PlanError."""
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key, ca)


def client_context(cert: str, key: str, ca: str) -> ssl.SSLContext:
    """For who connects: the server must be who `ca` says it is, under the name that was asked for. Raises PlanError."""
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert, key, ca)


def _loaded(context: ssl.SSLContext, cert: str, key: str, ca: str) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    for flag, path in (("--tls-cert", cert), ("--tls-key", key), ("--tls-ca", ca)):
        _check_readable(flag, path)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        why = (
            "the key is not the certificate's"
            if error.reason == "KEY_VALUES_MISMATCH"
            else "not a certificate and its key in PEM"
        )
        raise PlanError(f"--tls-cert {cert}, --tls-key {key}: {why}", word=cert) from None
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise PlanError(f"--tls-ca {ca}: not a certificate in PEM", word=ca) from None
    return context


def _check_readable(flag: str, path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise PlanError(f"{flag} {path}: {error.strerror}", word=path) from None


def _no_password() -> NoReturn:
    """Asked for where a key is encrypted. Nobody may be there to type it."""
    raise PlanError("--tls-key: the key has a password; take one without, that only its owner can read")
