"""The account as a table with bars, for people."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from heddle_registry.core.spending import ActorSpending, Spending
    from heddle_registry.spending import Account

_FIRST = {"entry": "WHO", "tree": "WHO", "thread": "BRANCH"}
_HEADER = ("INPUT", "CACHE WRITE", "CACHE READ", "OUTPUT", "TOOLS", "COST", "SHARE")
_BAR = 12
_MOST = 72
_SHORT = 18
_PERSON = "human"
_UNKNOWN = "unknown"
_UNITS = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"))
_FROM = 10_000
"""Smaller counts are written out."""
_ASCII = {"…": "...", "≥": ">=", "█": "#", "▌": "", "≈": "~"}


def print_account(by: str, account: Account) -> None:
    """Print the account, the largest first, its sum last, and what could not be read."""
    from heddle_registry.cli.text import clean, clip, print_table
    from heddle_registry.cli.usage import groups_of
    from heddle_registry.core import spending

    actors, styles = account.actors, []
    lines: list[tuple[str, Spending]] = []
    if by == "tree":
        for row in spending.tree(actors, account.chosen):
            orphan = " (its parent is gone)" if row.is_orphan else ""
            name = f"{'  ' * min(row.depth + 1, 20)}- {clip(_name(row.actor), _MOST)}{orphan}"
            lines.append((name, row.actor.own))
            if row.subtree != row.actor.own:
                lines.append((f"{'  ' * min(row.depth + 1, 20)}  with those below", row.subtree))
                styles += ["", "dim"]
            else:
                styles.append("")
    elif by == "entry":
        lines = [(clip(_name(one), _MOST), one.own) for one in spending.by_entry(actors)]
    else:
        lines = [
            (clip(name, _MOST) if name is not None else _UNKNOWN, found)
            for name, found in groups_of(by, actors)
        ]
    if not lines:
        print("nobody is here, and nothing was spent")
    else:
        whole = spending.whole(actors)
        most = max(weight(found) for _, found in lines)
        first = (_FIRST.get(by, by.upper()), *_HEADER)
        rows = [(name, *cells(found, most)) for name, found in lines]
        total = (_PERSON if by == "tree" else "total", *cells(whole, 0))
        rows = [total, *rows] if by == "tree" else [*rows, total]
        styles = styles or [""] * len(lines)
        styles = ["bold", *styles] if by == "tree" else [*styles, "bold"]
        header, *rows = _aligned([first, *rows])
        print_table(header, rows, styles)
        if whole.unknown:
            print(f"\nof {whole.unknown} nothing is known: no transcript of theirs can be found")
    if account.faults:
        print("\nnot read, or not in full:")
        for fault in account.faults:
            print(f"  {clean(fault.path)}: {clean(fault.detail)}")
    if account.problems:
        print("\nproblems (`doctor` says what would mend them):")
        for problem in account.problems:
            print(f"  {clean(problem.message)}")


def _name(one: ActorSpending) -> str:
    """Return who it is: branch, model or harness, and the id that other verbs take.

    The key of an actor without an entry is shortened to what tells it from others.
    """
    known = (one.model or one.harness or "").rpartition("/")[2]
    if one.entry is not None:
        own = one.entry.session_id
    else:
        own = (one.actor or "").partition(":")[2]
        kind, _, named = own.partition(":")
        if kind == "path":
            own = named.rpartition("/")[2]
        elif len(named) > _SHORT:
            own = _letters(f"{kind}:{named[:_SHORT]}…")
    return " ".join(part for part in (one.thread, known, own) if part)


def weight(spending: Spending) -> int:
    """Return what the bars measure: all tokens."""
    return max(0, spending.weight)


def cells(spending: Spending, most: int) -> tuple[str, ...]:
    """Return a row's cells but the first; ``most`` is what a whole bar stands for, 0 for none."""
    totals = spending.totals
    if totals is None:
        return (*[_UNKNOWN] * 6, "")
    counts = [
        _UNKNOWN if name in spending.untold else amount(getattr(totals, name))
        for name in (
            "input_tokens",
            "cache_creation_tokens",
            "cache_read_tokens",
            "output_tokens",
            "tool_calls",
        )
    ]
    if totals.lower_bound and counts[3] != _UNKNOWN:
        counts[3] = _letters("≥ ") + counts[3]
    halves = 2 * _BAR * weight(spending) // most if most else 0
    bar = _letters("█" * (halves // 2) + "▌" * (halves % 2))
    return (*counts, cost(spending), bar)


def amount(count: int) -> str:
    """Return a count, shortened to three digits from ten thousand on."""
    if count < _FROM:
        return str(count)
    for unit, letter in _UNITS:
        if count >= unit:
            short = count / unit
            return f"{short:.0f}{letter}" if short >= 100 else f"{short:.1f}{letter}"  # noqa: PLR2004
    return str(count)


def cost(spending: Spending) -> str:
    """Return a cost: ``$1.23``, ``≈ $1.23`` by list prices, ``≥ $1.23``, or with ``unknown``."""
    totals = spending.totals
    if totals is None or totals.cost_source == "unknown":
        return _UNKNOWN
    dollars = f"${totals.known_cost_micros_usd / 1e6:,.2f}"
    if 0 < totals.known_cost_micros_usd < 5_000:  # noqa: PLR2004 - it would be shown as nothing
        dollars = f"${totals.known_cost_micros_usd / 1e6:.4f}"
    if totals.unpriced_requests:
        return f"{dollars} + {_UNKNOWN}"
    if totals.lower_bound:
        return _letters(f"≥ {dollars}")
    return _letters(f"≈ {dollars}") if totals.estimated_cost_micros_usd else dollars


def _aligned(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    # Figures to the right, names and bars to the left.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        tuple(
            cell if place in (0, last) else cell.rjust(widths[place])
            for place, cell in enumerate(row)
        )
        for row in rows
    ]


def _letters(text: str) -> str:
    """Return the text in letters that stdout's encoding has."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        for letter, plain in _ASCII.items():
            text = text.replace(letter, plain)
    return text
