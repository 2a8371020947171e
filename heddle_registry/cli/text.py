"""Text for people: harmless, short, aligned."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NS_PER_S = 1_000_000_000
_MOST_STYLED = 100
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_UNITS = ((2 * _DAY_S, _DAY_S, "days"), (2 * _HOUR_S, _HOUR_S, "h"), (_MINUTE_S, _MINUTE_S, "min"))


def clean(text: object) -> str:
    """Return ``text`` with everything escaped that could move a cursor or reverse a line.

    Records are written by anybody who may write to the folder; a terminal obeys what it is shown.
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(
        char
        if char.isprintable()
        else f"\\x{ord(char):02x}"
        if ord(char) < 0x100  # noqa: PLR2004
        else f"\\u{ord(char):04x}"
        if ord(char) < 0x10000  # noqa: PLR2004
        else f"\\U{ord(char):08x}"
        for char in found
    )


def clip(text: object, most: int) -> str:
    """Return ``text`` cleaned and cut to ``most`` characters."""
    found = str(text)
    if len(found) <= most and found.isprintable():
        return found
    cleaned = clean(found[: most + 1])
    return cleaned if len(cleaned) <= most else cleaned[: most - 1] + "…"


def complain(text: str) -> None:
    """Write one line to stderr, with our name before it."""
    if sys.stderr is not None:
        print(f"heddle-registry: {clean(text)}", file=sys.stderr, flush=True)


def ago(then_ns: int, now_ns: int) -> str:
    """Return how long ago an instant was, e.g. ``3 min``; ``in 3 min`` where it is ahead."""
    seconds = (now_ns - then_ns) // NS_PER_S
    ahead = "in " if seconds < 0 else ""
    seconds = abs(seconds)
    for least, unit, name in _UNITS:
        if seconds >= least:
            return f"{ahead}{seconds // unit} {name}"
    return f"{ahead}{seconds} s"


def wants_colour() -> bool:
    """Return whether stdout is a terminal that may be given colours."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout is not None and sys.stdout.isatty()


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()
) -> None:
    """Print rows of cleaned cells under a header; ``styles`` has one for each row.

    Folding and colours are for what a person can take in at once: they cost half a millisecond a
    row, so a longer table is plain.
    """
    if not wants_colour() or len(rows) > _MOST_STYLED:
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (header, *rows)]
        print("\n".join(lines))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for at, row in enumerate(rows):
        # Text, not str: a cell is never markup.
        table.add_row(*map(Text, row), style=styles[at] if styles else None)
    Console(highlight=False, markup=False, emoji=False).print(table)
