from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import heddle_registry_claude_code

from heddle_registry.plugins import Plugins
from heddle_registry.probe import probe_recorded
from heddle_registry.testing.probe_kit import command, hook, probe_contract

if TYPE_CHECKING:
    from pathlib import Path

TestContract = probe_contract(heddle_registry_claude_code)
PLUGINS = Plugins([("claude-code", heddle_registry_claude_code)])
SESSION = "11111111-2222-4333-8444-555555555555"
KEY = f"claude-code:session:{SESSION}"


def call(tool: str, number: str, **arguments: str) -> dict[str, Any]:
    content = [{"type": "tool_use", "id": number, "name": tool, "input": arguments}]
    message = {"model": "m-1", "content": content, "stop_reason": "tool_use"}
    return {"type": "assistant", "message": message}


def result(number: str) -> dict[str, Any]:
    content = [{"type": "tool_result", "tool_use_id": number, "content": "ok"}]
    return {"type": "user", "message": {"content": content}}


class Home:
    """A Claude Code home with one session in /home/dev/project."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.project = folder / ".claude" / "projects" / "-home-dev-project"
        (self.project / SESSION / "subagents").mkdir(parents=True)

    def session(self, *lines: dict[str, Any], name: str = SESSION) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.project / f"{name}.jsonl").write_text(text)

    def agent(self, name: str, *lines: dict[str, Any], **meta: Any) -> None:
        folder = self.project / SESSION / "subagents"
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"agent-{name}.jsonl").write_text(text)
        if meta:
            (folder / f"agent-{name}.meta.json").write_text(json.dumps(meta))

    def of_command(self, text: str) -> Any:
        environment = {"HOME": "/home/dev", "CLAUDE_CODE_SESSION_ID": SESSION, "CLAUDE_PID": "98"}
        argv = [["make"], ["/bin/bash", "-c", f"eval '{text}' && pwd"], ["claude"]]
        where = {"home": str(self.path), "cwd": "/home/dev/project"}
        return probe_recorded(command(environment, argv=argv, **where), PLUGINS)

    def of_hook(self, event: str, **payload: Any) -> Any:
        path = f"/home/dev/.claude/projects/-home-dev-project/{SESSION}.jsonl"
        given = {"session_id": SESSION, "transcript_path": path, **payload}
        return probe_recorded(hook("claude-code", event, given, home=str(self.path)), PLUGINS)


def keys(found: Any) -> list[str | None]:
    return [link.native_actor_key for link in found.chain]


def test_an_agent_of_an_agent_has_that_agent_as_its_parent(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.session(call("Agent", "t1"))
    home.agent("aa", call("Agent", "t2"), toolUseId="t1", spawnDepth=1)
    home.agent("bb", toolUseId="t2", spawnDepth=2)
    wanted = [KEY, "claude-code:agent:aa", "claude-code:agent:bb"]
    assert keys(home.of_hook("SubagentStart", agent_id="bb")) == wanted
    # Who asked for it is not written yet: an orphan, not somebody's child.
    home.agent("cc", toolUseId="t9", spawnDepth=2)
    lost = home.of_hook("SubagentStart", agent_id="cc").actor
    assert (lost.native_actor_key, lost.native_parent_actor_key) == ("claude-code:agent:cc", None)


def test_a_running_command_is_its_agents_also_where_another_ran_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.session(call("Bash", "t0", command="make"), result("t0"), call("Agent", "t1"))
    home.agent("aa", call("Bash", "t2", command="make"), toolUseId="t1", spawnDepth=1)
    assert keys(home.of_command("make")) == [KEY, "claude-code:agent:aa"]


def test_while_an_agent_is_at_work_a_command_without_a_line_is_nobodys(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.session(call("Bash", "t0", command="make"), result("t0"), call("Agent", "t1"))
    home.agent("aa", toolUseId="t1", spawnDepth=1)
    found = home.of_command("make")
    assert keys(found) == [None]
    assert [x.native_actor_key for x in found.candidates] == [KEY, "claude-code:agent:aa"]


def test_before_any_agent_a_command_without_a_line_is_the_sessions(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert keys(home.of_command("make")) == [KEY]


def test_a_fork_says_what_it_continues_and_a_resumed_session_is_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.session({**call("Bash", "t0"), "sessionId": SESSION, "requestSessionId": "old-one"})
    found = home.of_hook("SessionStart", source="fork").actor
    assert (found.native_actor_key, found.continues) == (KEY, "claude-code:session:old-one")
    home.session({**call("Bash", "t0"), "sessionId": SESSION})
    resumed = home.of_hook("SessionStart", source="resume").actor
    assert (resumed.native_actor_key, resumed.continues) == (KEY, None)


def test_after_clear_the_process_is_the_same_instance_with_a_new_session(tmp_path: Path) -> None:
    home = Home(tmp_path)
    seen = []
    for session in (SESSION, "new-one"):
        situation = hook(
            "claude-code",
            "SessionStart",
            {"session_id": session, "source": "clear"},
            argv=[["sh"], ["claude"]],
            home=str(home.path),
        )
        seen.append(probe_recorded(situation, PLUGINS).actor)
    assert seen[0].native_instance_key == seen[1].native_instance_key is not None
    assert seen[0].native_actor_key != seen[1].native_actor_key
