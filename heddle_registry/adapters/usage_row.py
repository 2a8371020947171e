"""What a row of the table of records holds, and how a record or a difference becomes one.

Pure, and the innermost loop of a first read: each response comes through here once.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.usage import LONG_CONTEXT_TOKENS, UsageRecord, instant_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from heddle_registry.core.readings import Delta

    Row = tuple[Any, ...]

LONG, COSTED, NO_REASONING, LOWER, REPLAYED, DOCUMENT = 1, 2, 4, 8, 16, 32
SUMS_AT: Final = 7
"""Where the sums begin in a row; before them id, owner, actor, model, flags, weight, at."""
_CALLS: Final = 9
"""Where the tool calls stand in a row of ``sums``."""
MAX_SUMMED: Final = (1 << 53) - 1
"""What a record may hold at most, far above `core.usage.MAX_COUNT`."""


class SourceRows:
    """The rows of one source by the number that stands for a record's id, as it is read."""

    def __init__(
        self,
        harness: str,
        source: int,
        actors: Mapping[str | None, int],
        models: Mapping[str | None, int],
        joined: Callable[[Row, Row], Row],
    ) -> None:
        # Each harness has ids of its own.
        self._named = blake2b(f"{harness}\0".encode(), digest_size=8)
        self._source, self._actors, self._models, self._joined = source, actors, models, joined
        self.rows: dict[int, Row] = {}
        self.kind = 0
        """`DOCUMENT` where the source is one."""

    def add(self, records: Iterable[UsageRecord]) -> None:
        """Take records, many at once where that can be. Raises TypeError where one is odd."""
        copy, number_of, rows, source = self._named.copy, int.from_bytes, self.rows, self._source
        actors, models, kind = self._actors, self._models, self.kind
        for record in records:
            digest = copy()
            digest.update(record.id.encode("utf-8", "replace"))
            number = number_of(digest.digest(), "big", signed=True)
            row = row_of(number, source, record, actors[record.actor], models[record.model], kind)
            held = rows.setdefault(number, row)
            if held is not row:
                rows[number] = larger(held, row) or self._joined(held, row)

    def add_deltas(self, deltas: Iterable[Delta], actor: str | None, model: str | None) -> None:
        """Take what was used between the readings of a counter."""
        whose, by, kind = self._actors[actor], self._models[model], self.kind
        copy, number_of, rows, source = self._named.copy, int.from_bytes, self.rows, self._source
        for name, at, fresh, creation, cached, output, reasoning in deltas:
            whole = fresh + creation + cached
            every = fresh | creation | cached | output | reasoning
            if not whole or not 0 <= every <= MAX_SUMMED:
                used = UsageRecord(name, fresh, creation, cached, output, reasoning)
                self.add([used._replace(model=model, at=at, actor=actor)])
                continue
            digest = copy()
            digest.update(name.encode("utf-8", "replace"))
            number = number_of(digest.digest(), "big", signed=True)
            row = (
                number, source, whose, by, kind | LONG if whole > LONG_CONTEXT_TOKENS else kind, 0,
                instant_s(at), fresh, creation, 0, cached, output, reasoning, 0, 0, 1,
            )  # fmt: skip
            held = rows.setdefault(number, row)
            if held is not row:
                rows[number] = larger(held, row) or self._joined(held, row)


def larger(one: Row, other: Row) -> Row | None:
    """Join two rows of one id, source and actor; None where it takes more to tell.

    It is what `core.usage.join_records` makes of their records.
    """
    ours, theirs = _claim(one), _claim(other)
    if one[1:3] != other[1:3] or (
        ours == theirs and (one[3:5], one[12], one[14:]) != (other[3:5], other[12], other[14:])
    ):
        return None
    winner, loser = (one, other) if ours >= theirs else (other, one)
    at, tools = winner[6], winner[13]
    if loser[13] <= tools and (not loser[6] or 0 < at <= loser[6]):
        return winner
    if not at or 0 < loser[6] < at:
        at = loser[6]
    return (*winner[:6], at, *winner[7:13], max(tools, loser[13]), *winner[14:])


def _claim(row: Row) -> Row:
    fresh, creation, hour, cached, output = row[7:12]
    whole = fresh + creation + cached + output
    return not row[4] & REPLAYED, row[5], whole, output, fresh, creation, hour


def row_of(number: int, source: int, record: UsageRecord, actor: int, model: int, kind: int) -> Row:
    """Return a record's row. Raises TypeError where it holds what is no number."""
    (
        _, fresh, creation, cached, output, reasoning, tools, cost, _, at, _, lower_bound,
        replayed, weight, hour, requests,
    ) = record  # fmt: skip
    whole = fresh + creation + cached
    # Rows are written later, where it would be too late to tell whose they were.
    every = fresh | creation | cached | output | tools | weight | hour | requests
    if not 0 <= every <= MAX_SUMMED:
        numbers = (fresh, creation, cached, output, tools, weight, hour, requests)
        if max(map(abs, numbers)) > MAX_SUMMED:
            raise TypeError(f"one of {numbers} is no count")
    flags = kind | LONG if whole > LONG_CONTEXT_TOKENS else kind
    if cost is None:
        cost = 0
        if not whole + output:
            flags |= COSTED
    else:
        flags |= COSTED
        if not -MAX_SUMMED <= cost <= MAX_SUMMED:
            raise TypeError(f"a cost of {cost}")
    if reasoning is None:
        reasoning = 0
        if output:
            flags |= NO_REASONING
    elif not -MAX_SUMMED <= reasoning <= MAX_SUMMED:
        raise TypeError(f"{reasoning} tokens of reasoning")
    if lower_bound:
        flags |= LOWER
    if replayed:
        flags |= REPLAYED
    return (
        number, source, actor, model, flags, weight, instant_s(at), fresh, creation, hour, cached,
        output, reasoning, tools, cost, requests,
    )  # fmt: skip


def record_of(row: Row, model: str | None, actor: str) -> UsageRecord:
    """Return what a row tells of its record: all but its id, and its time as seconds."""
    flags = row[4]
    return UsageRecord(
        id="",
        input=row[7],
        cache_creation=row[8],
        cache_creation_1h=row[9],
        cache_read=row[10],
        output=row[11],
        reasoning=None if flags & NO_REASONING else row[12],
        tool_calls=row[13],
        cost_micros_usd=row[14] if flags & COSTED else None,
        requests=row[15],
        model=model,
        at=row[6] or None,
        actor=actor,
        lower_bound=bool(flags & LOWER),
        replayed=bool(flags & REPLAYED),
        weight=row[5],
    )


def with_calls(sums: Sequence[Row]) -> list[Row]:
    """Put sums of nothing but tool calls into others of their actor and model, if there are any.

    A sum is ``(actor, model, flags, …)``, and no sum of nothing. Each is a `UsageTotals` to make.
    """
    found: dict[int, Row] = {}
    alone, others = [], []
    for row in sums:
        is_bare = row[2] & ~DOCUMENT == COSTED and not any(row[3:_CALLS] + row[_CALLS + 1 :])
        if is_bare:
            alone.append(row)
        elif row[1] in found:
            others.append(row)
        else:
            found[row[1]] = row
    for row in alone:
        held = found.get(row[1])
        if held is None:
            found[row[1]] = row
        else:
            calls = held[_CALLS] + row[_CALLS]
            found[row[1]] = (*held[:_CALLS], calls, *held[_CALLS + 1 :])
    return [*found.values(), *others]
