"""How far a file was read, and whether it is still that file."""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from stat import S_ISDIR
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TAIL_BYTES: Final = 1024
_SAMPLE_BYTES: Final = 128
_MOST, _ALL = (1 << 63) - 1, 1 << 64
_STAMP: Final = struct.Struct("<QQqqqqq?")
_pack, _unpack = _STAMP.pack, _STAMP.unpack


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
    def stamp(self) -> bytes:
        """What `stamp_of` told of the file."""
        return _pack(*self[:5], *self.companion, self.is_folder)

    def read_to(self, offset: int, check: str, *, skipping: bool) -> Position:
        """Return the position behind what was read."""
        return tuple.__new__(Position, (*self[:5], offset, check, skipping, *self[8:]))


def absolute(path: str) -> str:
    """Return what `os.path.abspath` does, in half its time where a path is absolute."""
    return os.path.normpath(path) if path[:1] == os.sep else os.path.abspath(path)


def stamp_of(path: str) -> bytes:
    """Return all that tells whether a file was touched; nothing if it cannot be looked at."""
    try:
        now = os.stat(path)
    except (OSError, ValueError):  # no file, no permission, a circle of links, a zero in the name
        return b""
    log_size = log_ns = 0
    if path.endswith(".db"):
        try:
            log = os.stat(path + "-wal")
            log_size, log_ns = log.st_size, log.st_mtime_ns
        except OSError:
            pass
    is_folder = S_ISDIR(now.st_mode)
    try:
        return _pack(
            now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns,
            log_size, log_ns, is_folder,
        )  # fmt: skip
    except struct.error:  # after the year 2262, which no column holds either, or a device below 0
        times = [min(time_ns, _MOST) for time_ns in (now.st_mtime_ns, now.st_ctime_ns, log_ns)]
        device, inode = now.st_dev % _ALL, now.st_ino % _ALL
        return _pack(device, inode, now.st_size, *times[:2], log_size, times[2], is_folder)


def is_all_told(stamp: bytes) -> bool:
    """Tell whether a file is as it was if its stamp is; not so where it is gone or a folder."""
    return stamp[-1:] == b"\0"


def digest_of_stamps(stamps: Mapping[tuple[str, str], bytes]) -> bytes:
    """Return what stands for these named files as they are; nothing where that is not all told."""
    if not all(map(is_all_told, stamps.values())):
        return b""
    names = "\0".join(map("\0".join, stamps)).encode("utf-8", "surrogatepass")
    return blake2b(b"".join([*stamps.values(), names]), digest_size=16).digest()


def look(path: str) -> Position | None:
    """Return a position at the beginning of the file as it is now; None as `stamp_of`."""
    stamp = stamp_of(path)
    return position_of(stamp) if stamp else None


def position_of(stamp: bytes) -> Position:
    """Return the position at the beginning of the file that has this stamp."""
    device, inode, size, mtime_ns, ctime_ns, log_size, log_ns, is_folder = _unpack(stamp)
    log = log_size, log_ns
    fields = device, inode, size, mtime_ns, ctime_ns, 0, "", False, False, log, is_folder
    # By the class it takes half as long again, for each of many files.
    return tuple.__new__(Position, fields)


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
