from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import tomli
from hypothesis import HealthCheck, given, settings

from heddle_registry.codec import entry_from_toml, entry_to_toml, is_from_newer_schema
from heddle_registry.core.entry import AgentEntry, AgentUsageSummary, ContextQueryEntry
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.errors import RecordCorrupt, UsageError
from tests import seed_registry
from tests.codec.strategies import entries, original_entries

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
FILES = sorted(GOLDEN.glob("*.toml"))
MINIMAL = b"""\
session_id = "golden-minimal"
thread = "agent/golden-minimal"
base_state = "hd-base"
started_at = "2026-07-01T12:00:00Z"
status = "active"
"""


def golden(name: str) -> AgentEntry:
    path = GOLDEN / f"golden-{name}.toml"
    return entry_from_toml(path.read_bytes(), str(path))


def problems_of(data: bytes) -> tuple[str, ...]:
    with pytest.raises(RecordCorrupt) as caught:
        entry_from_toml(data, "agents/x.toml")
    assert caught.value.path == "agents/x.toml"
    return caught.value.problems


def test_all_25_golden_files_are_here():
    assert len(FILES) == 25


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_is_written_back_byte_for_byte(path):
    data = path.read_bytes()
    assert entry_to_toml(entry_from_toml(data, str(path))) == data


def test_golden_minimal_is_the_defaults():
    assert golden("minimal") == AgentEntry(
        session_id="golden-minimal",
        thread="agent/golden-minimal",
        base_state="hd-base",
        started_at=Timestamp("2026-07-01T12:00:00Z"),
        status=AgentStatus.ACTIVE,
    )


def test_golden_full_fills_every_field():
    assert golden("full") == AgentEntry(
        session_id="golden-full",
        client_instance_id="client-7d0f1c",
        native_actor_key="codex:thread:thr_123",
        native_parent_actor_key="human:foo",
        native_instance_key="/home/dev/.codex/sessions/rollout-1.jsonl",
        heddle_session_id="sess-123",
        thread_id="feature/full",
        thread="feature/full",
        pid=4242,
        boot_id="f3564707-cd73-4157-8f9d-660c22b3533a",
        liveness_path="/repo/.heddle/agents/golden-full.live",
        heartbeat_at=Timestamp("2026-07-01T12:00:01.123456789Z"),
        anchor_state="hd-a1b2c3d4e5f60718293a4b5c6d7e8f90",
        anchor_root="9f8e7d6c5b4a",
        reservation_token="agent-vnkmjllgnpxjxn557lwq",
        path="/home/dev/work/checkouts/full",
        base_state="hd-a1b2c3d4",
        started_at=Timestamp("2026-07-01T12:00:00.000001Z"),
        provider="anthropic",
        model="claude-sonnet-4-6",
        harness="claude-code",
        thinking_level="high",
        usage_summary=AgentUsageSummary(
            input_tokens=184223,
            output_tokens=20117,
            reasoning_tokens=9114,
            tool_calls=73,
            cost_micros_usd=1284551,
        ),
        last_progress_at=Timestamp("2026-07-01T12:00:02.500Z"),
        report_flush_state="flushed",
        attach_reason="Refactor the auth session store",
        task_assignment_id="task-9",
        attach_precedence=("explicit-flag", "matched-current-session", "agent-reserve"),
        winning_attach_rule="agent-reserve",
        probe_source="argv_env",
        probe_confidence=0.75,
        status=AgentStatus.ACTIVE,
        context_queries=(
            ContextQueryEntry(
                path="src/auth/session.rs",
                scope="symbol:validate_token",
                queried_at=Timestamp("2026-07-01T12:00:03Z"),
            ),
        ),
    )


def test_golden_strings_hold_what_its_readme_says():
    entry = golden("strings")
    assert entry.client_instance_id == "   leading and trailing   "
    assert entry.native_instance_key == "\"\"\"triple\"\"\" and '''triple'''"
    assert (entry.heddle_session_id, entry.thread_id, entry.boot_id) == ("\\", '"', "'")
    assert entry.thread == "feature/日本語-é-🦀"
    assert (entry.anchor_state, entry.task_assignment_id) == ("\n", "")
    assert entry.reservation_token == "\t"
    assert entry.harness == "both \"double\" and 'single'"
    assert entry.thinking_level == "back\\slash C:\\Users\\x"
    assert entry.report_flush_state == "ends with newline\n"
    assert entry.attach_reason == 'line one\nline two\n\ttabbed "quoted" \\n not-newline\nlast'
    assert entry.attach_precedence == ('a "b"', "c\nd", "", "e'f", "日本", "\\")
    assert entry.winning_attach_rule == "crlf\r\nend"
    assert entry.probe_source == "ctl \0\x01\x07\b\f\x1b\x1f\x7f tab\there"


def test_golden_times_are_the_instants_that_went_in():
    # Each as (seconds since 1970, nanoseconds), worked out from the inputs in golden/README.md.
    noon = 1_782_907_200  # 2026-07-01T12:00:00Z
    entry = golden("times")
    assert entry.started_at.sort_key == (-1, 500_000_000)
    assert entry.last_progress_at.sort_key == (noon, 123_000_000)
    assert entry.heartbeat_at.sort_key == (noon, 0)
    assert entry.completed_at.sort_key == (-62_198_755_200, 0)  # year -1
    assert [query.queried_at.sort_key for query in entry.context_queries] == [
        (noon, 100_000_000),
        (noon, 120_000_000),
        (noon, 123_456_000),
        (noon, 123_456_700),
        (noon, 999_999_999),
        (1_483_228_799, 1_000_000_000),  # a leap second: the 59th, and a second more
        (1_483_228_799, 1_500_000_000),
        (327_403_382_400, 0),  # +12345-01-01
        (-62_167_219_200, 0),  # year 0
        (noon, 0),
        (noon, 0),
        (noon, 0),
        (noon + 61_199, 123_456_789),  # 2026-07-02T04:59:59 UTC; ten digits cut to nine
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("0-0", 0.0), ("0-1", 0.1), ("0-75", 0.75), ("0-96", 0.96), ("1-0", 1.0), ("tiny", 1e-7)),
        *(("16777217", 16_777_216.0), ("huge", 3e38), ("third", 0.33333334)),
    ],
)
def test_golden_confidences_read_as_they_stand(name, value):
    assert golden(f"conf-{name}").probe_confidence == value


def test_golden_counters_reach_beyond_the_signed_range():
    assert golden("u64-max").usage_summary.input_tokens == 2**64 - 1
    assert golden("u64-overflow").usage_summary.input_tokens == 2**63
    assert golden("u64-i64max").usage_summary == AgentUsageSummary(
        input_tokens=2**63 - 1,
        output_tokens=0,
        reasoning_tokens=1,
        tool_calls=2**32 - 1,
        cost_micros_usd=2**53 + 1,
    )
    assert golden("u64-i64max").pid == 2**32 - 1
    assert golden("usage-partial").usage_summary == AgentUsageSummary(output_tokens=7)


def test_golden_paths_queries_and_statuses_read_as_made():
    assert golden("path-spaces").path == '/home/dev/My Projects/the "repo"/work tree'
    assert "\\" in golden("path-windows").path
    assert [(query.path, query.scope) for query in golden("queries").context_queries] == [
        ("src/a.rs", "symbol:parse_manifest"),
        ("src/b with space.rs", None),
        ('src/"q".rs', "lines:10-20"),
        ("", ""),
    ]
    for status in AgentStatus:
        entry = golden(f"status-{status}")
        assert (entry.status, entry.is_active) == (status, entry.completed_at is None)


def test_what_the_original_may_leave_out_may_be_missing():
    entry = entry_from_toml(MINIMAL, "x")
    assert entry == golden("minimal")


def test_timestamps_and_integer_confidences_load_as_the_originals_types_take_them():
    entry = entry_from_toml(
        MINIMAL.replace(b"2026-07-01T12:00:00Z", b"2026-07-01 14:00:00.1234567890+02:00")
        + b"probe_confidence = 1\n",
        "x",
    )
    assert entry.probe_confidence == 1.0
    assert b'started_at = "2026-07-01 14:00:00.1234567890+02:00"\n' in entry_to_toml(entry)


@given(entries)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_entry_with_any_unknown_keys_reads_back_equal(entry):
    data = entry_to_toml(entry)
    assert entry_from_toml(data, "x") == entry
    assert entry_to_toml(entry_from_toml(data, "x")) == data
    # What we add, the original ignores: its types accept the file, and it sees the same session.
    accepted = seed_registry.checked_entry(tomli.loads(data.decode()))
    assert accepted["session_id"] == entry.session_id
    assert accepted["status"] == entry.status


@given(original_entries)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_entry_without_our_table_is_the_bytes_that_the_original_would_write(entry):
    text = entry_to_toml(entry).decode()
    assert text == seed_registry.entry_to_toml(seed_registry.entry_from_toml(text))


def test_unknown_keys_are_written_behind_the_known_ones_of_their_table():
    text = MINIMAL.decode().replace("status", "attach_precedence = []\nstatus").replace(
        'active"\n', 'active"\ncontext_queries = []\n'
    ) + (
        "later = 2027-01-01 00:00:00+01:00\n"
        "\n[usage_summary]\ninput_tokens = 1\nimages = 3\n"
        '\n[heddle_registry]\nschema = 1\nfence = 7\nmood = "calm"\n'
        '\n[heddle_registry.owner]\npid = 5\ncgroup = "/x"\n'
        "\n[heddle_registry.owner.limits]\ncpu = 0.5\n"
        '\n[review]\nby = "x"\n'
    )  # fmt: skip
    assert entry_to_toml(entry_from_toml(text.encode(), "x")).decode() == text


def test_a_known_key_among_the_unknown_ones_cannot_make_the_file_unreadable():
    entry = attrs.evolve(golden("minimal"), unknown={"pid": 3, "usage_summary": {}, "mine": 1})
    assert entry_from_toml(entry_to_toml(entry), "x").unknown == {"mine": 1}


def test_every_problem_is_listed_with_its_key():
    assert problems_of(
        b"""\
session_id = 3
pid = 4294967296
heartbeat_at = 2026-07-01T12:00:00Z
started_at = "yesterday"
attach_precedence = ["a", 1]
probe_confidence = nan
status = "zombie"
usage_summary = {input_tokens = 0x10000000000000000, tool_calls = -1, output_tokens = 1.0}
context_queries = [{path = "p", queried_at = "2026-02-30T00:00:00Z"}, {scope = true}, 4]
heddle_registry = {fence = "x", owner = {boot_id = "b"}}
"""
    ) == (
        "session_id: must be a string, not 3",
        "pid: must be an integer from 0 to 4294967295, not 4294967296",
        "heartbeat_at: must be an RFC 3339 time in a string, not a datetime",
        "started_at: must be an RFC 3339 time, not 'yesterday'",
        "attach_precedence: element 1 must be a string, not 1",
        "probe_confidence: must be a number, not nan",
        "status: must be one of active, abandoned, complete, merged, not 'zombie'",
        (
            "usage_summary.input_tokens: must be an integer"
            " from 0 to 18446744073709551615, not 18446744073709551616"
        ),
        "usage_summary.tool_calls: must be an integer from 0 to 4294967295, not -1",
        "usage_summary.output_tokens: must be an integer from 0 to 18446744073709551615, not 1.0",
        "context_queries[0].queried_at: must be an RFC 3339 time, not '2026-02-30T00:00:00Z'",
        "context_queries[1].scope: must be a string, not true",
        "context_queries[1].path: missing",
        "context_queries[1].queried_at: missing",
        "context_queries[2]: must be a table, not 4",
        "heddle_registry.fence: must be an integer from 0 to 9223372036854775807, not 'x'",
        "heddle_registry.owner.pid: missing",
        "thread: missing",
        "base_state: missing",
    )


def test_a_newer_table_is_read_and_known_as_newer():
    entry = entry_from_toml(MINIMAL + b"[heddle_registry]\nschema = 2\nnew = [1]\n", "x")
    assert is_from_newer_schema(entry)
    assert entry.extension.unknown == {"new": [1]}
    assert not is_from_newer_schema(golden("minimal"))


def test_a_newer_table_that_cannot_be_understood_hides_neither_the_session_nor_its_damage():
    newer = b"[heddle_registry]\nschema = 2\nowner = 'pid:5'\n"
    entry = entry_from_toml(MINIMAL + newer, "x")
    assert (entry.thread, entry.owner) == ("agent/golden-minimal", None)
    assert is_from_newer_schema(entry)
    assert problems_of(MINIMAL.replace(b"thread", b"branch") + newer) == (
        "heddle_registry.owner: must be a table, not 'pid:5'",
        "thread: missing",
    )
    assert problems_of(MINIMAL + newer.replace(b"2", b"1")) == (
        "heddle_registry.owner: must be a table, not 'pid:5'",
    )


def test_an_entry_over_the_limit_or_with_broken_text_is_refused_before_anything_is_written():
    entry = golden("minimal")
    with pytest.raises(UsageError, match="at most 1048576"):
        entry_to_toml(attrs.evolve(entry, attach_reason="x" * (1 << 20)))
    with pytest.raises(UsageError, match=r"not UTF-8: .*\\udc80"):
        entry_to_toml(attrs.evolve(entry, path="/tmp/\udc80"))


def test_writing_imports_no_parser_and_nothing_imports_cattrs():
    code = (
        "import sys, json, heddle_registry.codec\n"
        "loaded = {'cattrs', 'tomli', 'tomli_w', 'decimal'} & set(sys.modules)\n"
        "print(json.dumps(sorted(loaded)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(answer.stdout) == []
