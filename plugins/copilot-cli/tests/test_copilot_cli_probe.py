from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import heddle_registry_copilot_cli

from heddle_registry.plugins import Plugins
from heddle_registry.probe import probe_recorded
from heddle_registry.testing.probe_kit import command, hook, probe_contract

if TYPE_CHECKING:
    from pathlib import Path

TestContract = probe_contract(heddle_registry_copilot_cli)
PLUGINS = Plugins([("copilot-cli", heddle_registry_copilot_cli)])


def events(home: Path, session: str, *lines: dict[str, Any]) -> None:
    folder = home / ".copilot" / "session-state" / session
    folder.mkdir(parents=True)
    start = {"type": "session.start", "data": {"selectedModel": "m", "reasoningEffort": "low"}}
    text = "".join(json.dumps(line) + "\n" for line in (start, *lines))
    (folder / "events.jsonl").write_text(text)


def of_command(home: Path, named: str) -> Any:
    environment = {"HOME": "/home/dev", "COPILOT_CLI": "1", "COPILOT_AGENT_SESSION_ID": named}
    argv = [["make"], ["/opt/copilot"]]
    return probe_recorded(command(environment, argv=argv, home=str(home)), PLUGINS)


def keys(found: Any) -> list[str | None]:
    return [link.native_actor_key for link in found.chain]


def test_a_sub_agents_third_id_is_looked_up_in_the_usage_records(tmp_path: Path) -> None:
    usage = {"type": "session.usage_record", "agentId": "task-1"}
    usage["data"] = {"usage": {"accounting": {"sourceSessionId": "third"}}}
    events(tmp_path, "s1", usage)
    assert keys(of_command(tmp_path, "s1")) == ["copilot-cli:session:s1"]
    assert keys(of_command(tmp_path, "third")) == [
        "copilot-cli:session:s1", "copilot-cli:agent:task-1",
    ]  # fmt: skip


def test_a_third_id_that_is_not_written_yet_is_nobody_and_no_session(tmp_path: Path) -> None:
    events(tmp_path, "s1")
    assert keys(of_command(tmp_path, "third")) == [None]


def test_a_sub_agents_hook_names_agent_and_parent(tmp_path: Path) -> None:
    events(tmp_path, "s1")
    payload = {"sessionId": "task-1", "agentId": "task-1", "parentAgentId": "s1"}
    found = probe_recorded(hook("copilot-cli", "preToolUse", payload, home=str(tmp_path)), PLUGINS)
    assert keys(found) == ["copilot-cli:session:s1", "copilot-cli:agent:task-1"]
    started = {"sessionId": "s1", "agentId": "task-1", "parentAgentId": "s1"}
    again = probe_recorded(hook("copilot-cli", "subagentStart", started), PLUGINS)
    assert keys(again) == ["copilot-cli:session:s1", "copilot-cli:agent:task-1"]
    assert again.meaning == "child_opened"
