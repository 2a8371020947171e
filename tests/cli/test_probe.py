"""`probe` by its words: recorded situations in, chains out, and nothing secret written down."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugins import recordings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Heddle

LINK = {
    "harness", "native_actor_key", "native_parent_actor_key", "native_instance_key", "provider",
    "model", "thinking_level", "source", "confidence", "evidence", "transcript", "continues",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _with_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "heddle_registry.surroundings.plugins_here", lambda *_: recordings.plugins()
    )


def recorded(folder: Path, situation: dict[str, Any]) -> Path:
    path = folder / "recording.json"
    path.write_text(json.dumps(situation))
    return path


def test_every_recorded_command_has_its_chain(heddle: Heddle, tmp_path: Path) -> None:
    for harness in recordings.FOLDERS:
        for name, situation, case in recordings.commands(harness):
            answer = heddle.json("probe", "--input", recorded(tmp_path, situation))
            keys = [link["native_actor_key"] for link in answer["chain"]]
            assert [key for key in keys if key] == case["chain"], name
            assert all(set(link) == LINK for link in answer["chain"])
            assert answer["candidates"] == []
    assert not heddle.folder.exists()


def test_a_recorded_hook_is_the_hooks_and_people_can_read_it(
    heddle: Heddle, tmp_path: Path
) -> None:
    claude = dict(recordings.hooks("claude-code"))
    situation = next(s for name, s in claude.items() if name.endswith("SubagentStart"))
    told = heddle("probe", "--input", recorded(tmp_path, situation)).out.splitlines()
    assert [line.split()[0] for line in told] == ["claude-code", "claude-code"]
    assert "claude-code:session:" in told[0]
    assert told[1].startswith("  claude-code  claude-code:agent:")


def test_what_is_recorded_gives_the_same_answer_and_holds_no_secret(
    heddle: Heddle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "CODEX_THREAD_ID": "t1",
        "ANTHROPIC_API_KEY": "sk-secret",
        "CLAUDE_CODE_MESSAGING_TOKEN": "m-secret",
        "HEDDLE_AGENT_TOKEN": "h-secret",
        "HEDDLE_THREAD": "feature/x",
    }.items():
        monkeypatch.setenv(name, value)
    payload = tmp_path / "payload.json"
    payload.write_text(json.dumps({"session_id": "t1", "prompt": "p-secret"}))
    record = tmp_path / "kept.json"
    words = ("--harness", "codex", "--event", "SessionStart", "--payload", payload)
    here = heddle.json("probe", *words, "--record", record)
    kept = record.read_text()
    assert "secret" not in kept
    assert json.loads(kept)["environment"]["HEDDLE_THREAD"] == "feature/x"
    assert record.stat().st_mode & 0o777 == 0o600
    again = heddle.json("probe", "--input", record)
    assert here["chain"] == again["chain"]


def test_without_any_harness_it_says_so_and_detection_can_be_switched_off(
    heddle: Heddle, tmp_path: Path
) -> None:
    assert "no harness" in heddle("probe", "--input", recorded(tmp_path, {})).out
    _, situation, _ = recordings.commands("codex")[0]
    heddle.folder.mkdir()
    (heddle.folder / "config.toml").write_text("detection = false\n")
    answer = heddle.json("probe", "--input", recorded(tmp_path, situation))
    assert (answer["chain"], answer["candidates"]) == ([], [])
