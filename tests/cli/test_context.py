from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Heddle


def test_linked_worktrees_share_the_registry_that_lies_beside_the_main_one(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEDDLE_DIR")
    main = heddle.folder.parent
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (
        ["init", "-q"],
        ["commit", "-q", "--allow-empty", "-m", "x"],
        ["worktree", "add", "-q", "../linked"],
    ):
        subprocess.run([*git, *words], check=True, cwd=main, timeout=60)
    heddle("reserve", "main", "--ttl", "60")
    assert heddle.folder.is_dir()
    monkeypatch.chdir(main.parent / "linked")
    assert heddle.json("why", "main")["state"] == "held"
    status = subprocess.run(
        ["git", "status", "--short"], check=True, cwd=main, capture_output=True, timeout=60
    )
    assert status.stdout == b""


def test_a_folder_that_only_holds_a_registry_is_not_taken_for_one(heddle: Heddle) -> None:
    heddle("reserve", "main", "--ttl", "60")
    told = heddle("--heddle-dir", heddle.folder.parent, "reserve", "x", "--ttl", "9", status=2)
    assert str(heddle.folder) in told.err
    assert os.listdir(heddle.folder.parent) == [".heddle"]


@pytest.mark.parametrize("verb", ["list", "gc", "doctor"])
def test_a_file_in_the_folders_place_is_an_error_and_no_empty_registry(
    heddle: Heddle, verb: str
) -> None:
    heddle.folder.write_text("")
    assert heddle.json(verb, status=7)["error"]["code"] == "unavailable"
    told = heddle("--heddle-dir", heddle.folder / "below", verb, status=7).err
    assert "no folder" in told
