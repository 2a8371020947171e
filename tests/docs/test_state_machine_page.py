"""The page of the state machines is what the tables say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "make_state_machine.py"


def check(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )


def test_the_page_of_the_state_machines_is_not_stale():
    done = check(SCRIPT)
    assert done.returncode == 0, done.stderr


def test_a_table_that_changed_makes_the_page_stale(tmp_path):
    (tmp_path / "docs" / "explanation").mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "docs")
    shutil.copytree(ROOT / "heddle_registry" / "core", tmp_path / "heddle_registry" / "core")
    for name in ("__init__.py", "errors.py"):  # a whole package, or an installed one comes first
        shutil.copy(ROOT / "heddle_registry" / name, tmp_path / "heddle_registry")
    page = tmp_path / "docs" / "explanation" / "state-machine.md"
    shutil.copy(ROOT / "docs" / "explanation" / "state-machine.md", page)
    script = tmp_path / "docs" / SCRIPT.name
    assert check(script).returncode == 0
    lifecycle = tmp_path / "heddle_registry" / "core" / "lifecycle.py"
    row = "EntryEvent.MERGE: AgentStatus.MERGED,\n        },\n        AgentStatus.MERGED"
    text = lifecycle.read_text()
    assert row in text
    lifecycle.write_text(text.replace(row, "},\n        AgentStatus.MERGED"))
    done = check(script)
    assert done.returncode == 1
    assert "is stale" in done.stderr
