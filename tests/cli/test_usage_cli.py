"""The verb ``usage``: right totals for real and recorded sessions, by the command line itself."""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry import (
    AgentRegistry,
    AgentStatus,
    AgentUsageSummary,
    EntryExtension,
    Timestamp,
)
from heddle_registry.cli.usage import GROUPINGS
from tests.cli.test_list import put
from tests.installed_plugins import install_plugins
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Heddle

SHARED = ROOT.parent / "shared" / "transcripts"
RECORDED = ROOT / "tests" / "data" / "harness"
NOW = Timestamp("2099-01-01T00:00:00Z")
BUCKETS = {
    "input_uncached": "input_tokens",
    "cache_write": "cache_creation_tokens",
    "cache_read": "cache_read_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
    "tool_calls": "tool_calls",
    "requests": "requests",
}


def expected(file: Path) -> dict[str, Any]:
    if not file.exists():
        # A skip on a laptop; in CI the files must be there.
        return {"missing": None} if os.environ.get("CI") == "true" else {}
    return dict(json.loads(file.read_text()))


SESSIONS = expected(SHARED / "expected.json")
RUNS = {
    folder.name: expected(folder / "expected.json")
    for folder in sorted(RECORDED.iterdir())
    if folder.is_dir()
}
ACTORS = [(run, actor) for run, found in RUNS.items() for actor in found.get("actors", ())]


@pytest.fixture
def usage(heddle: Heddle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Heddle:
    install_plugins(tmp_path / "site", monkeypatch)
    return heddle


def told(row: dict[str, Any], wanted: dict[str, int | None]) -> dict[str, int | None]:
    return {name: row[BUCKETS[name]] for name in wanted}


@pytest.mark.parametrize("name", SESSIONS)
def test_one_command_gives_a_real_session_its_totals(usage: Heddle, name: str) -> None:
    files = [SHARED / file for file in SESSIONS[name]["files"]]
    # The first file stands for its family; a word like `claude` for the harness of that name.
    answer = usage.json("usage", "--source", name.partition("/")[0], files[0])
    known = {key: n for key, n in SESSIONS[name]["usage"].items() if n is not None}
    assert answer["faults"] == []
    assert told(answer["totals"], known) == known
    if "cost_usd" in SESSIONS[name]:
        assert answer["totals"]["cost_source"] == "transcript"
        assert answer["totals"]["cost_micros_usd"] == pytest.approx(
            SESSIONS[name]["cost_usd"] * 1e6, abs=answer["totals"]["requests"]
        )
    if any("lower bound" in note for note in SESSIONS[name]["notes"]):
        assert answer["totals"]["lower_bound"]


@pytest.mark.parametrize(("run", "actor"), ACTORS, ids=lambda value: str(value)[-24:])
def test_one_command_gives_a_recorded_actor_a_row_of_its_own(
    usage: Heddle, run: str, actor: dict[str, Any]
) -> None:
    transcript = RECORDED / run / actor["home"] / actor["transcript"]
    answer = usage.json("usage", "--source", RUNS[run]["harness"], transcript)
    rows = {row["native_actor_key"]: row for row in answer["rows"]}
    row = rows[actor["key"]] if actor["key"] else answer["rows"][0]
    assert told(row, actor["recorded"]) == actor["recorded"]
    assert row["parent"] == row["native_parent_actor_key"] == actor["parent_key"]
    assert row["harness"] == RUNS[run]["harness"]
    assert row["transcript"] == str(transcript)
    assert set(row["models"]) <= set(actor["models"])
    assert answer["faults"] == []


# -- the registry's own


@pytest.fixture
def family(usage: Heddle) -> dict[str, Any]:
    """Return a parent's entry, whose sub-agent has none, and one without a transcript."""
    actors = {a["key"]: a for a in RUNS["claude"]["actors"]}
    child = next(a for a in actors.values() if a["parent_key"] is not None)
    parent = actors[child["parent_key"]]
    path = str(RECORDED / "claude" / parent["home"] / parent["transcript"])
    entry = put(
        usage,
        thread="feature/login",
        harness="claude-code",
        native_actor_key=parent["key"],
        extension=EntryExtension(usage_sources=(path,)),
    )
    lone = put(usage, thread="other", native_actor_key="acme:session:1", harness="acme")
    return {"parent": parent, "child": child, "entry": entry, "lone": lone}


def by_key(rows: list[dict[str, Any]], name: str = "native_actor_key") -> dict[Any, Any]:
    return {row[name]: row for row in rows}


def test_each_entry_has_its_own_numbers_and_nobody_elses(
    usage: Heddle, family: dict[str, Any]
) -> None:
    answer = usage.json("usage")
    rows = by_key(answer["rows"])
    parent, child = rows[family["parent"]["key"]], rows[family["child"]["key"]]
    assert told(parent, family["parent"]["recorded"]) == family["parent"]["recorded"]
    assert told(child, family["child"]["recorded"]) == family["child"]["recorded"]
    assert parent["session_id"] == family["entry"].session_id
    assert child["session_id"] is None
    assert child["thread"] == "feature/login"
    # Unknown is null, and a total with an unknown agent in it says that it is too low.
    lone = rows["acme:session:1"]
    assert {lone[bucket] for bucket in BUCKETS.values()} == {None}
    assert (lone["cost_micros_usd"], lone["cost_source"]) == (None, "unknown")
    assert answer["totals"]["output_tokens"] == parent["output_tokens"] + child["output_tokens"]
    assert answer["totals"]["unknown_actors"] == 1
    assert answer["totals"]["lower_bound"]


def test_every_grouping_adds_up_to_the_same_whole(usage: Heddle, family: dict[str, Any]) -> None:
    del family
    answers = {by: usage.json("usage", "--by", by) for by in GROUPINGS}
    for by, answer in answers.items():
        assert answer["totals"] == answers["entry"]["totals"], by
        known = [row["output_tokens"] or 0 for row in answer["rows"]]
        assert sum(known) == answer["totals"]["output_tokens"], by
    assert [row["thread"] for row in answers["thread"]["rows"]] == ["feature/login", "other"]
    assert [row["harness"] for row in answers["harness"]["rows"]] == ["claude-code", "acme"]
    assert answers["model"]["rows"][0]["model"].startswith("claude")


def test_the_tree_has_own_and_subtree_and_marks_orphans(
    usage: Heddle, family: dict[str, Any]
) -> None:
    orphan = put(usage, native_parent_actor_key="gone:session:9", thread="lone")
    answer = usage.json("usage", "--by", "tree")
    rows = by_key(answer["rows"])
    parent, child = rows[family["parent"]["key"]], rows[family["child"]["key"]]
    assert (parent["depth"], child["depth"]) == (0, 1)
    assert child["parent"] == family["parent"]["key"]
    below = parent["subtree"]["output_tokens"]
    assert below == parent["output_tokens"] + child["output_tokens"]
    assert by_key(answer["rows"], "session_id")[orphan.session_id]["is_orphan"]
    lines = usage("usage", "--by", "tree").out.splitlines()
    assert lines[1].startswith("human")
    above = next(at for at, line in enumerate(lines) if family["entry"].session_id in line)
    assert "with those below" in lines[above + 1]
    assert f"    - feature/login {child['model']} agent:" in lines[above + 2]
    assert "its parent is gone" in "".join(lines)


def test_running_entries_keep_what_they_spent_and_ended_ones_what_they_had(
    usage: Heddle, family: dict[str, Any]
) -> None:
    registry, recorded = AgentRegistry(usage.folder), family["parent"]["recorded"]
    usage("usage", "--since", "7d")
    assert registry.load(family["entry"].session_id).usage_summary == AgentUsageSummary()
    usage("usage")
    filled = registry.load(family["entry"].session_id)
    assert filled.usage_summary.input_tokens == recorded["input_uncached"]
    assert filled.usage_summary.output_tokens == recorded["output"]
    assert filled.usage_summary.tool_calls == recorded["tool_calls"]
    assert filled.extension.cache_read_tokens == recorded["cache_read"]
    assert registry.load(family["lone"].session_id).usage_summary == AgentUsageSummary()
    file = usage.agents / f"{filled.session_id}.toml"
    before = file.stat()
    usage("usage")  # nothing changed, nothing is written
    assert file.stat() == before
    put(usage, thread="done", status=AgentStatus.COMPLETE, completed_at=NOW, harness="aider")
    usage("usage")


def test_an_entry_whose_transcript_is_gone_keeps_the_numbers_that_it_has(usage: Heddle) -> None:
    put(
        usage,
        thread="main",
        native_actor_key="codex:thread:1",
        model="gpt-5",
        usage_summary=AgentUsageSummary(input_tokens=7, output_tokens=5),
        extension=EntryExtension(usage_sources=("/nowhere/rollout-1.jsonl",)),
    )
    answer = usage.json("usage")
    (row,) = answer["rows"]
    assert (row["input_tokens"], row["output_tokens"], row["counted_from"]) == (7, 5, "entry")
    # What the entry does not say is unknown, and the rest so far a lower bound.
    assert (row["cache_read_tokens"], row["tool_calls"], row["cost_micros_usd"]) == (None,) * 3
    assert row["lower_bound"]
    assert [fault["code"] for fault in answer["faults"]] == ["missing"]
    assert usage.json("usage", "--since", "1h")["rows"][0]["input_tokens"] is None


def test_since_leaves_out_what_came_before(usage: Heddle, family: dict[str, Any]) -> None:
    del family
    assert usage.json("usage", "--since", "2000-01-01")["totals"]["output_tokens"] > 0
    assert usage.json("usage", "--since", "2999-01-01T00:00:00Z")["totals"]["output_tokens"] == 0
    for word in ("yesterday", "-1h", "nand", "1e999d", "", "99999-01-01", "h"):
        assert "no time" in usage("usage", f"--since={word}", status=2).err, word


# -- anywhere


def test_a_source_needs_no_registry_and_leaves_nothing_where_one_could_be(
    usage: Heddle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEDDLE_DIR")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    home = RECORDED / "codex" / "home"
    answer = usage.json("usage", "--source", "codex", home, "--source", "claude", home.parents[1])
    keys = {row["native_actor_key"] for row in answer["rows"] if row["harness"] == "codex"}
    assert keys == {actor["key"] for actor in RUNS["codex"]["actors"]}
    assert list(elsewhere.iterdir()) == []
    assert usage.json("usage", status=2)["error"]["code"] == "usage"


def test_a_source_that_cannot_be_read_costs_itself_alone(usage: Heddle, tmp_path: Path) -> None:
    good = next((RECORDED / "codex" / "home").rglob("rollout-*.jsonl"))
    alone = usage.json("usage", "--source", "codex", good)
    binary = tmp_path / "rollout-bad.jsonl"
    binary.write_bytes(b'{"type":"session_meta"}\n' + b"\0" * 99)
    fifo = tmp_path / "rollout-fifo.jsonl"
    os.mkfifo(fifo)
    missing = tmp_path / "\x1b[2Jmissing.jsonl"
    paths = (good, binary, fifo, missing)
    answer = usage.json("usage", "--source", "codex", *paths)
    assert answer["totals"] == alone["totals"]
    assert {f["code"] for f in answer["faults"]} == {"binary", "not_a_file", "missing"}
    said = usage("usage", "--source", "codex", *paths).out
    assert "not read" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--source", "codex"], "names no path"),
        (["--source", "codex", "/nowhere"], "there is no /nowhere"),
        (["--source", "acme", "/"], "no plugin reads"),
        (["--source", "codecs", "/"], "Did you mean codex"),
        (["--by", "day"], "invalid choice"),
    ],
)
def test_a_mistake_is_a_usage_error(usage: Heddle, words: list[str], said: str) -> None:
    assert said in usage("usage", *words, status=2).err


def test_large_sources_are_read_once_and_only_then_kept(
    usage: Heddle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "home" / ".cache" / "heddle-registry" / "usage"
    home = RECORDED / "codex" / "home"
    first = usage.json("usage", "--source", "codex", home)
    assert not cache.exists()
    monkeypatch.setattr("heddle_registry.spending.CACHED_BYTES", 0)
    stale = cache / "stale"
    stale.mkdir(parents=True)
    os.utime(stale, (1, 1))
    assert usage.json("usage", "--source", "codex", home) == first
    (kept,) = cache.iterdir()
    assert (kept / "usage.sqlite").stat().st_mode & 0o077 == 0
    assert usage.json("usage", "--source", "codex", home) == first


def test_people_see_bars_and_costs_that_say_how_sure_they_are(
    usage: Heddle, family: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    del family
    said = usage("usage").out
    assert "█" in said
    assert "≥ $" in said or "≈ $" in said
    assert "unknown" in said
    assert "of 1 nothing is known" in said
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    assert "\x1b[" in usage("usage", "--by", "model").out
    assert usage("usage", "--source", "codex", usage.folder.parent).status == 0


def test_looking_makes_no_registry_and_a_read_only_one_is_no_obstacle(
    usage: Heddle, family: dict[str, Any]
) -> None:
    elsewhere = usage.folder.parent / "empty"
    assert usage.json("usage", "--heddle-dir", elsewhere)["rows"] == []
    assert not elsewhere.exists()
    usage.folder.chmod(0o500)
    usage.agents.chmod(0o500)
    try:
        rows = by_key(usage.json("usage")["rows"])
    finally:
        usage.folder.chmod(0o700)
        usage.agents.chmod(0o700)
    parent = rows[family["parent"]["key"]]
    assert parent["output_tokens"] == family["parent"]["recorded"]["output"]


def test_a_lock_that_another_keeps_delays_no_answer(usage: Heddle, family: dict[str, Any]) -> None:
    del family
    with (usage.agents / ".lock").open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert len(usage.json("usage", "--lock-timeout", "0.1")["rows"]) == 3
