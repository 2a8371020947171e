"""Which lines of a block of text may matter, without looking into the others.

The inner loops of `transcripts`: pure functions over bytes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator

MAX_KINDS: Final = 256
"""So many beginnings of lines are kept in mind, for all files."""
_ODD, _DULL = 0, -1


def lines_by_head(
    text: bytes, head: re.Pattern[bytes], mark: bytes, kind: tuple[int, ...]
) -> tuple[list[bytes], list[tuple[int, bytes]]]:
    """Return all lines, and ``(group, line)`` of those that may matter by their beginning.

    See `TranscriptSource.lines_by_head`.
    """
    known, ask = _memory(head, kind)
    first, last = kind[0], kind[-1]
    lines = text.split(b"\n")
    if not lines[-1]:
        del lines[-1]
    # Where the last mark of a line is its first bytes, nothing is glued to it.
    return lines, [
        (group, line)
        for line in lines
        if (group := known(line[first:last]) or ask(line)) >= _ODD or line.rfind(mark)
    ]


@cache
def _memory(
    head: re.Pattern[bytes], kind: tuple[int, ...]
) -> tuple[Callable[[bytes], int | None], Callable[[bytes], int]]:
    """Return what is known of kinds of lines, and the way to find out about others.

    A regular expression for every line would cost more than all the rest; so its answer is
    remembered by the bytes that it depends on.
    """
    first, *ends = kind
    kinds: dict[bytes, int] = {}

    def ask(line: bytes) -> int:
        for end in ends[:-1]:
            if group := kinds.get(line[first:end]):
                return group
        named = head.match(line)
        if named is None:
            return _ODD
        group = named.lastindex or _DULL
        for end in ends:
            if named.end() <= end:
                if len(kinds) >= MAX_KINDS:  # some hold ids, and never come again
                    kinds.clear()
                kinds[line[first:end]] = group
                break
        return group

    return kinds.get, ask


def hits(block: bytearray, limit: int, needles: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of each line that contains a needle, jumping over the others."""
    find, rfind = block.find, block.rfind
    if len(needles) == 1:  # the hot case, without the bookkeeping below
        needle = needles[0]
        at = find(needle, 0, limit)
        while at >= 0:
            start = rfind(b"\n", 0, at) + 1
            stop = find(b"\n", at, limit)
            if stop < 0:
                stop = limit
            yield start, stop
            at = find(needle, stop, limit)
        return
    if not needles:
        start = 0
        while start < limit:
            stop = find(b"\n", start, limit)
            if stop < 0:
                stop = limit
            if stop > start:
                yield start, stop
            start = stop + 1
        return
    heads = [(at, needle) for needle in needles if (at := find(needle, 0, limit)) >= 0]
    while heads:
        at, _ = min(heads)
        start = rfind(b"\n", 0, at) + 1
        stop = find(b"\n", at, limit)
        if stop < 0:
            stop = limit
        yield start, stop
        heads = [
            (head, needle)
            for old, needle in heads
            if (head := old if old > stop else find(needle, stop, limit)) >= 0
        ]
