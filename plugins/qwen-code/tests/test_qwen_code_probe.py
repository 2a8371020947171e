from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import heddle_registry_qwen_code

from heddle_registry.plugins import Plugins
from heddle_registry.probe import probe_recorded
from heddle_registry.testing.probe_kit import command, probe_contract

if TYPE_CHECKING:
    from pathlib import Path

TestContract = probe_contract(heddle_registry_qwen_code)
PLUGINS = Plugins([("qwen-code", heddle_registry_qwen_code)])


def of_command(home: Path, agent: str) -> Any:
    environment = {
        "HOME": "/home/dev",
        "QWEN_CODE": "1",
        "QWEN_CODE_SESSION_ID": "s1",
        "QWEN_CODE_AGENT_ID": agent,
        "QWEN_CODE_MODEL": "q-1",
        "QWEN_CODE_PROJECT_DIR": "/home/dev/.qwen/projects/p",
        "QWEN_CODE_LAUNCHER_PID": "99",
    }
    argv = [["make"], ["node", "/x/qwen"]]
    return probe_recorded(command(environment, argv=argv, home=str(home)), PLUGINS).chain


def agent(home: Path, name: str, parent: str | None) -> None:
    folder = home / ".qwen" / "projects" / "p" / "subagents" / "s1"
    folder.mkdir(parents=True, exist_ok=True)
    meta = {"agentId": name, "parentSessionId": "s1", "parentAgentId": parent}
    (folder / f"agent-{name}.meta.json").write_text(json.dumps(meta))


def test_an_agent_of_an_agent_has_that_agent_as_its_parent(tmp_path: Path) -> None:
    agent(tmp_path, "aa", None)
    agent(tmp_path, "bb", "aa")
    assert [link.native_actor_key for link in of_command(tmp_path, "bb")] == [
        "qwen-code:session:s1", "qwen-code:agent:aa", "qwen-code:agent:bb",
    ]  # fmt: skip


def test_an_empty_agent_id_is_the_session_itself(tmp_path: Path) -> None:
    (link,) = of_command(tmp_path, "")
    assert link.native_actor_key == "qwen-code:session:s1"
    assert link.model == "q-1"


def test_without_its_file_an_agent_is_only_probably_the_sessions(tmp_path: Path) -> None:
    link = of_command(tmp_path, "aa")[-1]
    assert link.native_parent_actor_key == "qwen-code:session:s1"
    assert link.confidence <= 0.75
