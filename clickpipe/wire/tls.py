"""TLS of our sockets: contexts from files, at least version 1.2, and messages that say which file is wrong.

A certificate that has expired is refused before anybody connects: else every client would hear of it, and its owner would not.
Source: RFC 5280, 4.1 (where a certificate says how long it holds).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

from clickpipe.errors import PlanError

_VERSION, _UTC_TIME = 0xA0, 0x17  # kinds of DER values


def server_context(cert: str, key: str, ca: str | None = None) -> ssl.SSLContext:
    """For those who listen. `ca`: clients must show a certificate that it has signed. Raises PlanError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # a client that only writes would close with unread bytes, which destroys what is on its way to us
    _load_own(context, cert, key)
    if ca:
        _load_authority(context, ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(cert: str | None = None, key: str | None = None, ca: str | None = None) -> ssl.SSLContext:
    """For those who connect. `ca`: signs the server's certificate; None: one that this system trusts. Raises PlanError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if cert and key:
        _load_own(context, cert, key)
    if ca:
        _load_authority(context, ca)
    else:
        context.load_default_certs()
    return context


def reason_of(error: OSError) -> str:
    """What was wrong with a handshake, without the library's own names of places in its code."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or type(error).__name__


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load_own(context: ssl.SSLContext, cert: str, key: str) -> None:
    text = _read(cert, "--tls-cert")
    _read(key, "--tls-key")
    _check_time(cert, text)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except _Encrypted:
        raise PlanError(f"{key} is encrypted: a pipeline cannot be asked for its password", word=key) from None
    except ssl.SSLError as error:
        raise _unfit(error, cert, key) from None


class _Encrypted(Exception):
    """A key that takes a password."""


def _no_password() -> str:
    raise _Encrypted


def _unfit(error: ssl.SSLError, cert: str, key: str) -> PlanError:
    if error.reason == "KEY_VALUES_MISMATCH":
        return PlanError(f"{key} is not the key of the certificate in {cert}", word=key)
    return PlanError(f"{key}: no private key in PEM that fits {cert}: {reason_of(error)}", word=key)


def _load_authority(context: ssl.SSLContext, ca: str) -> None:
    _certificates(ca, _read(ca, "--tls-ca"))
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise PlanError(f"{ca}: no certificates that can be trusted: {reason_of(error)}", word=ca) from None


def _read(path: str, option: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise PlanError(f"{option} {path}: {error.strerror}", word=path) from None


def _check_time(path: str, text: str) -> None:
    begins, ends = validity(_certificates(path, text)[0])
    now = datetime.now(UTC)
    if now > ends:
        raise PlanError(f"{path} has expired: it was valid until {_shown(ends)}", hint="renew it", word=path)
    if now < begins:
        raise PlanError(
            f"{path} is not valid yet: it is from {_shown(begins)} on", hint="or this host's clock is wrong", word=path
        )


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _certificates(path: str, text: str) -> list[bytes]:
    """At least one, as DER."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    found = [begin + part.split(end)[0] + end + "\n" for part in text.split(begin)[1:] if end in part]
    try:
        if found:
            return [ssl.PEM_cert_to_DER_cert(one) for one in found]
    except ValueError:
        pass
    raise PlanError(f"{path}: no certificate in PEM", hint=f"it has a line {begin}", word=path)


def validity(certificate: bytes) -> tuple[datetime, datetime]:
    """From when until when a certificate in DER holds. Raises PlanError for one that is damaged.

    SEQUENCE { SEQUENCE { [0] version, serial, algorithm, issuer, SEQUENCE { begins, ends }, … }, … }
    """
    try:
        _, whole = next(_values(certificate))
        _, inner = next(_values(whole))
        fields = [content for kind, content in _values(inner) if kind != _VERSION]
        begins, ends = (_moment(kind, text) for kind, text in _values(fields[3]))
    except (IndexError, ValueError, StopIteration):
        raise PlanError("the certificate is damaged") from None
    return begins, ends


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kinds and contents of DER values that stand one behind the other."""
    at = 0
    while at < len(data):
        kind, length, at = data[at], data[at + 1], at + 2
        if length >= 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(data[at : at + count]), at + count
        yield kind, data[at : at + length]
        at += length


def _moment(kind: int, text: bytes) -> datetime:
    form = "%y%m%d%H%M%SZ" if kind == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)
