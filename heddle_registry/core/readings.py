"""Many readings of a running total at once.

A transcript that writes cumulative counters has thousands of them, and making a `UsageCounter` and
a `UsageRecord` of each costs more than all the rest of its reading. So a plugin may answer a run of
them, and the differences are taken in one go; they are those that `counter_delta` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from heddle_registry.core.usage import UsageCounter, counter_delta

if TYPE_CHECKING:
    Instant = str | float | None
    Reading = tuple[Instant, int, int, int, int, int, bool]
    """When; the total as input, cache creation, cache read, output, reasoning; and whether the
    latest call alone used as much as that."""
    Delta = tuple[str, Instant, int, int, int, int, int]
    """Id, when, and what was used since the reading before, in the order of a reading."""


class UsageReadings(NamedTuple):
    """Readings of one running total by one actor and model, in the file's order.

    Each stands for a `UsageCounter`, which tells what more may be said of one.
    """

    series: str
    readings: list[Reading]
    model: str | None = None
    actor: str | None = None


def readings_delta(run: UsageReadings, state: list[int] | None) -> tuple[list[Delta], list[int]]:
    """Return what was used between the readings, and the state for the next run.

    ``state`` is that of `counter_delta`. A run holds at least one reading.
    """
    series, readings, _, _ = run
    found: list[Delta] = []
    if state is None:
        first, *readings = readings
        state = _slowly(series, first, None, found)
    epoch, fresh_0, creation_0, cached_0, output_0, reasoning_0 = state
    whole_0 = fresh_0 + creation_0 + cached_0 + output_0
    for reading in readings:
        at, fresh, creation, cached, output, reasoning, alone = reading
        whole = fresh + creation + cached + output
        if alone or output < output_0 or whole <= whole_0:
            state = [epoch, fresh_0, creation_0, cached_0, output_0, reasoning_0]
            epoch = _slowly(series, reading, state, found)[0]
        else:
            found.append(
                (
                    f"{series}#{epoch}#{fresh}.{creation}.{cached}.{output}.{reasoning}",
                    at,
                    fresh - fresh_0,
                    creation - creation_0,
                    cached - cached_0,
                    output - output_0,
                    reasoning - reasoning_0,
                )
            )
        fresh_0, creation_0, cached_0, output_0 = fresh, creation, cached, output
        whole_0, reasoning_0 = whole, reasoning
    return found, [epoch, fresh_0, creation_0, cached_0, output_0, reasoning_0]


def _slowly(
    series: str, reading: Reading, state: list[int] | None, found: list[Delta]
) -> list[int]:
    """Take one difference as of a `UsageCounter`, and return the state behind it."""
    at, fresh, creation, cached, output, reasoning, alone = reading
    total = fresh, creation, cached, output, reasoning
    counter = UsageCounter(series, *total, last=total if alone else None)
    record, after = counter_delta(counter, state)
    if record is not None:
        used = record.input, record.cache_creation, record.cache_read, record.output
        found.append((record.id, at, *used, record.reasoning or 0))
    return after
