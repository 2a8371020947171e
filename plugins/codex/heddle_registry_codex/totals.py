"""The totals that Codex itself wrote, read many at once and without parsing their lines.

Half of them were written before, in the very same letters, and the others differ in their digits
alone. So a few calls take the digits out of many lines, and prove that nothing else differs.
"""

from __future__ import annotations

from itertools import repeat
from operator import add, methodcaller
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.usage import MAX_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.core.readings import Reading

TIME_AT: Final = len('{"timestamp":"')
TYPE_AT: Final = len('{"timestamp":"2026-01-01T00:00:00.000Z')
"""Where a line goes on if its time is written to the millisecond, as it always was."""
_HEAD: Final = b'","type":"event_msg","payload":{"type":"token_count","info":'
_NO_TOTAL, _TOTAL = _HEAD + b"null", _HEAD + b'{"total_token_usage":'
_TOTAL_AT: Final = TYPE_AT + len(_TOTAL)
_LAST: Final = b',"last_token_usage":'
_GIVEN: Final = b'{"input_tokens":,"cached_input_tokens":,'
_WRITTEN: Final = b'"cache_write_input_tokens":,'
_NEW: Final = b'"output_tokens":,"reasoning_output_tokens":,"total_tokens":}'
_DIGITS: Final = b"0123456789"
_LETTERS: Final = bytes({*_GIVEN, *_WRITTEN, *_NEW} - {*b","})
ends: Final = methodcaller("endswith", b"}}\n")
"""Tells whether a line ends as every line does of which Codex wrote all."""
NONE_YET: Final = b"\n\n"
"""No line has it anywhere."""


def readings_of(
    lines: list[bytes], told: bytes, parse: Callable[[bytes], Any]
) -> tuple[list[Reading], bytes] | None:
    """Return the readings in lines about totals, and the letters of the last one.

    A total that follows in the same letters, ``told`` first, is left out. None where a line is not
    just as Codex writes it, and must be parsed.
    """
    if not all(map(ends, lines)):
        return None
    totals: list[bytes] = []
    times: list[bytes] = []
    alone: list[bool] = []
    for line in lines:
        if line.startswith(told, TYPE_AT):
            continue
        end = line.find(b"}", _TOTAL_AT) + 1
        last_at = end + len(_LAST)
        if line[TYPE_AT:_TOTAL_AT] != _TOTAL or line[end:last_at] != _LAST:
            if line.startswith(_NO_TOTAL, TYPE_AT):
                continue
            return None
        total, told = line[_TOTAL_AT:end], line[TYPE_AT:last_at]
        totals.append(total)
        times.append(line[TIME_AT:TYPE_AT])
        # What the last call used comes next. If it is all, it was the first.
        alone.append(line.startswith(total, last_at))
    if not totals:
        return [], told
    text = b",".join(totals)
    is_written = _WRITTEN[:-1] in totals[0]
    shape = _GIVEN + _WRITTEN + _NEW if is_written else _GIVEN + _NEW
    if text.translate(None, _DIGITS) != b",".join(repeat(shape, len(totals))):
        return None
    try:
        counts = parse(b"[%b]" % text.translate(None, _LETTERS))
    except ValueError:  # a number without digits, or with a zero before them
        return None
    if max(counts) > MAX_COUNT:
        return None
    width = 6 if is_written else 5
    given, held, output, thought = (counts[at::width] for at in (0, 1, width - 3, width - 2))
    written = counts[2::width] if is_written else [0] * len(totals)
    known = map(add, held, written)
    fresh = [one - two if one > two else 0 for one, two in zip(given, known, strict=True)]
    at = b"\n".join(times).decode("utf-8", "replace").split("\n")
    return [*zip(at, fresh, written, held, output, thought, alone, strict=True)], told
