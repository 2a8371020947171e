"""The life of an entry: every pair of the design's table, and how long an ended one is kept."""

from __future__ import annotations

from itertools import product

import attrs
import pytest

from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.lifecycle import (
    EVENT_OF_STATUS,
    TRANSITIONS,
    AgentStatus,
    EntryEvent,
    apply_event,
    is_stale,
    next_status,
)
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.errors import IllegalTransition

ACTIVE, COMPLETE, MERGED, ABANDONED = (
    AgentStatus.ACTIVE,
    AgentStatus.COMPLETE,
    AgentStatus.MERGED,
    AgentStatus.ABANDONED,
)
NOW = Timestamp("2026-03-01T12:00:00Z")
BEFORE = Timestamp("2026-02-28T12:00:00Z")

# from -> complete, merge, abandon, progress; None is "refused". Written from the design's words.
TABLE = {
    ACTIVE: (COMPLETE, MERGED, ABANDONED, ACTIVE),
    COMPLETE: (COMPLETE, MERGED, None, None),
    MERGED: (None, MERGED, None, None),
    ABANDONED: (None, None, ABANDONED, None),
}
EVENTS = (EntryEvent.COMPLETE, EntryEvent.MERGE, EntryEvent.ABANDON, EntryEvent.PROGRESS)


def entry(status: AgentStatus) -> AgentEntry:
    return AgentEntry(
        session_id="agent-a",
        thread="main",
        base_state="b",
        started_at=Timestamp("2026-02-01T00:00:00Z"),
        status=status,
        completed_at=None if status is ACTIVE else BEFORE,
    )


@pytest.mark.parametrize(("status", "event"), list(product(AgentStatus, EntryEvent)))
def test_every_pair_does_what_the_design_says_and_a_refused_one_changes_nothing(status, event):
    expected = TABLE[status][EVENTS.index(event)]
    before = entry(status)
    kept = attrs.asdict(before)
    if expected is None:
        assert event not in TRANSITIONS[status]
        with pytest.raises(IllegalTransition) as refused:
            apply_event(before, event, NOW)
        assert (refused.value.status, refused.value.event) == (status.value, event.value)
        assert refused.value.session_id == "agent-a"
    else:
        assert next_status(status, event) is expected
        after = apply_event(before, event, NOW)
        assert after.status is expected
        if expected is status:
            assert after == before
    assert attrs.asdict(before) == kept


def test_the_first_end_stays_when_a_complete_entry_is_merged():
    ended = apply_event(entry(ACTIVE), EntryEvent.COMPLETE, BEFORE)
    assert ended.completed_at == BEFORE
    assert apply_event(ended, EntryEvent.MERGE, NOW).completed_at == BEFORE


def test_an_end_without_a_time_gets_one_from_the_event_that_follows():
    # Another program may leave it out.
    timeless = attrs.evolve(entry(COMPLETE), completed_at=None)
    assert apply_event(timeless, EntryEvent.MERGE, NOW).completed_at == NOW


def test_each_status_is_asked_for_by_the_event_that_leads_to_it():
    assert {next_status(ACTIVE, event): event for event in EntryEvent} == EVENT_OF_STATUS


@pytest.mark.parametrize(
    ("now", "stale"),
    [("2026-03-07T12:00:00Z", True), ("2026-03-07T11:59:59.999999999Z", False)],
)
def test_an_ended_entry_is_kept_for_seven_days_to_the_nanosecond(now, stale):
    assert is_stale(entry(MERGED), Timestamp(now)) is stale


def test_an_active_entry_is_never_stale_and_one_without_an_end_counts_from_its_start():
    far = Timestamp("2036-01-01T00:00:00Z")
    assert not is_stale(entry(ACTIVE), far)
    timeless = attrs.evolve(entry(ABANDONED), completed_at=None)
    assert is_stale(timeless, Timestamp("2026-02-08T00:00:00Z"))
    assert not is_stale(timeless, Timestamp("2026-02-07T23:59:59Z"))
