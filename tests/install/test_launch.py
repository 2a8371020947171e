from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from heddle_registry.install.launch import command_line, is_relay_command, shell_text

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_works_without_path_variables_and_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "heddle_registry.py").write_text("raise SystemExit('the wrong one')")
    command = shell_text(command_line("", "--version"))

    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("heddle-registry ")
    assert shlex.split(command)[0] == os.path.abspath(sys.executable)


def test_only_our_own_relay_of_the_same_harness_is_ours() -> None:
    command = shell_text(command_line("", "relay", "codex", "SessionStart"))

    assert is_relay_command(command, "codex")
    assert is_relay_command("/old/python -I -m heddle_registry relay codex Stop", "codex")
    assert not is_relay_command(command, "claude-code")
    assert not is_relay_command("other relay codex Stop", "codex")
    assert not is_relay_command("python -m heddle_registry list", "codex")
