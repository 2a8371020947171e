"""Which lines of a block of text may matter, without looking into the others.

The inner loops of `transcripts`: pure functions over bytes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NATIVE_BYTES: Final = 1 << 15
"""In a shorter block a search is over before the C library's was called."""


def hits(block: bytearray, limit: int, needles: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
    """Return the bounds of each line that contains a needle, jumping over the others."""
    if not needles or not all(needles):  # nothing at all is in every line
        return _all_of(block, limit)
    if len(needles) > 1:
        return _hits_of_any(block, limit, needles)
    if limit >= NATIVE_BYTES and (memmem := _memmem()) is not None:
        return _native_hits(block, limit, needles[0], memmem)
    return _hits_of(block, limit, needles[0])


def _all_of(block: bytearray, limit: int) -> Iterator[tuple[int, int]]:
    find, start = block.find, 0
    while start < limit:
        stop = find(b"\n", start, limit)
        if stop < 0:
            stop = limit
        if stop > start:
            yield start, stop
        start = stop + 1


def _hits_of(block: bytearray, limit: int, needle: bytes) -> Iterator[tuple[int, int]]:
    find, rfind = block.find, block.rfind
    at = find(needle, 0, limit)
    while at >= 0:
        start = rfind(b"\n", 0, at) + 1
        stop = find(b"\n", at, limit)
        if stop < 0:
            stop = limit
        yield start, stop
        at = find(needle, stop, limit)


@cache
def _memmem() -> Callable[[int, int, bytes, int], int | None] | None:
    """Return the C library's search, which takes two thirds of the time of Python's."""
    try:
        from ctypes import PyDLL, c_char_p, c_void_p

        memmem = PyDLL(None).memmem  # a block is searched too soon to let others run
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    # A size is as wide as a pointer, and made of a number in a third of the time of a c_size_t.
    memmem.restype, memmem.argtypes = c_void_p, (c_void_p, c_void_p, c_char_p, c_void_p)
    return memmem


def _native_hits(
    block: bytearray,
    limit: int,
    needle: bytes,
    memmem: Callable[[int, int, bytes, int], int | None],
) -> Iterator[tuple[int, int]]:
    from ctypes import addressof, c_char

    find, rfind, size = block.find, block.rfind, len(needle)
    held = c_char.from_buffer(block)  # while it lives, the block can be neither freed nor resized
    first = addressof(held)
    found = memmem(first, limit, needle, size)
    while found:
        at = found - first
        start = rfind(b"\n", 0, at) + 1
        stop = find(b"\n", at, limit)
        if stop < 0:
            stop = limit
        yield start, stop
        found = memmem(first + stop, limit - stop, needle, size)


def _hits_of_any(
    block: bytearray, limit: int, needles: tuple[bytes, ...]
) -> Iterator[tuple[int, int]]:
    find, rfind = block.find, block.rfind
    seekers = [_seeker(block, limit, needle) for needle in needles]
    heads = [(at, seek) for seek in seekers if (at := seek(0)) >= 0]
    while heads:
        at = min(head for head, _ in heads)
        start = rfind(b"\n", 0, at) + 1
        stop = find(b"\n", at, limit)
        if stop < 0:
            stop = limit
        yield start, stop
        heads = [
            (head, seek) for old, seek in heads if (head := old if old > stop else seek(stop)) >= 0
        ]


def _seeker(block: bytearray, limit: int, needle: bytes) -> Callable[[int], int]:
    """Return what finds a needle from some place on; it holds the block as `_native_hits` does."""
    memmem = _memmem() if limit >= NATIVE_BYTES else None
    if memmem is None:
        return lambda at: block.find(needle, at, limit)
    from ctypes import addressof, c_char

    held, size = c_char.from_buffer(block), len(needle)
    first = addressof(held)

    def seek(at: int, _held: object = held) -> int:
        found = memmem(first + at, limit - at, needle, size)
        return found - first if found else -1

    return seek
