"""Sockets that listen, and who may connect to them.

    tcp://127.0.0.1:9000   tcp://:9000   tcp://localhost:9000   tcp://[::1]:9000     this machine only
    tcp://0.0.0.0:9000 and all others                                                whoever reaches it
    unix:PATH                                                                        this user only: mode 0600

An address that others than this machine can reach takes mutual TLS, or a person who says that it is to be open.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass

from clickpipe.errors import OutsideError, PlanError
from clickpipe.stopping import forget, on_stop
from clickpipe.wire.address import LOOPBACK, Address, is_loopback, parse_address

_WAITING = 256  # connections that wait to be accepted
_PRIVILEGED = 1_024


@dataclass
class Listening:
    """`name`: the address as it is, with the port that was found for 0. `path`: of a Unix socket; `inode`: once it is known."""

    socket: socket.socket
    name: str
    path: str | None = None
    inode: int | None = None

    def remove(self) -> None:
        """The path goes, if it is ours still. May be called in a signal handler, and twice."""
        with suppress(OSError):
            if self.path is not None and self._is_ours(self.path):
                os.unlink(self.path)
        forget(self.remove)

    def _is_ours(self, path: str) -> bool:
        if self.inode is None:  # a signal has come as soon as it was bound
            return bool(self.socket.getsockname())
        return os.lstat(path).st_ino == self.inode


def listen(address: str | Address, *, may_be_reached: bool) -> Listening:
    """`may_be_reached`: by other machines too. The path of a Unix socket goes when a signal ends the process.

    Raises PlanError, and OutsideError where trying again may help.
    """
    said = parse_address(address) if isinstance(address, str) else address
    if said.is_unix:
        return _listen_unix(said.path)
    family, where = _resolved(said)
    if not may_be_reached and not is_loopback((family, where)):
        raise _refused(str(address), where[0], said.port)
    return _listen_tcp(str(address), family, where)


def _resolved(address: Address) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """`localhost` is this machine, whoever is asked for names."""
    host = LOOPBACK if address.host == "localhost" else address.host
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or "no name of a host"
        raise OutsideError(f"{address}: {said}: {host}", word=str(address)) from None
    family, _, _, _, where = found[0]
    return family, (str(where[0]), address.port)


def _refused(address: str, host: str, port: int) -> PlanError:
    return PlanError(
        f"{address}: other machines can reach {host}, and anybody there could send records",
        hint=f"for this machine only: tcp://{LOOPBACK}:{port}",
        notes=[
            "--tls-cert FILE --tls-key FILE --tls-ca FILE lets in those who show a certificate signed by the last one",
            "--insecure lets in everybody",
        ],
        word=address,
    )


def _listen_tcp(address: str, family: socket.AddressFamily, where: tuple[str, int]) -> Listening:
    try:
        listener = socket.create_server(where, family=family, backlog=_WAITING)
    except OSError as error:
        raise _unbound(address, where, error) from None
    listener.setblocking(False)
    host, port = listener.getsockname()[:2]
    return Listening(listener, f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")


def _unbound(address: str, where: tuple[str, int], error: OSError) -> PlanError | OutsideError:
    if error.errno == errno.EADDRINUSE:
        return OutsideError(f"{address} is in use: another process listens there", word=address)
    if error.errno == errno.EACCES and where[1] < _PRIVILEGED:
        return PlanError(f"{address}: a port below {_PRIVILEGED:,} takes a right that this user has not", word=address)
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return PlanError(f"{address}: this machine has no address {where[0]}", word=address)
    return OutsideError(f"{address}: {error.strerror}", word=address)


def _listen_unix(path: str) -> Listening:
    address = f"unix:{path}"
    _clear(path, address)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made = Listening(listener, address, os.path.abspath(path))
    on_stop(made.remove)
    try:
        before = os.umask(0o177)  # nobody else can ever connect
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        made.inode = os.lstat(path).st_ino
        listener.listen(_WAITING)
    except OSError as error:
        made.remove()
        listener.close()
        kind = OutsideError if error.errno == errno.EADDRINUSE else PlanError
        raise kind(f"{address}: {error.strerror}", word=address) from None
    listener.setblocking(False)
    return made


def _clear(path: str, address: str) -> None:
    """A socket to which nobody listens is what a process has left that was killed."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # what is wrong with it will be heard when it is bound
        return
    if not stat.S_ISSOCK(mode):
        raise PlanError(f"{address}: there is a file of this name, which is no socket", word=address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINPROGRESS):
                raise OutsideError(f"{address}: {error.strerror}", word=address) from None
    raise OutsideError(f"{address} is in use: another process listens there", word=address)
