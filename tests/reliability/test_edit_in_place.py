"""Another program writes into an entry's file in place, which no folder's time tells."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import attrs
import pytest

from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, Query
from heddle_registry.__main__ import main
from heddle_registry.adapters import directory
from heddle_registry.codec import entry_to_toml
from heddle_registry.diagnosis import mend

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.ports.findings import Check

BEFORE = {"thread": "f/old", "native_actor_key": "x:old", "path": "/tmp/old"}
AFTER = {"thread": "f/new", "native_actor_key": "x:new", "path": "/tmp/new"}


@pytest.fixture
def registry(tmp_path: Path) -> AgentRegistry:
    registry = AgentRegistry(tmp_path / ".heddle")
    for name in ("agent-a", "agent-b"):
        fields = BEFORE if name == "agent-a" else {"thread": "f/other"}
        registry.save(
            AgentEntry(
                session_id=name,
                base_state="b",
                started_at=registry.host.now().at,
                status=AgentStatus.ACTIVE,
                **fields,
            )
        )
    registry.list()
    with registry.reserve("main"):
        pass
    assert registry.store.index.is_at(registry.store.index.folder_stamps())
    return registry


def write_in_place(registry: AgentRegistry, data: bytes) -> None:
    path = os.path.join(registry.store.heddle_dir, "agents", "agent-a.toml")
    folder = os.stat(os.path.dirname(path)).st_mtime_ns
    with open(path, "r+b") as file:
        file.truncate()
        file.write(data)
    assert os.stat(os.path.dirname(path)).st_mtime_ns == folder, "nobody can see it by that"


def edit(registry: AgentRegistry, **fields: object) -> None:
    entry = registry.load("agent-a")
    assert entry is not None
    write_in_place(registry, entry_to_toml(attrs.evolve(entry, **fields)))


def listed(
    registry: AgentRegistry, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[list[str], list[str]]:
    main(["list", "--json", "--heddle-dir", registry.store.heddle_dir, *words])
    answer = json.loads(capsys.readouterr().out)
    return [e["session_id"] for e in answer["entries"]], [p["path"] for p in answer["problems"]]


def finding(registry: AgentRegistry) -> Check:
    checks = registry.store.examine(registry.host)
    [found] = [check for check in checks if check.name == "index"]
    return found


@pytest.mark.parametrize(
    "words",
    [("--thread", "f/new"), ("--key", "x:new"), ("--path", "/tmp/new")],
    ids=["thread", "key", "path"],
)
@pytest.mark.parametrize("is_new_process", [True, False])
def test_list_finds_an_entry_by_what_its_file_says_now(
    registry: AgentRegistry,
    words: tuple[str, str],
    is_new_process: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edit(registry, **AFTER)
    if is_new_process:
        monkeypatch.setattr(directory, "_shared", {})
    assert listed(registry, capsys, *words) == (["agent-a"], [])
    old = (words[0], words[1].replace("new", "old"))
    assert listed(registry, capsys, *old) == ([], [])


def test_list_sees_what_became_active_or_ended(
    registry: AgentRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.update_status("agent-a", "complete")
    ended = registry.load("agent-a")
    assert ended is not None
    assert listed(registry, capsys)[0] == ["agent-b"]
    edit(registry, status=AgentStatus.ACTIVE, completed_at=None)
    assert sorted(listed(registry, capsys)[0]) == ["agent-a", "agent-b"]
    edit(registry, status=AgentStatus.COMPLETE, completed_at=ended.completed_at)
    assert listed(registry, capsys)[0] == ["agent-b"]


def test_a_damaged_file_that_is_mended_in_place_is_an_entry_again_in_every_answer(
    registry: AgentRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    path = os.path.join(registry.store.heddle_dir, "agents", "agent-a.toml")
    with open(path, "rb") as file:
        sound = file.read()
    write_in_place(registry, b"= not toml")
    assert listed(registry, capsys) == (["agent-b"], [path])
    assert [problem.path for problem in registry.look().problems] == [path]
    write_in_place(registry, sound)
    assert {entry.session_id for entry in registry.list()} >= {"agent-a", "agent-b"}
    assert registry.look().problems == ()
    found = registry.look(Query(thread="f/old")).entries
    assert [entry.session_id for entry in found] == ["agent-a"]
    assert listed(registry, capsys, "--thread", "f/old") == (["agent-a"], [])


def test_doctor_names_the_file_and_has_the_index_read_it(registry: AgentRegistry) -> None:
    assert finding(registry).status == "ok"
    edit(registry, **AFTER)
    found = finding(registry)
    assert (found.status, "agents/agent-a.toml" in found.detail) == ("warn", True)
    # A look-up by key may go by what the file said before: the page on the files says so.
    assert registry.find_active_by_native_actor_key("x:old") is None
    assert mend(found).result == "it is up to date"
    assert mend(found).result == "nothing is wrong with it any more"
    assert finding(registry).detail == "up to date"
    again = registry.find_active_by_native_actor_key("x:new")
    assert again is not None
    assert again.thread == "f/new"


def test_renewals_are_no_edits(registry: AgentRegistry) -> None:
    with registry.reserve("f/mine", ttl_s=60) as claim:
        for _ in range(3):
            claim.renew()
        assert finding(registry).detail == "up to date"
        registry.update_entry(claim.session_id, lambda e: attrs.evolve(e, model="new"))
        assert finding(registry).detail == "up to date"


def test_without_write_permission_list_reads_every_file_instead(
    registry: AgentRegistry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(registry, **AFTER)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    assert listed(registry, capsys, "--thread", "f/new") == (["agent-a"], [])
    assert "agent-a" in finding(registry).detail, "nobody could bring the index up to date"
