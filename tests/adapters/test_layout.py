"""Folders of a registry: out of git's sight, under the policy of the one above."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.layout import Layout, thread_hash, toml_names
from heddle_registry.errors import StoreUnavailable
from tests.process_helpers import as_nobody, needs_other_user, public_folder

if TYPE_CHECKING:
    from collections.abc import Callable
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


def test_a_new_registry_is_at_no_moment_open_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    layout = Layout(str(tmp_path / ".heddle"))
    seen = []

    def watched(real: Callable[..., int]) -> Callable[..., int]:
        def call(path: str, *given: int) -> int:
            try:
                return real(path, *given)
            finally:
                seen.append(mode(layout.root))

        return call

    for name in ("mkdir", "chmod", "open"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    before = os.umask(0)
    try:
        layout.make()
    finally:
        os.umask(before)
    assert set(seen) == {0o700}
    assert mode(os.path.join(layout.root, ".gitignore")) & 0o111 == 0


def test_folders_above_a_new_registry_are_made_as_any_other(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Layout(str(tmp_path / "new" / "project" / ".heddle")).make()
    finally:
        os.umask(before)
    above = [tmp_path / "new", tmp_path / "new" / "project"]
    assert [mode(str(path)) for path in above] == [0o755] * 2


@needs_other_user
def test_a_registry_can_be_made_where_one_may_write_and_not_look() -> None:
    with public_folder() as folder:
        folder.chmod(0o1733)

        def attempt() -> bool:
            Layout(str(folder / ".heddle")).make()
            return (folder / ".heddle" / "agents").is_dir()

        assert as_nobody(attempt)


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
    assert toml_names(names) == ["a.toml", ".a.toml"]


FOLDERS = ("agents", "claims", "live", "wait", "tmp", "queries", "quarantine")


def test_everything_lies_where_the_file_format_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layout = Layout(".heddle/")
    root = str(tmp_path / ".heddle")
    assert layout.root == root
    assert [os.path.relpath(getattr(layout, name), root) for name in FOLDERS] == [
        "agents",
        "claims",
        "live",
        "wait",
        "tmp",
        "queries",
        os.path.join("agents", ".quarantine"),
    ]
    assert layout.index == os.path.join(root, "index.sqlite")
    assert layout.entry_name("agent-a") == "agent-a.toml"
    assert layout.claim_name("a/b") == thread_hash("a/b") + ".toml"
    assert Layout("/").agents == "/agents"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_in_any_folders_place_is_refused_by_name(tmp_path: Path, name: str) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make()
    layout.refuse_links()
    path = getattr(layout, name)
    if name == "agents":
        os.rmdir(path)
    os.symlink(tmp_path, path)
    with pytest.raises(StoreUnavailable) as error:
        layout.refuse_links()
    assert error.value.path == path


def test_a_root_that_is_a_link_is_the_users_own_way(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / ".heddle")
    layout = Layout(str(tmp_path / ".heddle"))
    layout.refuse_links()
    layout.make()
    assert (tmp_path / "elsewhere" / "agents").is_dir()


@pytest.mark.parametrize(
    ("parent_mode", "root_mode"),
    [(0o2770, 0o2770), (0o770, 0o700), (0o775, 0o700), (0o2755, 0o700)],
)
def test_a_new_registry_is_shared_only_where_the_group_may_write_and_is_inherited(
    tmp_path: Path, parent_mode: int, root_mode: int
) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(parent_mode)
    layout = Layout(str(parent / ".heddle"))
    layout.make()
    assert [mode(path) for path in (layout.root, layout.agents)] == [root_mode] * 2


def test_making_what_is_there_changes_nothing(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make_folder(layout.claims)
    ignore = tmp_path / ".heddle" / ".gitignore"
    assert ignore.read_text().endswith("\n*\n")
    ignore.write_text("mine")
    for path in (layout.root, layout.claims):
        os.chmod(path, 0o750)
    layout.make()
    layout.make_folder(layout.claims)
    assert ignore.read_text() == "mine"
    assert [mode(path) for path in (layout.root, layout.claims)] == [0o750] * 2


def test_a_folder_that_another_process_makes_meanwhile_is_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make()
    real = os.mkdir

    def race(path: str, *given: int) -> None:
        real(path, *given)
        real(path, *given)

    monkeypatch.setattr(os, "mkdir", race)
    layout.make_folder(layout.claims)
    assert os.path.isdir(layout.claims)


def test_an_ignore_file_that_cannot_be_written_hinders_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make()
    assert os.path.isdir(layout.agents)
    if before:
        assert len(os.listdir("/dev/fd")) <= before


def test_what_hinders_the_making_of_a_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make()
    real = os.mkdir

    def refuse(path: str, *given: int) -> None:
        if path == layout.claims:
            raise OSError(30, "Read-only file system")
        real(path, *given)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(StoreUnavailable, match="Read-only file system") as error:
        layout.make_folder(layout.claims)
    assert (error.value.errno, error.value.path) == (30, layout.claims)


def test_a_folder_that_no_power_loss_may_take_is_synced_or_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make()

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreUnavailable):
        layout.make_folder(layout.claims)
    assert not os.path.exists(layout.claims)
