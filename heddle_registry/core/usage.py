"""What an agent used: records, running counters, and the one way they are added up.

Rule 1: never sum lines. Every harness repeats its records, so a record has the harness's own id
and is *joined* with what is known under that id. The join (`join_records`, `owns_before`) is
commutative, associative and idempotent: any order, any repetition, any split of the files gives
the same totals.
Rule 2: the four token buckets are disjoint: uncached input, cache creation, cache read, output.
Reasoning is a part of output, never a fifth addend.
Rule 3: unknown is None, never 0, and is not added to what is known without saying so.

This module has no clock, file or price list: readers turn files into records, a price adapter
turns unpriced groups into estimates.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_COUNT: Final = 1 << 44
"""Larger figures are no counts of tokens; sums of smaller ones fit 64 bits."""
_FEW: Final = 4
"""So many totals are added up one by one; of more, a column at a time is quicker."""
LONG_CONTEXT_TOKENS: Final = 200_000
"""Several vendors charge another rate for requests whose whole input is longer than this."""


class UsageRecord(NamedTuple):
    """The usage of one model response, as its transcript tells it.

    A named tuple, not a frozen attrs class: a first read makes one for each of some hundred
    thousand responses, and an attrs record of this width costs three times as much (measured).
    """

    id: str
    """The harness's own id of the response, unique over all files of that harness."""
    input: int = 0
    """Input tokens that came from no cache."""
    cache_creation: int = 0
    """Input tokens written to a cache."""
    cache_read: int = 0
    """Input tokens read from a cache."""
    output: int = 0
    """Output tokens, reasoning included."""
    reasoning: int | None = None
    """The part of ``output`` that was reasoning; None where the harness does not tell."""
    tool_calls: int = 0
    cost_micros_usd: int | None = None
    """The cost that the transcript states, in millionths of a US dollar; None where it does not."""
    model: str | None = None
    at: str | float | None = None
    """When: RFC 3339 text, or seconds or milliseconds since the epoch."""
    actor: str | None = None
    """Whose usage it is, as ``kind:id`` (``session:…``, ``agent:…``, ``thread:…``), where one file
    holds several actors; None means the actor that the source declared."""
    lower_bound: bool = False
    """The true output is at least this: the harness wrote a placeholder or an early figure."""
    replayed: bool = False
    """A copy of another actor's history (fork, resume). Alone it counts for nobody."""
    weight: int = 0
    """Among records with one id, the numbers of the heaviest count, and its actor owns it; among
    equals the largest numbers, and the source that began first."""
    cache_creation_1h: int = 0
    """The part of ``cache_creation`` that was written for an hour (priced apart)."""
    requests: int = 1
    """Model requests that this record stands for; 0 for a record of tool calls only."""


class UsageCounter(NamedTuple):
    """One reading of a running total, for harnesses that write cumulative counters.

    ``series`` names the counter; its readings must arrive in the file's order. A reading equal
    to the one before is a re-emit and counts nothing; one whose output or whole fell, or that
    equals its own ``last`` call, began again from zero.
    """

    series: str
    input: int = 0
    cache_creation: int = 0
    cache_read: int = 0
    output: int = 0
    reasoning: int = 0
    id: str | None = None
    """The id of the response that this reading ended with, where the harness tells it."""
    last: tuple[int, int, int, int, int] | None = None
    """The latest call alone: input, cache creation, cache read, output, reasoning."""
    forked: bool = False
    """The counter may begin with another actor's total: of a first reading, ``last`` counts."""
    replayed: bool = False
    """The reading was copied from another actor's history: it moves the base, nothing else."""
    model: str | None = None
    at: str | float | None = None
    actor: str | None = None


def counter_delta(
    counter: UsageCounter, state: list[int] | None
) -> tuple[UsageRecord | None, list[int]]:
    """Turn a reading into the record of what was used since the one before.

    ``state`` is what the previous call for this series returned (JSON-able: how often the
    counter began again, then its five buckets), None for a first reading.
    """
    (
        series, fresh, creation, cached, output, reasoning, key, last, forked, replayed, model, at,
        actor,
    ) = counter  # fmt: skip
    if state is None:
        epoch = fresh_0 = creation_0 = cached_0 = output_0 = reasoning_0 = 0
        if forked and last is not None and not replayed:
            fresh_0, creation_0, cached_0, output_0, reasoning_0 = (
                max(0, now - call) for now, call in zip(counter[1:6], last, strict=True)
            )
    else:
        epoch, fresh_0, creation_0, cached_0, output_0, reasoning_0 = state
        whole, whole_0 = fresh + creation + cached + output, fresh_0 + creation_0 + cached_0
        if whole == whole_0 + output_0 and counter[1:6] == tuple(state[1:]):
            return None, state
        if (
            output < output_0
            or whole < whole_0 + output_0
            or (last is not None and counter[1:6] == tuple(last) and any(state[1:]))
        ):
            epoch += 1
            fresh_0 = creation_0 = cached_0 = output_0 = reasoning_0 = 0
    after = [epoch, fresh, creation, cached, output, reasoning]
    if replayed:
        return None, after
    return UsageRecord(
        key or f"{series}#{epoch}#{fresh}.{creation}.{cached}.{output}.{reasoning}",
        fresh - fresh_0,
        creation - creation_0,
        cached - cached_0,
        output - output_0,
        reasoning - reasoning_0,
        0,
        None,
        model,
        at,
        actor,
    ), after


_MILLISECONDS: Final = 1e11
"""Larger instants are milliseconds since the epoch: as seconds they lie 3,000 years ahead."""
_moment: Final = datetime.fromisoformat


def count(value: object) -> int:
    """Return a number that a transcript gives as a count; 0 for what is none.

    Transcripts are written by other people's programs: one odd value costs itself alone.
    """
    if value.__class__ is int:
        return value if 0 <= value <= MAX_COUNT else 0
    if isinstance(value, float) and 0 <= value <= MAX_COUNT:
        return int(value)
    return 0


def text(value: object) -> str | None:
    """Return a name or id that a transcript gives; None for what is none."""
    return value if isinstance(value, str) and value.isprintable() else None


def micros(usd: object) -> int | None:
    """Return dollars as millionths; None for what is no cost, and for 0, which means unknown."""
    if isinstance(usd, (int, float)) and 0 < usd <= MAX_COUNT / 1e6:
        return round(usd * 1e6)
    return None


def instant_s(at: str | float | None) -> float:
    """Return an instant as seconds since the epoch; 0.0 where there is none or it is not one."""
    if isinstance(at, str):
        try:
            moment = _moment(at)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return moment.timestamp()
        except (ValueError, OverflowError):
            return 0.0
    if not isinstance(at, (int, float)) or not 0 < at < MAX_COUNT:
        return 0.0
    return at / 1000 if at > _MILLISECONDS else float(at)


def _size(record: UsageRecord) -> tuple[int, ...]:
    return (
        not record.replayed,
        record.weight,
        record.input + record.cache_creation + record.cache_read + record.output,
        record.output,
        record.input,
        record.cache_creation,
        record.cache_creation_1h,
    )


def _details(record: UsageRecord) -> tuple[int | str, ...]:
    cost, reasoning = record.cost_micros_usd, record.reasoning
    return (
        -1 if cost is None else cost,
        -1 if reasoning is None else reasoning,
        record.requests,
        record.model or "",
    )


def join_records(one: UsageRecord, other: UsageRecord) -> UsageRecord:
    """Join two records of one id: one that is no replay wins, then the heavier, then the larger.

    Commutative, associative and idempotent. The winner gives numbers and model; of actors with
    equal claims within one source the smaller name counts, and where two sources claim a record
    the caller settles it by `owns_before`. Tool calls are the most that any of them tells.
    """
    ours, theirs = _size(one), _size(other)
    if ours == theirs:
        winner = one if _details(one) >= _details(other) else other
    else:
        winner = one if ours > theirs else other
    actor = winner.actor
    if ours[:2] == theirs[:2] and one.actor != other.actor:
        actor = min(name for name in (one.actor, other.actor) if name is not None)
    return winner._replace(
        tool_calls=max(one.tool_calls, other.tool_calls),
        at=min((at for at in (one.at, other.at) if at is not None), key=instant_s, default=None),
        lower_bound=winner.lower_bound
        or (ours == theirs and (one.lower_bound or other.lower_bound)),
        actor=actor,
    )


def owns_before(
    one: tuple[bool, int, tuple[float, int, str]], other: tuple[bool, int, tuple[float, int, str]]
) -> bool:
    """Tell whether the first of two claimants owns a record that both files hold.

    A claimant is ``(replayed, weight, rank of its source)``; a source's rank is when its first
    record was, when the file was first seen changed, and its path.
    """
    return (one[0], -one[1], one[2]) < (other[0], -other[1], other[2])


class UsageGroup(NamedTuple):
    """The sum of an actor's records that agree in model and in what is known about them."""

    model: str | None = None
    long_context: bool = False
    costed: bool = False
    """The transcript states the cost of each (a record without tokens costs nothing)."""
    reasoning_known: bool = True
    lower_bound: bool = False
    input: int = 0
    cache_creation: int = 0
    cache_creation_1h: int = 0
    cache_read: int = 0
    output: int = 0
    reasoning: int = 0
    tool_calls: int = 0
    cost_micros_usd: int = 0
    requests: int = 0


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UsageTotals(Record):
    """Absolute, disjoint totals of one actor, model, branch or tree. ``+`` adds two."""

    input_tokens: int = 0
    cache_creation_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int | None = 0
    """A part of ``output_tokens``; None as soon as one addend did not tell."""
    tool_calls: int = 0
    requests: int = 0
    known_cost_micros_usd: int = 0
    """The part of the cost that is known, stated or estimated."""
    estimated_cost_micros_usd: int = 0
    """The part of the known cost that a price list gave, not the transcript."""
    unpriced_requests: int = 0
    """Requests whose cost is unknown. Where there are any, ``cost_micros_usd`` is None."""
    lower_bound: bool = False

    @property
    def cost_micros_usd(self) -> int | None:
        """The whole cost in millionths of a US dollar; None while any part of it is unknown."""
        return None if self.unpriced_requests else self.known_cost_micros_usd

    @property
    def cost_source(self) -> str:
        """One of ``transcript``, ``estimate``, ``mixed``, ``partial``, ``unknown``, ``none``."""
        if self.unpriced_requests:
            return "partial" if self.known_cost_micros_usd else "unknown"
        if not self.known_cost_micros_usd:
            return "none"
        if not self.estimated_cost_micros_usd:
            return "transcript"
        alone = self.estimated_cost_micros_usd == self.known_cost_micros_usd
        return "estimate" if alone else "mixed"

    @property
    def total_tokens(self) -> int:
        """All four buckets; reasoning is inside output."""
        return (
            self.input_tokens
            + self.cache_creation_tokens
            + self.cache_read_tokens
            + self.output_tokens
        )

    def __add__(self, other: UsageTotals) -> UsageTotals:
        reasoning = None
        if self.reasoning_tokens is not None and other.reasoning_tokens is not None:
            reasoning = self.reasoning_tokens + other.reasoning_tokens
        return UsageTotals(
            input_tokens=self.input_tokens + other.input_tokens,
            cache_creation_tokens=self.cache_creation_tokens + other.cache_creation_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=reasoning,
            tool_calls=self.tool_calls + other.tool_calls,
            requests=self.requests + other.requests,
            known_cost_micros_usd=self.known_cost_micros_usd + other.known_cost_micros_usd,
            estimated_cost_micros_usd=self.estimated_cost_micros_usd
            + other.estimated_cost_micros_usd,
            unpriced_requests=self.unpriced_requests + other.unpriced_requests,
            lower_bound=self.lower_bound or other.lower_bound,
        )


def totals_of(group: UsageGroup, estimate_micros_usd: int | None) -> UsageTotals:
    """Return a group's totals. The estimate is used only where the transcript states no cost."""
    cost = group.cost_micros_usd if group.costed else estimate_micros_usd
    return UsageTotals(
        input_tokens=group.input,
        cache_creation_tokens=group.cache_creation,
        cache_read_tokens=group.cache_read,
        output_tokens=group.output,
        reasoning_tokens=group.reasoning if group.reasoning_known else None,
        tool_calls=group.tool_calls,
        requests=group.requests,
        known_cost_micros_usd=cost or 0,
        estimated_cost_micros_usd=0 if group.costed else cost or 0,
        unpriced_requests=0 if cost is not None else max(1, group.requests),
        lower_bound=group.lower_bound,
    )


def sum_totals(addends: Iterable[UsageTotals]) -> UsageTotals:
    """Add up totals; none gives zeros."""
    found = [*addends]
    if len(found) <= _FEW:
        return sum(found[1:], start=found[0]) if found else UsageTotals()
    told = [one.reasoning_tokens for one in found if one.reasoning_tokens is not None]
    return UsageTotals(
        input_tokens=sum([one.input_tokens for one in found]),
        cache_creation_tokens=sum([one.cache_creation_tokens for one in found]),
        cache_read_tokens=sum([one.cache_read_tokens for one in found]),
        output_tokens=sum([one.output_tokens for one in found]),
        reasoning_tokens=sum(told) if len(told) == len(found) else None,
        tool_calls=sum([one.tool_calls for one in found]),
        requests=sum([one.requests for one in found]),
        known_cost_micros_usd=sum([one.known_cost_micros_usd for one in found]),
        estimated_cost_micros_usd=sum([one.estimated_cost_micros_usd for one in found]),
        unpriced_requests=sum([one.unpriced_requests for one in found]),
        lower_bound=any(one.lower_bound for one in found),
    )


def roll_up(
    own: Mapping[str, UsageTotals], parents: Mapping[str, str | None]
) -> dict[str, UsageTotals]:
    """Return for each actor its own totals plus those of everyone below it.

    ``parents`` maps an actor to its parent. Parents that have no totals of their own appear with
    their subtree's. A loop among parents is cut where it closes.
    """
    result: dict[str, UsageTotals] = dict(own)
    for actor, totals in own.items():
        seen = {actor}
        above = parents.get(actor)
        while above is not None and above not in seen:
            seen.add(above)
            result[above] = result.get(above, UsageTotals()) + totals
            above = parents.get(above)
    return result
