"""Streams between two machines, which network namespaces stand for: the line is cut in the midst of frames, and goes silent."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from links import Working, until
from test_socket_streams import TOKEN, Shop, shop

__all__ = ["shop"]  # a fixture
HERE, THERE = "10.77.0.1", "10.77.0.2"
FRAME = 40 << 10  # bytes of one, about
MINE = f"cp{os.getpid()}"  # other tests run beside this one


class Line:
    """Two namespaces with a cable between them."""

    def __init__(self) -> None:
        ip = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if ip is None:
            pytest.skip("there is no ip command (Debian package iproute2)")
        self._ip = ip
        self.ends = {HERE: f"{MINE}a", THERE: f"{MINE}b"}
        try:
            for name in self.ends.values():
                self._do("netns", "add", name)
            one, other = self.ends.values()
            self._do("link", "add", one, "netns", one, "type", "veth", "peer", "name", other, "netns", other)
            for address, name in self.ends.items():
                self._do("-n", name, "addr", "add", f"{address}/24", "dev", name)
                self._do("-n", name, "link", "set", name, "up")
        except subprocess.CalledProcessError as error:
            self.remove()
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.decode().strip()}")

    def words(self, address: str) -> list[str]:
        """In front of a command that is to run there."""
        return [self._ip, "netns", "exec", self.ends[address]]

    def cut(self) -> None:
        self._do("-n", self.ends[HERE], "link", "set", self.ends[HERE], "down")

    def mend(self) -> None:
        self._do("-n", self.ends[HERE], "link", "set", self.ends[HERE], "up")

    def passed(self) -> int:
        """Bytes that have come there."""
        return int(subprocess.check_output([*self.words(THERE), "cat", f"/sys/class/net/{self.ends[THERE]}/statistics/rx_bytes"]))

    def remove(self) -> None:
        for name in self.ends.values():
            subprocess.run([self._ip, "netns", "del", name], capture_output=True, check=False)

    def _do(self, *words: str) -> None:
        subprocess.run([self._ip, *words], check=True, capture_output=True)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.remove()


PARTS = [
    [f'{{"n":{n},"page":"/p/{n * 7919 % 100_003}","user":"u{n * 104_729 % 1_000_003}"}}\n' for n in range(at, at + 50_000)]
    for at in range(0, 250_000, 50_000)
]


@pytest.mark.parametrize("listens", [HERE, THERE])
def test_a_line_that_is_cut_loses_and_repeats_nothing(listens: str, line: Line, shop: Shop) -> None:
    """For a moment, which TCP may bridge; where the reader listens, the last time until both ends have given it up."""
    (shop.folder / "token").write_text(TOKEN)
    (shop.folder / "token").chmod(0o600)
    flags = {HERE: "--listen", THERE: "--connect"} if listens == HERE else {HERE: "", THERE: "--listen"}
    ends = f"tcp://{listens}:7001 --token-file token"
    reader = shop.start(f"sink out.ndjson --from {ends} {flags[THERE]}", before=line.words(THERE))
    writer = shop.start(
        f"ingest - --batch-bytes 256KiB --to {ends} {flags[HERE]}", before=line.words(HERE), stdin=subprocess.PIPE
    )
    for number, part in enumerate(PARTS):
        passed = line.passed()
        feeding = Working(lambda part=part: _feed(writer, "".join(part).encode()))
        if number < len(PARTS) - 1:
            until(lambda passed=passed: line.passed() > passed + FRAME // 2 or writer.poll() is not None, "nothing passes")
            line.cut()
            if number == len(PARTS) - 2 and listens == THERE:
                assert [_heard(process, "the connection was lost: ") for process in (writer, reader)]
            line.mend()
        feeding.get()
    _, errors = writer.communicate(timeout=90)
    assert writer.returncode == 0, errors.decode()
    _, errors = reader.communicate(timeout=90)
    assert reader.returncode == 0, errors.decode()
    assert (shop.folder / "out.ndjson").read_text() == "".join(line for part in PARTS for line in part)


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def _heard(process: subprocess.Popen[bytes], words: str) -> str:
    """Waits until it says so."""
    assert process.stderr is not None
    for said in process.stderr:
        if words in said.decode():
            return said.decode()
    raise AssertionError(f"it never said {words!r}")
