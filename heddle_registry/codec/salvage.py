"""What can still be read of a claim's file that is no claim any more, table by table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from heddle_registry.codec.claims import CLAIM, HOLDER, PAST
from heddle_registry.codec.document import NotToml, parse_document
from heddle_registry.codec.entries import MAX_FENCE
from heddle_registry.core.limits import MAX_ENTRY_BYTES
from heddle_registry.core.recovery import ClaimRemains

if TYPE_CHECKING:
    from collections.abc import Iterable

    from heddle_registry.codec.tables import Table

R = TypeVar("R")

_HEADER: Final = re.compile(r"\s*\[(\[?)\s*([A-Za-z_.]+)\s*\]{1,2}\s*")
_FENCE_LINE: Final = re.compile(rb"^\s*fence\s*=\s*(\d{1,19})\b", re.MULTILINE)
_HOLDERS: Final = ("owner", "liveness", "token", "renewed")


def remains_of_claim(data: bytes) -> ClaimRemains:
    """Return what ``data``, a claim's file that cannot be read as one, still says. Pure.

    A line that is broken costs itself, and the table that needs it; the others are read. Raises
    nothing, whatever the bytes are.
    """
    top: dict[str, Any] = {}
    holder: dict[str, Any] | None = None
    past: list[dict[str, Any]] = []
    is_whole = True
    for name, lines in _tables(data):
        table, is_sound = _table(lines)
        first, _, rest = name.partition(".")
        if not name:
            top = table
        elif first == "holder":
            holder = {} if holder is None else holder
            is_whole = is_whole and is_sound and rest in ("", *_HOLDERS)
            if rest in _HOLDERS:
                holder[rest] = table
            elif not rest:
                holder |= table
        elif name == "past":
            past.append(table)
        elif name == "past.token" and past:
            past[-1]["token"] = table
    found = _record(HOLDER, holder, _HOLDERS) if holder is not None else None
    told = [_record(PAST, table, ("token",)) for table in past]
    fences = [int(digits) for digits in _FENCE_LINE.findall(data)]
    return ClaimRemains(
        thread=_value("thread", top),
        fence=_value("fence", top) or 0,
        highest_fence=max((fence for fence in fences if fence <= MAX_FENCE), default=0),
        path=_value("path", top),
        holder=found,
        is_holder_whole=is_whole and found is not None,
        past=tuple(one for one in told if one is not None),
    )


def _tables(data: bytes) -> Iterable[tuple[str, list[str]]]:
    # Each table's name and the lines below its header; a header that is broken is named "?".
    name, lines = "", list[str]()
    for line in data[:MAX_ENTRY_BYTES].decode("utf-8", "replace").splitlines():
        if not line.lstrip().startswith("["):
            lines.append(line)
            continue
        yield name, lines
        header = _HEADER.fullmatch(line)
        name, lines = (header[2] if header is not None else "?"), []
    yield name, lines


def _table(lines: list[str]) -> tuple[dict[str, Any], bool]:
    try:
        return parse_document("\n".join(lines).encode()), True
    except NotToml:
        pass  # a table that lost all its lines too
    found: dict[str, Any] = {}
    for line in lines:
        try:
            found |= parse_document(line.encode())
        except NotToml:
            continue
    return found, False


def _record(table: Table[R], values: dict[str, Any], optional: tuple[str, ...]) -> R | None:
    # A table within it that is wrong is left out, where it can be.
    problems: list[str] = []
    record = table.read(values, "", problems)
    for name in optional:
        if record is None and any(problem.startswith(f"{name}.") for problem in problems):
            values = {key: value for key, value in values.items() if key != name}
            problems = []
            record = table.read(values, "", problems)
    return record


def _value(key: str, top: dict[str, Any]) -> Any:
    # One key of the claim itself, by the same rules as in a sound file; None where it is wrong.
    whole = {"schema": 1, "thread": "?", "fence": 0}
    if key not in top:
        return None
    claim = CLAIM.read({**whole, key: top[key]}, "", [])
    return getattr(claim, key) if claim is not None else None
