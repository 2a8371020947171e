"""The short ways to a row give what the long ones give."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from heddle_registry.adapters.usage_row import (
    DOCUMENT,
    SourceRows,
    larger,
    record_of,
    row_of,
    with_calls,
)
from heddle_registry.core.usage import UsageGroup, UsageRecord, join_records, sum_totals, totals_of

RECORD = st.builds(
    UsageRecord,
    id=st.just("a"),
    input=st.integers(0, 2),
    cache_creation=st.integers(0, 1),
    cache_creation_1h=st.integers(0, 1),
    cache_read=st.sampled_from([0, 300_000]),
    output=st.integers(0, 2),
    reasoning=st.none() | st.integers(0, 1),
    tool_calls=st.integers(0, 2),
    cost_micros_usd=st.none() | st.integers(0, 1),
    model=st.sampled_from(["m", "n"]),
    at=st.none() | st.integers(1, 3),
    lower_bound=st.booleans(),
    replayed=st.booleans(),
    weight=st.integers(0, 1),
    requests=st.integers(0, 1),
    actor=st.just("session:s"),
)
MODELS = {"m": 1, "n": 2, None: 0}


def row(record: UsageRecord) -> Any:
    return row_of(7, 1, record, 3, MODELS[record.model], 0)


def record(of: Any) -> UsageRecord:
    return record_of(of, {1: "m", 2: "n"}[of[3]], "session:s")


@settings(max_examples=400, deadline=None)
@given(RECORD, RECORD)
def test_two_rows_of_an_actor_are_joined_as_their_records_are(
    one: UsageRecord, other: UsageRecord
) -> None:
    found = larger(row(one), row(other))
    right = row(join_records(record(row(one)), record(row(other))))
    assert found in (None, right)
    assert larger(row(one), row(one)) == row(one)
    assert larger(row(one), (*row(other)[:2], 4, *row(other)[3:])) is None, "another actor's"


DELTA = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["2026-01-01T00:00:00Z", None, 5]),
    *[st.sampled_from([0, 1, 150_000])] * 4,
    st.sampled_from([-1, 0, 1]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(DELTA, max_size=6), st.sampled_from([0, DOCUMENT]))
def test_differences_become_the_rows_that_records_of_them_become(
    deltas: list[Any], kind: int
) -> None:
    found = []
    for is_quick in (True, False):
        rows = SourceRows("acme", 1, {"x": 3}, MODELS, max)
        rows.kind = kind
        if is_quick:
            rows.add_deltas(deltas, "x", "m")
        else:
            for name, at, *used in deltas:
                rows.add([UsageRecord(name, *used, model="m", at=at, actor="x")])
        found.append(rows.rows)
    assert found[0] == found[1]


SUM = st.tuples(
    st.just(1), st.integers(0, 2), st.sampled_from([0, 2, 2 | DOCUMENT, 8, 10]),
    *[st.sampled_from([0, 0, 3])] * 9,
)  # fmt: skip


def totals(sums: list[Any]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for _, model, flags, *columns in sums:
        costed, lower = bool(flags & 2), bool(flags & 8)
        group = UsageGroup(None, False, costed, True, lower, *columns)
        found.setdefault(model, []).append(totals_of(group, None))
    return {model: sum_totals(every) for model, every in found.items()}


@settings(max_examples=300, deadline=None)
@given(st.lists(SUM, unique_by=lambda one: one[1:3], max_size=6))
def test_calls_put_into_other_sums_of_their_model_leave_its_totals(sums: list[Any]) -> None:
    sums = [one for one in sums if any(one[3:])]
    assert totals(with_calls(sums)) == totals(sums)
    assert len(with_calls(sums)) <= len(sums)
