"""Folders of a registry: out of git's sight, under the policy of the one above."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.layout import Layout, thread_hash, toml_stems
from heddle_registry.errors import StoreUnavailable
from tests.process_helpers import as_nobody, needs_other_user, public_folder

if TYPE_CHECKING:
    from pathlib import Path


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_a_new_registry_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    layout = Layout(str(tmp_path / "repository" / ".heddle"))
    (tmp_path / "repository").mkdir()
    before = os.umask(umask)
    try:
        layout.make()
        layout.make_folder(layout.claims)
    finally:
        os.umask(before)
    assert [mode(path) for path in (layout.root, layout.agents, layout.claims)] == [0o700] * 3


def test_a_registry_in_a_folder_shared_with_a_group_is_shared(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    layout = Layout(str(shared / ".heddle"))
    layout.make_folder(layout.claims)
    assert [mode(path) for path in (layout.root, layout.agents, layout.claims)] == [0o2770] * 3


def test_a_folder_that_was_there_keeps_its_mode_and_gives_it_to_the_new(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    os.mkdir(layout.root)
    os.chmod(layout.root, 0o750)
    layout.make_folder(layout.live)
    assert [mode(path) for path in (layout.root, layout.live)] == [0o750] * 2
    assert not os.path.exists(os.path.join(layout.root, ".gitignore")), "its maker's business"


def test_git_does_not_see_a_new_registry(tmp_path: Path) -> None:
    if subprocess.run(["git", "init", "-q", str(tmp_path)], check=False).returncode:
        pytest.skip("no git on this machine")
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make()
    (tmp_path / ".heddle" / "agents" / "a.toml").write_text("x")
    status = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--porcelain"],
        stdout=subprocess.PIPE,
        check=True,
    )
    assert status.stdout == b""


@pytest.mark.parametrize("level", ["root", "agents"])
def test_something_in_the_way_is_named(tmp_path: Path, level: str) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    if level == "agents":
        os.mkdir(layout.root)
    path = getattr(layout, level)
    with open(path, "w") as file:
        file.write("x")
    with pytest.raises(StoreUnavailable) as error:
        layout.make()
    assert error.value.path == path


@needs_other_user
def test_a_place_where_nothing_may_be_made_is_a_clear_error_that_leaves_nothing() -> None:
    with public_folder() as folder:

        def attempt() -> str:
            try:
                Layout(str(folder / "deep" / ".heddle")).make()
            except StoreUnavailable as error:
                return str(error)
            return "made"

        assert "ermission" in as_nobody(attempt)
        assert list(folder.iterdir()) == []


def test_every_thread_has_a_file_name_of_its_own() -> None:
    threads = ["main", "Main", "a/b", "a-b", "\u00e9", "e\u0301", "..", "x" * 1024, "lone \udcff"]
    names = [thread_hash(thread) for thread in threads]
    assert len(set(names)) == len(names)
    assert all(len(name) == 32 and name.isalnum() for name in names)


def test_readers_take_the_names_that_the_original_takes() -> None:
    names = [".lock", ".toml", "a.toml", ".a.toml", "A.TOML", "a.toml~", "b.toml.tmp", "toml"]
    assert toml_stems(names) == ["a.toml", ".a.toml"]
