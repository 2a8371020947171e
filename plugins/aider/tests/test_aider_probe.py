from __future__ import annotations

from typing import TYPE_CHECKING, Any

import heddle_registry_aider

from heddle_registry.plugins import Plugins
from heddle_registry.probe import probe_recorded
from heddle_registry.testing.probe_kit import command, probe_contract

if TYPE_CHECKING:
    from pathlib import Path

TestContract = probe_contract(heddle_registry_aider)
PLUGINS = Plugins([("aider", heddle_registry_aider)])


def of_command(cwd: Path, *options: str) -> Any:
    aider = ["/venv/bin/python3", "/venv/bin/aider", *options]
    situation = command({}, argv=[["make"], ["/bin/sh", "-c", "make"], aider], cwd=str(cwd))
    return probe_recorded(situation, PLUGINS).actor


def test_it_is_a_harness_without_an_actor(tmp_path: Path) -> None:
    link = of_command(tmp_path, "--model", "openai/gpt-4o")
    assert (link.harness, link.native_actor_key) == ("aider", None)
    assert (link.provider, link.model) == ("openai", "gpt-4o")
    assert link.transcript == str(tmp_path / ".aider.chat.history.md")


def test_without_an_option_the_history_names_the_model(tmp_path: Path) -> None:
    history = tmp_path / "log.md"
    history.write_text("> Main model: old with diff edit format\n> Main model: x/new with diff\n")
    link = of_command(tmp_path, "--chat-history-file=log.md")
    assert (link.model, link.transcript) == ("new", str(history))
