"""How far a file was read, and whether it is still that file."""

from __future__ import annotations

import os
import stat
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAIL_BYTES: Final = 1024
_SAMPLE_BYTES: Final = 128


class Position(NamedTuple):
    """How far a file was read, and enough to tell whether it is still that file."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    offset: int = 0
    check: str = ""
    """A digest of samples of the bytes before ``offset``."""
    skipping: bool = False
    """``offset`` lies inside a line that is too long."""
    whole: bool = False
    """The file is one document: any change means to read it again from its beginning."""
    companion: tuple[int, int] = (0, 0)
    """Size and mtime of a SQLite write-ahead log beside it."""
    is_folder: bool = False

    @property
    def stamp(self) -> str:
        """All that tells whether the file was touched, as one text."""
        log = f" {self.companion[0]} {self.companion[1]}" if self.companion[0] else ""
        return f"{self.device} {self.inode} {self.size} {self.mtime_ns} {self.ctime_ns}{log}"

    def read_to(self, offset: int, check: str, *, skipping: bool) -> Position:
        """Return the position behind what was read."""
        return Position(
            self.device,
            self.inode,
            self.size,
            self.mtime_ns,
            self.ctime_ns,
            offset,
            check,
            skipping,
            self.whole,
            self.companion,
            self.is_folder,
        )


def absolute(path: str) -> str:
    """Return what `os.path.abspath` does, in half its time where a path is absolute."""
    return os.path.normpath(path) if path[:1] == os.sep else os.path.abspath(path)


def look(path: str) -> Position | None:
    """Return a fresh position at the beginning of the file as it is now; None if it is gone."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    companion = (0, 0)
    if path.endswith(".db"):
        try:
            log = os.stat(path + "-wal")
            companion = (log.st_size, log.st_mtime_ns)
        except OSError:
            pass
    return Position(
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        0,
        "",
        False,
        False,
        companion,  # by name it takes a quarter longer, for each of many files
        stat.S_ISDIR(found.st_mode),
    )


def continues(before: Position, now: Position, path: str) -> bool:
    """Tell whether a file that was touched is still the one read before, perhaps longer.

    If not, it was rewritten, replaced or shrunk. Reads some 2 KB: samples of the bytes before the
    last offset, so that an append costs nothing more.
    """
    if (before.device, before.inode) != (now.device, now.inode):
        return False
    if before.whole or now.size < before.offset:
        return False
    try:
        with open(path, "rb", buffering=0) as file:
            return samples_digest(file.fileno(), before.offset) == before.check
    except OSError:
        return True  # the read itself will tell what is wrong


def samples_digest(descriptor: int, offset: int) -> str:
    """Return a digest of samples of the bytes before an offset; "" where there are none."""
    return _digest([os.pread(descriptor, end - start, start) for start, end in _samples(offset)])


def digest_of(text: memoryview) -> str:
    """Return what `samples_digest` does of a file that is this text up to the offset."""
    return _digest([text[start:end] for start, end in _samples(len(text))])


def _samples(offset: int) -> tuple[tuple[int, int], ...]:
    one, two, three = offset // 4, offset // 2, offset * 3 // 4
    tail = offset - _TAIL_BYTES
    if one < _SAMPLE_BYTES:
        return ((0, offset),) if offset else ()
    return (
        (0, _SAMPLE_BYTES),
        (one, one + _SAMPLE_BYTES),
        (two, two + _SAMPLE_BYTES),
        (three, three + _SAMPLE_BYTES),
        (max(0, tail), offset),
    )


def _digest(samples: Sequence[bytes | memoryview]) -> str:
    return blake2b(b"".join(samples), digest_size=12).hexdigest() if samples else ""
