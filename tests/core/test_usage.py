"""The join and the sums: whatever comes in whatever order, the totals are the same."""

from __future__ import annotations

from functools import reduce
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.core.usage import (
    MAX_COUNT,
    UsageCounter,
    UsageGroup,
    UsageRecord,
    UsageTotals,
    count,
    counter_delta,
    instant_s,
    join_records,
    micros,
    roll_up,
    sum_totals,
    text,
    totals_of,
)

COUNTS = st.integers(0, 3)
RECORDS = st.builds(
    UsageRecord,
    id=st.just("r"),
    input=COUNTS,
    cache_creation=COUNTS,
    cache_read=COUNTS,
    output=COUNTS,
    reasoning=st.none() | COUNTS,
    tool_calls=COUNTS,
    cost_micros_usd=st.none() | COUNTS,
    model=st.sampled_from([None, "a", "b"]),
    at=st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
    actor=st.sampled_from([None, "session:1", "agent:2"]),
    lower_bound=st.booleans(),
    replayed=st.booleans(),
    weight=st.integers(0, 1),
)


@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_records_of_one_id_join_to_the_same_in_every_order_and_repetition(
    records: list[UsageRecord],
) -> None:
    joined = reduce(join_records, records)
    assert {reduce(join_records, order) for order in permutations(records)} == {joined}
    assert reduce(join_records, records + records) == joined
    if len(records) > 2:
        first, rest = reduce(join_records, records[:2]), reduce(join_records, records[2:])
        assert join_records(first, rest) == joined


def test_the_larger_numbers_win_and_a_placeholder_they_replace_is_forgotten() -> None:
    early = UsageRecord("r", input=5, output=1, lower_bound=True, tool_calls=1)
    final = UsageRecord("r", input=5, output=80, tool_calls=2)
    joined = join_records(early, final)
    assert (joined.output, joined.tool_calls, joined.lower_bound) == (80, 2, False)


def test_a_heavier_record_replaces_larger_numbers() -> None:
    joined = join_records(UsageRecord("r", output=9), UsageRecord("r", weight=1, requests=0))
    assert (joined.output, joined.requests) == (0, 0)


def _outputs(*counters: UsageCounter) -> list[int]:
    state, outputs = None, []
    for counter in counters:
        record, state = counter_delta(counter, state)
        if record is not None:
            outputs.append(record.output)
    return outputs


def _total(output: int, last: int | None = None, **more: bool) -> UsageCounter:
    call = None if last is None else (0, 0, 0, last, 0)
    return UsageCounter("s", output=output, last=call, **more)


def test_a_total_written_again_counts_nothing() -> None:
    assert _outputs(_total(5), _total(5), _total(9), _total(9)) == [5, 4]


def test_a_call_without_a_reading_of_its_own_is_in_the_next_difference() -> None:
    assert _outputs(_total(5, 5), _total(20, 6)) == [5, 15]


def test_a_total_that_fell_began_again_from_zero() -> None:
    assert _outputs(_total(50), _total(7), _total(9)) == [50, 7, 2]


def test_a_total_that_equals_its_own_last_call_began_again_even_if_it_is_larger() -> None:
    assert _outputs(_total(5, 5), _total(80, 80)) == [5, 80]


def test_a_fork_begins_with_its_parents_total_and_counts_its_own_call() -> None:
    assert _outputs(_total(1000, 8, forked=True), _total(1010, 10, forked=True)) == [8, 10]


def test_copied_readings_move_the_base_and_count_for_nobody() -> None:
    assert _outputs(_total(40, replayed=True), _total(90, replayed=True), _total(95, 5)) == [5]
    assert _outputs(_total(90, replayed=True), _total(12, 12)) == [12]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.data())
def test_re_emits_anywhere_never_change_what_a_counter_counts(
    calls: list[int], data: st.DataObject
) -> None:
    total, readings = 0, []
    for call in calls:
        total += call
        readings += [_total(total)] * data.draw(st.integers(1, 3))
    assert sum(_outputs(*readings)) == sum(calls)


def test_one_unknown_cost_makes_the_whole_unknown_and_keeps_the_known_part_apart() -> None:
    known = totals_of(UsageGroup(costed=True, cost_micros_usd=70, requests=2, output=5), None)
    unknown = totals_of(UsageGroup(requests=3, output=5, reasoning_known=False), None)
    both = known + unknown
    assert known.cost_micros_usd == 70
    assert both.cost_micros_usd is None
    assert (both.known_cost_micros_usd, both.unpriced_requests, both.cost_source) == (
        70,
        3,
        "partial",
    )
    assert (unknown.cost_source, both.reasoning_tokens) == ("unknown", None)


def test_an_estimate_never_replaces_a_stated_cost_and_is_named_as_one() -> None:
    stated = totals_of(UsageGroup(costed=True, cost_micros_usd=70, requests=1), 99)
    estimated = totals_of(UsageGroup(requests=1, output=5), 30)
    assert (stated.cost_micros_usd, stated.cost_source) == (70, "transcript")
    assert (estimated.cost_micros_usd, estimated.cost_source) == (30, "estimate")
    assert ((stated + estimated).cost_micros_usd, (stated + estimated).cost_source) == (
        100,
        "mixed",
    )
    assert sum_totals([]).cost_source == "none"


def test_a_subtree_adds_its_members_to_everyone_above_once() -> None:
    one = UsageTotals(output_tokens=1)
    rolled = roll_up(
        {"root": one, "child": one, "leaf": one},
        {"leaf": "child", "child": "root", "root": "human", "loop": "loop"},
    )
    assert {name: totals.output_tokens for name, totals in rolled.items()} == {
        "leaf": 1,
        "child": 2,
        "root": 3,
        "human": 3,
    }
    looped = roll_up({"a": one, "b": one}, {"a": "b", "b": "a"})
    assert looped["a"].output_tokens == 2


def test_an_instant_is_read_from_text_or_number_and_nonsense_is_none_at_all() -> None:
    assert instant_s("1970-01-01T00:01:00.500Z") == 60.5
    assert instant_s("1970-01-01 00:01:00") == 60.0
    assert instant_s(12) == 12.0
    assert instant_s(1_767_322_000_500) == 1_767_322_000.5
    assert instant_s("soon") == instant_s(None) == 0.0


def test_odd_values_of_a_transcript_cost_themselves_alone() -> None:
    odd: list[object] = [None, "7", [], {}, -1, True, MAX_COUNT + 1, float("nan"), float("inf")]
    assert {count(value) for value in odd} == {0}
    assert (count(7), count(7.0)) == (7, 7)
    assert {micros(value) for value in [None, 0, -1.0, "1", float("inf")]} == {None}
    assert micros(0.0000014) == 1
    assert [text(value) for value in ["m", 1, None, "\ud800"]] == ["m", None, None, None]
