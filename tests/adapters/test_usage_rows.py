from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heddle_registry.adapters import usage_rows
from heddle_registry.adapters.usage_state import UsageState
from heddle_registry.core.usage import UsageRecord

RECORD = st.builds(
    UsageRecord,
    id=st.sampled_from("abcde"),
    input=st.integers(0, 3),
    cache_read=st.sampled_from([0, 300_000]),
    output=st.integers(0, 3),
    reasoning=st.none() | st.integers(0, 1),
    tool_calls=st.integers(0, 2),
    cost_micros_usd=st.none() | st.integers(0, 2),
    model=st.none() | st.sampled_from(["m", "n"]),
    at=st.none() | st.integers(1, 9),
    lower_bound=st.booleans(),
    replayed=st.booleans(),
    weight=st.integers(0, 1),
    cache_creation=st.integers(0, 2),
    cache_creation_1h=st.integers(0, 2),
    requests=st.integers(0, 1),
    actor=st.none(),
)


def opened() -> UsageState:
    state = UsageState(None)
    state.begin()
    return state


def begin(state: UsageState, source: int, *records: UsageRecord) -> None:
    actor = state.records.names.actor("acme", f"acme:session:{source}", source)
    rows = state.records.of("acme", source, {None: actor})
    rows.add(records)
    state.records.join(source, (float(source), 0, ""), rows.rows)


def join(state: UsageState, source: int, *records: UsageRecord) -> None:
    begin(state, source, *records)
    state.release()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.lists(RECORD, max_size=4)), max_size=8),
    st.integers(1, 6),
    st.data(),
)
def test_the_sums_are_those_of_the_records_whatever_was_joined_taken_back_or_forgotten(
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[int, list[UsageRecord]]],
    batch: int,
    data: st.DataObject,
) -> None:
    monkeypatch.setattr(usage_rows, "BATCH_ROWS", batch)
    with closing(opened()) as state:  # also when Hypothesis gives an example up
        for source in (1, 2, 3):
            state.save_source("acme", str(source), state.add_source(source))
        for source, records in steps:
            what = data.draw(st.sampled_from(["keep", "keep", "take back", "forget"]))
            if what == "take back":
                known = outputs(state)
                begin(state, source, *records)
                begin(state, source, *records[1:])
                state.rollback()
                assert outputs(state) == known
            else:
                join(state, source, *records)
            if what == "forget":
                state.records.forget(source, document=False)
        state.records.write_sums()
        assert state.records.sums_agree()


def test_a_number_that_no_table_holds_costs_its_own_source_alone() -> None:
    state = opened()
    join(state, 1, UsageRecord("a", output=4))
    for odd in ("4", None, 1 << 60, -1 << 60):
        wrong: Any = odd
        with pytest.raises(TypeError):
            begin(state, 2, UsageRecord("b", output=1), UsageRecord("c", output=wrong))
        with pytest.raises(TypeError):
            begin(state, 2, UsageRecord("c", cost_micros_usd=wrong or "4"))
        state.rollback()
    assert outputs(state) == {"acme:session:1": 4}
    state.close()


def outputs(state: UsageState, **window: Any) -> dict[str, int]:
    return {
        key: sum(group.output for group in groups)
        for key, _, _, _, groups in state.records.groups([1, 2], **window)
    }


def test_a_window_has_its_beginning_and_not_its_end_and_what_has_no_time_is_before_all() -> None:
    state = opened()
    records = [UsageRecord(str(n), output=1 << n, at=n or None) for n in range(4)]
    join(state, 1, *records)
    key = "acme:session:1"
    assert outputs(state) == {key: 15}
    assert outputs(state, since_s=2.0) == {key: 12}
    assert outputs(state, until_s=2.0) == {key: 3}
    assert outputs(state, since_s=1.0, until_s=3.0) == {key: 6}
    assert outputs(state, since_s=0.0) == {key: 14}
    state.close()


def test_a_record_in_two_files_is_the_first_ones_and_both_are_read_again_together() -> None:
    state = opened()
    for source in (1, 2):
        state.save_source("acme", str(source), state.add_source(source))
    join(state, 2, UsageRecord("a", output=4), UsageRecord("b", output=2))
    assert outputs(state) == {"acme:session:2": 6}
    join(state, 1, UsageRecord("a", output=4))
    assert outputs(state) == {"acme:session:1": 4, "acme:session:2": 2}
    assert state.records.forget(1, document=False) == [2]
    assert outputs(state) == {}
    state.close()


def test_odd_names_are_kept_as_text_and_a_replay_alone_counts_for_nobody() -> None:
    state = opened()
    join(state, 1, UsageRecord("\ud800", output=1, model="\udcff\0'"))
    join(state, 2, UsageRecord("x", output=9, replayed=True))
    (row,) = state.records.groups([1, 2])
    assert [(group.model, group.output) for group in row[4]] == [("?\0'", 1)]
    state.close()
