from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import Heddle


def test_the_change_is_shown_and_a_dry_run_only_shows_it(heddle: Heddle) -> None:
    path = Path.home() / ".claude" / "settings.json"

    said = heddle("install", "claude-code", "--dry-run").out
    assert f"+++ {path}" in said
    assert "relay claude-code SessionStart" in said
    assert "nothing was changed" in said
    assert not path.parent.exists()

    assert "now wired" in heddle("install", "claude-code").out
    assert "wired already" in heddle("install", "claude-code").out
    assert "SessionStart" in json.loads(path.read_text())["hooks"]
    assert "-  " in heddle("install", "claude-code", "--remove", "--dry-run").out
    assert path.exists()
    assert "no longer wired" in heddle("install", "claude-code", "--remove").out
    assert not path.parent.exists()


def test_json_says_which_files_and_whether_they_changed(heddle: Heddle) -> None:
    path = Path.home() / ".codex" / "hooks.json"

    dry = heddle.json("install", "codex", "--dry-run")
    assert set(dry) == {"schema", "target", "files", "changed", "diff", "notes"}
    assert (dry["target"], dry["files"], dry["changed"]) == ("codex", [str(path)], False)
    assert heddle.json("install", "codex")["changed"]
    again = heddle.json("install", "codex")
    assert (again["changed"], again["diff"]) == (False, "")
    error = heddle.json("install", "aider", status=2)["error"]
    assert "no hooks" in error["message"]


def test_a_wrong_call_changes_nothing(heddle: Heddle, monkeypatch: pytest.MonkeyPatch) -> None:
    heddle("install", "git", "--project", status=2)
    heddle("install", "codex", "--project", status=2)
    heddle("install", "nobody", status=2)
    path = Path.home() / ".qwen" / "settings.json"
    path.parent.mkdir()
    path.write_text("no json")
    assert "left as it is" in heddle("install", "qwen-code", status=2).err
    assert path.read_text() == "no json"
    monkeypatch.setenv("PATH", "")
    assert "git cannot be asked" in heddle("install", "git", status=7).err


def test_project_settings_belong_to_the_worktree(heddle: Heddle) -> None:
    top = heddle.folder.parent
    (top / ".git").mkdir()
    (top / ".git" / "HEAD").write_text("ref: refs/heads/main\n")

    said = heddle("install", "gemini-cli", "--project").out

    assert "do not commit" in said
    assert (top / ".gemini" / "settings.json").exists()
    assert not (Path.home() / ".gemini").exists()
