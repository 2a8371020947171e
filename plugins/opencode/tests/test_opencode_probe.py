from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import heddle_registry_opencode

from heddle_registry.core.harness import Process
from heddle_registry.plugins import Plugins
from heddle_registry.probe import probe_process, probe_recorded
from heddle_registry.testing.probe_kit import command, hook, probe_contract

if TYPE_CHECKING:
    from pathlib import Path

TestContract = probe_contract(heddle_registry_opencode)
PLUGINS = Plugins([("opencode", heddle_registry_opencode)])
NOW_S = 1_800_000_000


def store(home: Path, *sessions: tuple[str, str | None], **running: str) -> None:
    """Make a store of the sessions, each with its parent; ``running`` are their commands."""
    folder = home / ".local" / "share" / "opencode"
    folder.mkdir(parents=True)
    db = sqlite3.connect(folder / "opencode.db")
    db.execute("CREATE TABLE session (id, parent_id, directory, time_updated)")
    db.execute("CREATE TABLE message (session_id, time_created, data)")
    db.execute("CREATE TABLE part (session_id, time_created, data)")
    for session, parent in sessions:
        row = (session, parent, "/home/dev/project", NOW_S * 1000)
        db.execute("INSERT INTO session VALUES (?, ?, ?, ?)", row)
    for session, text in running.items():
        state = {"status": "running", "input": {"command": text}}
        data = json.dumps({"type": "tool", "tool": "bash", "state": state})
        db.execute("INSERT INTO part VALUES (?, 1, ?)", (session, data))
    db.commit()
    db.close()


def live(home: Path, started_at: float, *command_line: str) -> Any:
    """Probe as in a live command, where the processes' ages are known."""
    return probe_process(
        environ={"OPENCODE": "1", "OPENCODE_PID": "8", "HOME": str(home)},
        ancestors=[
            Process(pid=9, argv=command_line, started_at=started_at + 5),
            Process(pid=8, argv=("opencode",), started_at=started_at),
        ],
        plugins=PLUGINS,
        cwd="/home/dev/project/sub",
    )


def keys(found: Any) -> list[str | None]:
    return [link.native_actor_key for link in found.chain]


def test_the_running_command_tells_which_session_of_three_deep_it_is(tmp_path: Path) -> None:
    store(tmp_path, ("a", None), ("b", "a"), ("c", "b"), c="make x", a="make y")
    wanted = [f"opencode:session:{name}" for name in "abc"]
    assert keys(live(tmp_path, NOW_S - 60, "make", "x")) == wanted


def test_the_only_command_that_runs_is_probably_ours_whatever_it_became(tmp_path: Path) -> None:
    store(tmp_path, ("a", None), ("b", "a"), b="./wrapper")
    found = live(tmp_path, NOW_S - 60, "python3", "unwrapped.py")
    assert keys(found) == ["opencode:session:a", "opencode:session:b"]
    assert found.actor.confidence <= 0.75


def test_one_session_since_the_program_started_is_probable_two_are_candidates(
    tmp_path: Path,
) -> None:
    store(tmp_path, ("a", None))
    found = live(tmp_path, NOW_S - 60, "make")
    assert keys(found) == ["opencode:session:a"]
    assert found.actor.confidence <= 0.75
    assert keys(live(tmp_path, NOW_S + 60, "make")) == [None]  # another run's, long ago
    other = tmp_path / "other"
    store(other, ("a", None), ("b", "a"))
    both = live(other, NOW_S - 60, "make")
    assert keys(both) == [None]
    assert len(both.candidates) == 2


def test_a_session_that_shell_env_exported_is_taken_at_its_word(tmp_path: Path) -> None:
    environment = {"OPENCODE": "1", "OPENCODE_PID": "99", "OPENCODE_SESSION_ID": "ses_1"}
    found = probe_recorded(command(environment, argv=[["make"], ["opencode"]]), PLUGINS)
    assert keys(found) == ["opencode:session:ses_1"]


def test_a_created_child_session_names_its_parent_before_the_store_does() -> None:
    info = {"id": "ses_2", "slug": "x", "parentID": "ses_1"}
    payload = {"type": "session.created", "properties": {"sessionID": "ses_2", "info": info}}
    found = probe_recorded(hook("opencode", "session.created", payload), PLUGINS)
    assert keys(found) == ["opencode:session:ses_1", "opencode:session:ses_2"]


def test_a_message_is_not_taken_for_a_parent() -> None:
    info = {"id": "msg_2", "role": "assistant", "parentID": "msg_1"}
    payload = {"properties": {"sessionID": "ses_2", "info": info}}
    found = probe_recorded(hook("opencode", "message.updated", payload), PLUGINS)
    assert keys(found) == ["opencode:session:ses_2"]


def test_a_store_of_another_make_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / ".local" / "share" / "opencode"
    folder.mkdir(parents=True)
    (folder / "opencode.db").write_bytes(b"not a database at all, but long enough" * 9)
    assert keys(live(tmp_path, NOW_S, "make")) == [None]
    assert PLUGINS.faults == []
