"""Where state may lie: in folders of our own, never behind a link, on a file system that keeps its promises.

A folder of a pipeline is for its owner only (0700), so what is looked at once stays as it was. The home that
$CLICKPIPE_HOME names, and a FILE that results go to, are a person's choice and may be links.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from io import BufferedReader

from clickpipe.errors import PlanError

_NETWORK = re.compile(r"nfs4?|cifs|smb3|smbfs|9p|ceph|afs|lustre|gpfs|beegfs|pvfs2|orangefs|glusterfs|fuse(\..+)?")
_LOCAL = ("fuse.fuse-overlayfs",)  # what containers of an ordinary user stand on
ELSEWHERE = "CLICKPIPE_HOME names another place for state"


def check_folder(path: str) -> None:
    """That it is, or can become, a folder of ours. Raises PlanError."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        _check_writable(os.path.dirname(path))
        return
    except OSError as error:
        raise PlanError(f"state directory {path}: {error.strerror}", hint=ELSEWHERE) from None
    if stat.S_ISLNK(status.st_mode):
        raise link_refused(path)
    if not stat.S_ISDIR(status.st_mode):
        raise PlanError(f"{path} is no directory, and state would go there", hint=ELSEWHERE)
    if status.st_uid != os.geteuid():
        raise PlanError(f"state directory {path} belongs to another user (uid {status.st_uid})", hint=ELSEWHERE)
    _check_writable(path)


def _check_writable(path: str) -> None:
    """Of a folder, or of the nearest above it that there is."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        raise PlanError(f"{path} is no directory, and state would go there", hint=ELSEWHERE)
    if not os.access(path, os.W_OK | os.X_OK):
        why = "a file system that is read-only" if os.statvfs(path).f_flag & os.ST_RDONLY else "a directory that is not writable"
        raise PlanError(f"state would go to {path}, {why}", hint=ELSEWHERE)


def check_no_links(path: str) -> None:
    """None among what stands in a folder of ours. Raises PlanError."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise link_refused(entry.path)


def link_refused(path: str) -> PlanError:
    return PlanError(f"{path} is a symbolic link: state must not lead elsewhere", hint="whoever put it there must take it away")


def read_own(path: str) -> bytes:
    """A file of ours. Raises OSError as `open` does; PlanError for a link."""
    with open_own(path) as file:
        return file.read()


def open_own(path: str) -> BufferedReader:
    """The same, to read it piece by piece."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise link_refused(path) from None
        raise
    return open(descriptor, "rb")


def check_file_system(path: str) -> None:
    """Raises PlanError for one whose locks and whose fsync promise less than a local one's."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            kind = file_system_of(os.path.realpath(path), file.read())
    except OSError:
        return  # not Linux: it cannot be told
    if is_network(kind):
        raise PlanError(
            f"state on a network file system is refused: its locks and its fsync promise less ({path} is on {kind})",
            hint=f"{ELSEWHERE}; --allow-fs at ingest takes this one all the same",
        )


def file_system_of(path: str, mountinfo: str) -> str:
    """The type of the file system that holds a path. `mountinfo`: as in /proc/self/mountinfo, see proc(5)."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        mount, _, rest = line.partition(" - ")
        fields, types = mount.split(" "), rest.split(" ")
        if len(fields) < 6 or not types[0]:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
        if _is_under(path, point) and len(point) >= len(best):  # of two mounts on one point the later hides the earlier
            best, kind = point, types[0]
    return kind


def is_network(kind: str) -> bool:
    """FUSE counts as one: nobody knows what stands behind it."""
    return kind not in _LOCAL and _NETWORK.fullmatch(kind) is not None


def _is_under(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
