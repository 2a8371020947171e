from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import heddle_registry_gemini_cli

from heddle_registry.core.harness import Process
from heddle_registry.plugins import Plugins
from heddle_registry.probe import probe_process, probe_recorded
from heddle_registry.testing.probe_kit import command, hook, probe_contract

if TYPE_CHECKING:
    from pathlib import Path

TestContract = probe_contract(heddle_registry_gemini_cli)
PLUGINS = Plugins([("gemini-cli", heddle_registry_gemini_cli)])


def chat(home: Path, name: str, identity: str, *commands: str) -> None:
    base = home / ".gemini"
    path = base / "tmp" / "project" / "chats" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (base / "projects.json").write_text(json.dumps({"projects": {"/home/dev/project": "project"}}))
    calls = [
        {"name": "run_shell_command", "args": {"command": text}, "result": [1]} for text in commands
    ]
    lines = [{"sessionId": identity}, {"type": "gemini", "model": "g-1", "toolCalls": calls}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def of_command(home: Path, *argv: str) -> Any:
    situation = command(
        {"GEMINI_CLI": "1", "HOME": "/home/dev"},
        argv=[list(argv), ["node", "/x/gemini"]],
        home=str(home),
        cwd="/home/dev/project/sub",
    )
    return probe_recorded(situation, PLUGINS)


def live(home: Path, started_at: float = 1.0) -> Any:
    """Probe as in a live command, where the processes' ages are known."""
    return probe_process(
        environ={"GEMINI_CLI": "1", "HOME": str(home)},
        ancestors=[
            Process(pid=9, argv=("make",), started_at=started_at),
            Process(pid=8, argv=("node", "/x/gemini"), started_at=started_at),
        ],
        plugins=PLUGINS,
        cwd="/home/dev/project",
    )


def keys(found: Any) -> list[str | None]:
    return [link.native_actor_key for link in found.chain]


def test_an_agent_of_an_agent_has_that_agent_as_its_parent(tmp_path: Path) -> None:
    chat(tmp_path, "session-1-rrrrrrrr.jsonl", "rrrrrrrr-1", "make all")
    chat(tmp_path, "rrrrrrrr-1/aa.jsonl", "aa", "make other")
    chat(tmp_path, "aa/bb.jsonl", "bb", "make test")
    assert keys(of_command(tmp_path, "make", "test")) == [
        "gemini-cli:session:rrrrrrrr-1", "gemini-cli:agent:aa", "gemini-cli:agent:bb",
    ]  # fmt: skip


def test_a_command_that_two_sessions_ran_is_nobodys(tmp_path: Path) -> None:
    chat(tmp_path, "session-1-rrrrrrrr.jsonl", "rrrrrrrr-1", "make")
    chat(tmp_path, "session-2-ssssssss.jsonl", "ssssssss-1", "make")
    assert keys(of_command(tmp_path, "make")) == [None]


def test_in_a_live_command_finished_ones_prove_nothing_but_a_lone_session_is_probable(
    tmp_path: Path,
) -> None:
    chat(tmp_path, "session-1-rrrrrrrr.jsonl", "rrrrrrrr-1", "make")
    for started_at, wanted in ((1.0, "gemini-cli:session:rrrrrrrr-1"), (9e9, None)):
        found = live(tmp_path, started_at)
        assert keys(found) == [wanted]
        assert found.actor.confidence <= 0.75


def test_an_agent_at_work_makes_a_live_command_nobodys_and_a_finished_one_does_not(
    tmp_path: Path,
) -> None:
    chat(tmp_path, "session-1-rrrrrrrr.jsonl", "rrrrrrrr-1")
    chat(tmp_path, "rrrrrrrr-1/aa.jsonl", "aa")
    assert keys(live(tmp_path)) == [None]
    with (tmp_path / ".gemini/tmp/project/chats/rrrrrrrr-1/aa.jsonl").open("a") as file:
        file.write('{"$set": {"summary": "done"}}\n')
    assert keys(live(tmp_path)) == ["gemini-cli:session:rrrrrrrr-1"]


def test_a_hook_that_outlived_the_program_still_names_its_session() -> None:
    environment = {"GEMINI_SESSION_ID": "s-1", "GEMINI_PROJECT_DIR": "/home/dev/project"}
    payload = {"session_id": "s-1", "reason": "exit"}
    argv = [["relay"], ["/sbin/init"]]
    situation = hook("gemini-cli", "SessionEnd", payload, environment=environment, argv=argv)
    found = probe_recorded(situation, PLUGINS)
    assert keys(found) == ["gemini-cli:session:s-1"]
    assert found.meaning == "closed"
