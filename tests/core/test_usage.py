"""The join and the sums: whatever comes in whatever order, the totals are the same."""

from __future__ import annotations

import time
from functools import reduce
from itertools import permutations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle_registry.core.usage import (
    LONG_CONTEXT_TOKENS,
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
    owns_before,
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


@settings(deadline=None)
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


@settings(deadline=None)
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


def test_of_two_equal_counts_the_one_that_tells_more_wins_and_the_smaller_actor_owns_it() -> None:
    plain = UsageRecord("r", output=5, at="2026-07-01T12:00:01Z", actor="session:b")
    for more in (
        {"cost_micros_usd": 0},
        {"reasoning": 0},
        {"requests": 2},
        {"model": "m"},
    ):
        telling = plain._replace(at=None, actor="session:a", **more)
        for joined in (join_records(plain, telling), join_records(telling, plain)):
            (name, value), *_ = more.items()
            assert getattr(joined, name) == value
            assert (joined.actor, joined.at) == ("session:a", "2026-07-01T12:00:01Z")
    early = plain._replace(at="2026-07-01T12:00:00Z", lower_bound=True)
    assert join_records(plain, early).at == "2026-07-01T12:00:00Z"
    assert join_records(plain, early).lower_bound
    larger = plain._replace(output=6, actor="session:z")
    assert join_records(early, larger).lower_bound is False
    assert join_records(larger, plain).actor == "session:b", "both claim it; the name decides"
    heavier = plain._replace(weight=1, actor="session:z")
    assert join_records(heavier, plain).actor == "session:z"
    assert join_records(plain, plain._replace(actor=None)).actor == "session:b"


def test_a_replay_loses_to_whoever_made_the_record_however_large_it_is() -> None:
    replay = UsageRecord("r", output=9, weight=5, replayed=True, actor="a")
    own = UsageRecord("r", output=1, actor="z")
    for joined in (join_records(replay, own), join_records(own, replay)):
        assert (joined.output, joined.actor) == (1, "z")
    for name in ("input", "cache_creation", "cache_read", "output"):
        one = UsageRecord("r", **{name: 2})
        assert join_records(one, UsageRecord("r", input=1)) == one, name
    shifted = UsageRecord("r", output=2), UsageRecord("r", input=2)
    assert join_records(*shifted) == shifted[0], "of equal sums the larger output"
    hour = UsageRecord("r", cache_creation=2, cache_creation_1h=1)
    assert join_records(hour, UsageRecord("r", cache_creation=2)) == hour


def test_a_record_belongs_to_who_did_not_copy_it_then_to_the_heavier_then_the_first() -> None:
    first, later = (1.0, 0, "a"), (2.0, 0, "a")
    assert owns_before((False, 0, later), (True, 9, first))
    assert not owns_before((True, 9, first), (False, 0, later))
    assert owns_before((False, 2, later), (False, 1, first))
    assert owns_before((False, 1, first), (False, 1, later))
    assert not owns_before((False, 1, first), (False, 1, first))


def test_each_bucket_of_a_reading_is_counted_from_the_reading_before() -> None:
    first = UsageCounter("s", 10, 20, 30, 40, 5, model="m", at=7, actor="a")
    record, state = counter_delta(first, None)
    assert record is not None
    assert record[1:6] == (10, 20, 30, 40, 5)
    assert (record.model, record.at, record.actor) == ("m", 7, "a")
    assert (record.tool_calls, record.cost_micros_usd, record.requests) == (0, None, 1)
    assert state == [0, 10, 20, 30, 40, 5]
    record, state = counter_delta(UsageCounter("s", 11, 22, 33, 44, 10, id="own"), state)
    assert record is not None
    assert record[:6] == ("own", 1, 2, 3, 4, 5)
    # One that fell in any way began again, under another name.
    for fell in (UsageCounter("s", 99, 22, 33, 43), UsageCounter("s", 0, 0, 0, 44)):
        anew, after = counter_delta(fell, state)
        assert anew is not None
        assert anew[1:6] == fell[1:6]
        assert after[0] == 1
        assert anew.id != counter_delta(fell, None)[0].id
    reasoned = UsageCounter("s", 11, 22, 33, 44, 11)
    more, _ = counter_delta(reasoned, state)
    assert more is not None
    assert more[1:6] == (0, 0, 0, 0, 1), "more reasoning in the same output is no re-emit"


def test_a_fork_counts_its_own_call_in_every_bucket_and_never_below_zero() -> None:
    forked = UsageCounter("s", 10, 20, 30, 40, 5, last=(1, 2, 3, 4, 9), forked=True)
    record, _ = counter_delta(forked, None)
    assert record is not None
    assert record[1:6] == (1, 2, 3, 4, 5)
    for other in (forked._replace(forked=False), forked._replace(last=None)):
        record, _ = counter_delta(other, None)
        assert record is not None
        assert record[1:6] == (10, 20, 30, 40, 5)
    zero, state = counter_delta(UsageCounter("s"), None)
    assert zero is not None
    same = UsageCounter("s", 1, last=(1, 0, 0, 0, 0))
    assert counter_delta(same, state)[1][0] == 0, "from nothing, a first call is no new beginning"
    _, unanswered = counter_delta(UsageCounter("s", 5), None)
    again = UsageCounter("s", 8, last=(8, 0, 0, 0, 0))
    assert counter_delta(again, unanswered)[0].input == 8, "input alone is also something before"


def test_totals_add_in_every_field_and_know_less_where_one_knows_less() -> None:
    fields = [f.name for f in attrs.fields(UsageTotals) if f.name != "lower_bound"]
    one = UsageTotals(**{name: 10 + at for at, name in enumerate(fields)})
    both = one + one
    assert [getattr(both, name) for name in fields] == [2 * (10 + at) for at in range(len(fields))]
    assert both.total_tokens == 2 * (10 + 11 + 12 + 13)
    assert not both.lower_bound
    for other in (attrs.evolve(one, lower_bound=True), attrs.evolve(one, reasoning_tokens=None)):
        for total in (one + other, other + one):
            assert total.lower_bound is other.lower_bound
            assert (total.reasoning_tokens is None) == (other.reasoning_tokens is None)
    assert UsageTotals().total_tokens == 0
    assert UsageTotals().cost_micros_usd == 0
    assert sum_totals([one]) is one


def test_a_group_tells_each_of_its_sums_and_an_unpriced_one_counts_at_least_once() -> None:
    group = UsageGroup(
        input=1, cache_creation=2, cache_read=3, output=4, reasoning=5, tool_calls=6, requests=0,
        lower_bound=True,
    )  # fmt: skip
    unpriced = totals_of(group, None)
    assert unpriced == UsageTotals(
        input_tokens=1, cache_creation_tokens=2, cache_read_tokens=3, output_tokens=4,
        reasoning_tokens=5, tool_calls=6, unpriced_requests=1, lower_bound=True,
    )  # fmt: skip
    assert totals_of(group._replace(requests=7), None).unpriced_requests == 7
    free = totals_of(group, 0)
    assert (free.cost_micros_usd, free.unpriced_requests, free.cost_source) == (0, 0, "none")
    stated = totals_of(group._replace(costed=True, cost_micros_usd=8), 9)
    assert (stated.known_cost_micros_usd, stated.estimated_cost_micros_usd) == (8, 0)
    assert (free.requests, unpriced.requests) == (0, 0)


def test_the_edges_of_what_is_believed_of_a_transcript() -> None:
    assert (count(0), count(MAX_COUNT), count(float(MAX_COUNT))) == (0, MAX_COUNT, MAX_COUNT)
    assert (count(-1.0), count(2.0**60)) == (0, 0)
    assert (micros(2), micros(MAX_COUNT / 1e6), micros(MAX_COUNT)) == (2_000_000, MAX_COUNT, None)
    assert instant_s(1e11) == 1e11
    assert instant_s(1e11 + 1_000) == 1e8 + 1
    assert (instant_s(0), instant_s(-5), instant_s(MAX_COUNT), instant_s(1e300)) == (0, 0, 0, 0)
    assert instant_s("1970-01-01T01:00:00+01:00") == 0.0


def test_what_is_not_told_counts_nothing() -> None:
    empty = UsageRecord("r")
    assert sum(empty[1:5]) + empty.tool_calls + empty.weight + empty.cache_creation_1h == 0
    assert (empty.reasoning, empty.requests, empty.lower_bound, empty.replayed) == (
        None,
        1,
        False,
        False,
    )
    reading = UsageCounter("s")
    assert reading[1:6] == (0, 0, 0, 0, 0)
    assert (reading.forked, reading.replayed) == (False, False)
    assert totals_of(UsageGroup(), 0) == UsageTotals()
    assert not UsageGroup().long_context
    assert totals_of(UsageGroup(costed=True), 0).known_cost_micros_usd == 0
    assert UsageGroup().cache_creation_1h == 0
    assert LONG_CONTEXT_TOKENS == 200_000, "where the vendors' other rate begins"


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone cannot be set here")
def test_an_instant_without_a_zone_is_utc_wherever_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert instant_s(0.5) == 0.5
    try:
        monkeypatch.setenv("TZ", "XST-9")
        time.tzset()
        assert instant_s("1970-01-01 00:01:00") == 60.0
        assert instant_s("1970-01-01 09:01:00+09:00") == 60.0
    finally:
        monkeypatch.undo()
        time.tzset()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 3), st.booleans())))
def test_many_totals_add_up_to_what_they_do_one_by_one(
    drawn: list[tuple[int, int | None, bool]],
) -> None:
    addends = [
        UsageTotals(
            input_tokens=n,
            cache_creation_tokens=n + 1,
            cache_read_tokens=n * 2,
            output_tokens=n * 3,
            reasoning_tokens=reasoning,
            tool_calls=n % 2,
            requests=n % 3,
            known_cost_micros_usd=n % 4,
            estimated_cost_micros_usd=n % 5,
            unpriced_requests=n % 6,
            lower_bound=low,
        )
        for n, reasoning, low in drawn
    ]
    one_by_one = UsageTotals()
    for addend in addends:
        one_by_one = one_by_one + addend
    assert sum_totals(addends) == one_by_one
