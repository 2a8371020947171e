"""A run of readings counts what its readings count one by one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from heddle_registry.core.readings import UsageReadings, readings_delta
from heddle_registry.core.usage import UsageCounter, counter_delta

STEP = st.tuples(*[st.integers(0, 2)] * 5, st.booleans())
FALL = st.sampled_from([True, *[False] * 5])


@st.composite
def readings(draw: st.DrawFn) -> list[tuple[str, int, int, int, int, int, bool]]:
    """Totals that mostly grow, sometimes stay, and now and then fall."""
    total, found = [0] * 5, []
    for number in range(draw(st.integers(1, 12))):
        *step, alone = draw(STEP)
        if draw(FALL):
            total = [0] * 5
        total = [now + more for now, more in zip(total, step, strict=True)]
        found.append((f"2026-01-01T00:00:{number:02}Z", *total, alone))
    return found


@settings(max_examples=300, deadline=None)
@given(readings(), st.lists(st.integers(0, 12), max_size=3))
def test_a_run_counts_what_its_readings_count_one_by_one_however_it_is_cut(
    told: list[tuple[str, int, int, int, int, int, bool]], cuts: list[int]
) -> None:
    state, expected = None, []
    for at, *total, alone in told:
        last = tuple(total) if alone else None
        counter = UsageCounter("s", *total, last=last, at=at)  # type: ignore[arg-type]
        record, state = counter_delta(counter, state)
        if record is not None:
            expected.append((record.id, record.at, *record[1:6]))
    found, after = [], None
    for start, end in pairwise(sorted({0, len(told), *(cut for cut in cuts if cut < len(told))})):
        deltas, after = readings_delta(UsageReadings("s", told[start:end]), after)
        found += deltas
    assert (found, after) == (expected, state)
