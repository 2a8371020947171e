from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, Timestamp
from tests.process_helpers import ROOT, until

if TYPE_CHECKING:
    from tests.cli.conftest import Heddle

GOLDEN = ROOT / "tests" / "data" / "golden"
HOSTILE = "\x1b[2J\u202e[red]x[/red]\r\n"


def put(heddle: Heddle, **fields: Any) -> AgentEntry:
    registry = AgentRegistry(heddle.folder)

    def build(session_id: str) -> AgentEntry:
        base = AgentEntry(
            session_id=session_id,
            thread="main",
            base_state="0",
            started_at=Timestamp("2026-07-01T12:00:00Z"),
            status=AgentStatus.ACTIVE,
        )
        return attrs.evolve(base, **fields)

    return registry.create_generated_entry(build)


def names(answer: Any) -> list[str]:
    return [entry["session_id"] for entry in answer["entries"]]


def test_all_golden_entries_are_listed_and_junk_beside_them_is_only_reported(
    heddle: Heddle,
) -> None:
    shutil.copytree(GOLDEN, heddle.agents, ignore=shutil.ignore_patterns("*.md"))
    clean = heddle.json("list", "--all")
    assert len(clean["entries"]) == 25
    assert clean["problems"] == []
    for entry in clean["entries"]:
        assert len(entry) == 34 + len(("extension", "liveness", "claim"))
        assert entry["reservation_token"] is None

    (heddle.agents / "bad.toml").touch()
    (heddle.agents / "x.toml").mkdir()
    os.mkfifo(heddle.agents / "y.toml")
    (heddle.agents / "z.toml").symlink_to("nowhere")
    (heddle.agents / os.fsdecode(b"\xff.toml")).touch()
    junk = heddle.json("list", "--all")
    assert names(junk) == names(clean)
    assert [os.path.basename(problem["path"]) for problem in junk["problems"]] == [
        "bad.toml",
        "x.toml",
        "y.toml",
        "z.toml",
        "\\xff.toml",
    ]
    assert "bad.toml is damaged" in heddle("list").out
    assert heddle.json("reserve", "some/branch", "--ttl", "60")["outcome"] == "reserved"


def test_looking_makes_nothing(heddle: Heddle) -> None:
    for words in (["list"], ["list", "--tree", "--all"], ["why", "main"], ["doctor"]):
        heddle(*words)
    heddle("check", "main", "--fence", "1", status=11)
    heddle("gc")
    assert list(heddle.folder.parent.iterdir()) == []


def test_filters_narrow_and_ended_sessions_are_shown_when_asked_for(heddle: Heddle) -> None:
    here = put(heddle, native_actor_key="claude:session:1", harness="claude-code")
    there = put(heddle, thread="other", client_instance_id="c-1", path=str(heddle.folder.parent))
    ended = put(
        heddle,
        heddle_session_id="h-1",
        status=AgentStatus.MERGED,
        completed_at=Timestamp("2099-01-01T00:00:00Z"),
    )
    old = put(heddle, status=AgentStatus.COMPLETE, completed_at=Timestamp("2020-01-01T00:00:00Z"))
    active, every = {here.session_id, there.session_id}, {ended.session_id, old.session_id}
    for words, wanted in (
        ([], active),
        (["--all"], active | every),
        (["--status", "active"], active),
        (["--status", "merged"], {ended.session_id}),
        (["--status", "complete", "--all"], {old.session_id}),
        (["--thread", "other"], {there.session_id}),
        (["--harness", "claude-code"], {here.session_id}),
        (["--key", "claude:session:1"], {here.session_id}),
        (["--key", "c-1"], {there.session_id}),
        (["--key", "h-1", "--all"], {ended.session_id}),
        (["--path", "."], {there.session_id}),
        (["--alive-only"], set()),
        (["--key", "nobody"], set()),
    ):
        assert set(names(heddle.json("list", *words))) == wanted, words


def test_liveness_comes_with_evidence_and_a_claim_with_its_holder_alone(heddle: Heddle) -> None:
    reserved = heddle.json("reserve", "main", "--owner-pid", os.getpid(), "--task", "the work")
    put(heddle)
    holder, present = sorted(
        heddle.json("list")["entries"], key=lambda entry: entry["claim"] is None
    )
    assert holder["liveness"]["verdict"] == "alive"
    assert holder["liveness"]["evidence"][0]["code"] == "process"
    assert holder["claim"]["state"] == "held"
    assert holder["claim"]["holder"] == reserved["entry"]["session_id"]
    assert present["claim"] is None
    table = heddle("list").out
    assert "alive, held" in table
    assert "unknown, present" in table
    assert "the work" in table
    assert len(heddle.json("list", "--alive-only")["entries"]) == 1


def test_the_tree_shows_children_under_parents_and_marks_orphans(heddle: Heddle) -> None:
    child = put(heddle, native_actor_key="k2", native_parent_actor_key="k1", thread="kid")
    root = put(heddle, native_actor_key="k1")
    orphan = put(heddle, native_parent_actor_key="gone", thread="lone")
    rows = {row["session_id"]: row for row in heddle.json("list", "--tree")["entries"]}
    assert rows[root.session_id]["depth"] == 0
    assert rows[child.session_id]["depth"] == 1
    assert rows[child.session_id]["parent"] == root.session_id
    assert rows[orphan.session_id]["is_orphan"]
    lines = heddle("list", "--tree").out.splitlines()
    assert lines[0] == "human"
    above = next(at for at, line in enumerate(lines) if root.session_id in line)
    assert lines[above + 1].startswith("  - kid")
    assert "its parent is gone" in next(line for line in lines if orphan.session_id in line)


@pytest.mark.parametrize("colour", ["", "1"])
def test_no_string_of_an_entry_reaches_the_terminal_as_more_than_letters(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch, colour: str
) -> None:
    put(heddle, attach_reason=HOSTILE, harness=HOSTILE, model=HOSTILE)
    (heddle.agents / "\x1b[2Jevil.toml").write_text("")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("FORCE_COLOR", colour)
    for words in (["list"], ["list", "--tree"], ["doctor"]):
        out = heddle(*words, status=None).out
        assert "\x1b[2J" not in out
        assert "\u202e" not in out
        assert "\r" not in out
    assert "[red]x" in heddle("list").out


def test_a_secret_of_the_rust_tool_and_hashes_of_ours_are_never_printed(heddle: Heddle) -> None:
    reserved = heddle.json("reserve", "main", "--ttl", "60")
    session_id = reserved["entry"]["session_id"]
    rust = put(heddle, thread="rust")
    path = heddle.agents / f"{rust.session_id}.toml"
    path.write_text('reservation_token = "TOPSECRET"\n' + path.read_text())
    stored = (heddle.agents / f"{session_id}.toml").read_text()
    digest = stored.split('digest = "')[1].split('"')[0]
    for words in (["list"], ["why", "main"], ["why", session_id], ["why", rust.session_id]):
        for answer in (heddle(*words), heddle(*words, "--json")):
            for secret in ("TOPSECRET", digest, reserved["token"], "digest", "salt"):
                assert secret not in answer.out + answer.err


def test_a_harness_that_runs_here_and_told_nobody_is_marked_unregistered(heddle: Heddle) -> None:
    with subprocess.Popen(["bash", "-c", "exec -a codex sleep 60"]) as child:
        try:
            found = until(lambda: heddle.json("list")["unregistered"], "the program's new name")
            told = heddle("list").out
            assert heddle.json("list", "--harness", "aider")["unregistered"] == []
            assert heddle.json("list", "--thread", "main")["unregistered"] == []
        finally:
            child.kill()
    (one,) = found
    assert set(one) == {
        "harness", "pid", "cwd", "native_actor_key", "since", "evidence", "confidence",
    }  # fmt: skip
    assert (one["harness"], one["pid"]) == ("codex", child.pid)
    assert one["cwd"] == str(heddle.folder.parent)
    assert one["evidence"] == ["program:codex"]
    assert f"codex  process {child.pid}" in told
    assert not heddle.folder.exists()


@pytest.mark.parametrize("how", [(), ("--thread", "main")])
def test_a_claim_damaged_in_place_is_a_problem_also_where_the_index_knew_it_whole(
    heddle: Heddle, how: tuple[str, ...]
) -> None:
    heddle("reserve", "main", "--ttl", "600")
    assert heddle.json("list", *how)["problems"] == []
    (path,) = (heddle.folder / "claims").glob("*.toml")
    # In place: the folder's time stays, and with it the index.
    with open(path, "a") as file:
        file.write("x = [")
    (problem,) = heddle.json("list", *how)["problems"]
    assert problem["code"] == "damaged"
    assert path.name in problem["path"]
