"""A row of the index makes the entry again, or says that it cannot."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given

from heddle_registry.adapters.index_rows import (
    FIELD_COLUMNS,
    KEY_COLUMNS,
    NotPlain,
    entry_from_row,
    entry_row,
    key_row,
)
from heddle_registry.codec import entry_from_toml
from heddle_registry.core.entry import AgentEntry, AgentUsageSummary, EntryExtension
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Timestamp
from tests.codec.strategies import entries

GOLDEN = sorted((Path(__file__).parents[1] / "data" / "golden").glob("*.toml"))
TOO_LARGE = {"golden-u64-max", "golden-u64-overflow"}
PLAIN = AgentEntry(
    session_id="agent-a", thread="main", base_state="hd-1", status=AgentStatus.ACTIVE,
    started_at=Timestamp("2026-07-01T12:00:00.000001Z"),
)  # fmt: skip


def again(entry: AgentEntry) -> AgentEntry:
    keys = dict(zip(KEY_COLUMNS, key_row(entry), strict=True))
    row = entry_row(entry)
    assert len(row) == len(FIELD_COLUMNS)
    made = entry_from_row(row, keys["started_s"], keys["started_n"])
    assert made.started_at.sort_key == entry.started_at.sort_key
    return made


@given(entries)
def test_an_entry_comes_back_whole_or_is_said_to_be_no_row(entry):
    try:
        made = again(entry)
    except NotPlain:
        return
    assert made == entry


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_what_the_original_wrote_comes_back_whole(path):
    entry = entry_from_toml(path.read_bytes(), str(path))
    if entry.reservation_token is not None or path.stem in TOO_LARGE:
        with pytest.raises(NotPlain):
            entry_row(entry)
    else:
        assert again(entry) == entry


@pytest.mark.parametrize("precedence", [(), ("",), ("", ""), ("a",), ("a", "", "b")])
def test_a_list_of_lines_is_told_from_no_list(precedence):
    assert again(attrs.evolve(PLAIN, attach_precedence=precedence)).attach_precedence == precedence


@pytest.mark.parametrize(
    "odd",
    [
        {"attach_precedence": ("a\nb",)},
        {"unknown": {"newer": 1}},
        {"usage_summary": AgentUsageSummary(input_tokens=2**63)},
        {"usage_summary": AgentUsageSummary(unknown={"newer": 1})},
        {"extension": EntryExtension(unknown={"newer": 1})},
        {"extension": EntryExtension(cache_read_tokens=2**63)},
        {"reservation_token": "in clear text"},
    ],
    ids="-".join,
)
def test_what_no_column_can_hold_is_read_from_the_file_each_time(odd):
    with pytest.raises(NotPlain):
        entry_row(attrs.evolve(PLAIN, **odd))
