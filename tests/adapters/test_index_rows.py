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
    RealPaths,
    claim_keys,
    entry_from_row,
    entry_row,
    key_row,
)
from heddle_registry.codec import entry_from_toml
from heddle_registry.core.claim import Claim, ClaimHolder, EndCause, PastHolder
from heddle_registry.core.entry import (
    ActorChainNode,
    AgentEntry,
    AgentUsageSummary,
    EntryExtension,
)
from heddle_registry.core.evidence import Owner
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.token import TokenHash
from tests.codec.strategies import entries

GOLDEN = sorted((Path(__file__).parents[1] / "data" / "golden").glob("*.toml"))
TOO_LARGE = {"golden-u64-max", "golden-u64-overflow"}
PLAIN = AgentEntry(
    session_id="agent-a", thread="main", base_state="hd-1", status=AgentStatus.ACTIVE,
    started_at=Timestamp("2026-07-01T12:00:00.000001Z"),
)  # fmt: skip


def again(entry: AgentEntry) -> AgentEntry:
    keys, fields = key_row(entry), entry_row(entry)
    assert (len(keys), len(fields)) == (len(KEY_COLUMNS), len(FIELD_COLUMNS))
    made = entry_from_row(("of the file", *keys, *fields), 1)
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


def keys_of(entry: AgentEntry, real: RealPaths | None = None) -> dict[str, object]:
    return dict(zip(KEY_COLUMNS, key_row(entry, real), strict=True))


def test_the_keys_say_when_an_entry_ended_and_where_it_really_is(tmp_path):
    assert keys_of(PLAIN)["ended_ns"] is None
    ended = attrs.evolve(PLAIN, status=AgentStatus.COMPLETE)
    assert keys_of(ended)["ended_ns"] == PLAIN.started_at.unix_ns
    later = Timestamp("2026-07-02T12:00:00Z")
    assert keys_of(attrs.evolve(ended, completed_at=later))["ended_ns"] == later.unix_ns

    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    there = attrs.evolve(PLAIN, path=str(tmp_path / "link"))
    for real in (None, RealPaths()):
        assert keys_of(there, real)["real_path"] == str((tmp_path / "real").resolve())
        for name in ("a", "b"):
            below = attrs.evolve(PLAIN, path=str(tmp_path / "link" / name))
            assert keys_of(below, real)["real_path"] == str((tmp_path / "real" / name).resolve())


def test_what_only_we_keep_comes_back_whole():
    entry = PLAIN.extended(
        owner=Owner(pid=7, boot_id="b", host="h", pid_ns="p", time_ns="t", start_ticks=1),
        token=TokenHash(salt="s", digest="d"), fence=3, ttl_s=1.5, runner_pid=8,
        continues="agent-z",
        usage_sources=("/t.jsonl",), cache_creation_tokens=1, cache_read_tokens=2,
        ancestors=(ActorChainNode(session_id="agent-p", thread="up", status=AgentStatus.MERGED),),
    )  # fmt: skip
    assert again(entry) == entry


def test_whatever_a_claim_is_looked_up_by_tells_claims_apart():
    at = Timestamp("2026-07-01T12:00:00Z")
    since = Instant(at=at, awake_ns=1, boot_id="b", time_ns="t")
    holder = ClaimHolder(session_id="agent-a", granted_at=at, renewed_at=since)
    claim = Claim(thread="main", fence=1, path="/p", holder=holder)
    past = PastHolder(session_id="agent-a", fence=1, ended_at=at, cause=EndCause.RELEASED)
    released = attrs.evolve(claim, holder=None, past=(past,))
    kinds = [claim, released, attrs.evolve(claim, path=None), attrs.evolve(claim, thread="x")]
    assert len({claim_keys(kind) for kind in kinds}) == 4
    renewed = attrs.evolve(claim, holder=attrs.evolve(holder, ttl_s=5.0))
    assert claim_keys(renewed) == claim_keys(claim)
    assert claim_keys(None) is None


def test_a_list_of_nothing_takes_no_room():
    row = dict(zip(FIELD_COLUMNS, entry_row(PLAIN), strict=True))
    assert row["more"] is row["attach_precedence"] is None
