"""Where a registry lies, and what git says of a folder, with real repositories."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.location import (
    find_heddle_dir,
    find_worktree,
    head_state,
    thread_of_folder,
)
from heddle_registry.errors import UsageError
from tests.process_helpers import in_fork

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HEDDLE_DIR", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    try:
        git(folder, "init", "-q", "-b", "trunk")
    except FileNotFoundError:
        pytest.skip("no git on this machine")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    (folder / "src" / "deep").mkdir(parents=True)
    return folder


def found(start: Path) -> str:
    return find_heddle_dir(str(start))


def test_a_repository_has_one_registry_for_all_its_worktrees(
    repository: Path, tmp_path: Path
) -> None:
    git(repository, "worktree", "add", "-q", "-b", "feature/x", str(tmp_path / "linked"))
    git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / "loose"))
    (tmp_path / "linked" / "src").mkdir()
    expected = str(repository / ".heddle")
    for start in (repository, repository / "src" / "deep", tmp_path / "linked" / "src"):
        assert found(start) == expected, "before and after it is there"
    os.mkdir(expected)
    for start in (repository / "src" / "deep", tmp_path / "linked", tmp_path / "loose"):
        assert found(start) == expected
    assert thread_of_folder(str(repository / "src")) == "trunk"
    assert thread_of_folder(str(tmp_path / "linked" / "src")) == "feature/x"
    assert thread_of_folder(str(tmp_path / "loose")) == "detached/loose"
    assert thread_of_folder(str(tmp_path)) is None


def test_the_nearest_registry_wins_and_what_was_told_wins_over_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = repository / "src"
    (inner / ".heddle").mkdir()
    assert found(inner / "deep") == str(inner / ".heddle")
    assert found(repository) == str(repository / ".heddle")
    monkeypatch.setenv("HEDDLE_DIR", str(tmp_path / "told"))
    assert found(inner) == str(tmp_path / "told")
    assert find_heddle_dir(str(inner), explicit="~/mine") == str(tmp_path / "home" / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_heddle_dir(explicit="relative") == str(tmp_path / "relative")


def test_settings_in_the_home_are_no_registry_of_all_that_lies_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".heddle").mkdir()
    (home / "notes").mkdir()
    with pytest.raises(UsageError, match="no registry for"):
        found(home / "notes")
    assert found(home) == str(home / ".heddle")


def test_without_a_repository_and_a_registry_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--heddle-dir"):
        found(tmp_path)


def test_a_submodule_and_a_bare_repository_have_their_own(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk", "--bare", "bare.git")
    git(repository, "push", "-q", str(tmp_path / "bare.git"), "trunk")
    git(tmp_path / "bare.git", "worktree", "add", "-q", str(tmp_path / "from-bare"), "trunk")
    assert found(tmp_path / "from-bare") == str(tmp_path / "bare.git" / ".heddle")
    allow = ("-c", "protocol.file.allow=always")
    git(repository, *allow, "submodule", "-q", "add", str(tmp_path / "bare.git"), "sub")
    assert found(repository / "sub") == str(repository / "sub" / ".heddle")


def test_the_checked_out_state_is_found_loose_packed_and_detached(
    repository: Path, tmp_path: Path
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert head_state(str(repository / "src")) == commit[:12]
    git(repository, "pack-refs", "--all")
    assert head_state(str(repository)) == commit[:12]
    git(repository, "worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    assert head_state(str(tmp_path / "linked")) == commit[:12]
    git(repository, "checkout", "-q", "--detach")
    assert head_state(str(repository)) == commit[:12]
    git(repository, "checkout", "-q", "--orphan", "empty")
    assert head_state(str(repository)) is None
    assert head_state(str(tmp_path)) is None


@pytest.mark.parametrize(
    "content", ["", "gitdir:", "gitdir: /nowhere", "nonsense\0", "gitdir: \udcff"]
)
def test_a_broken_git_marker_breaks_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / ".git").write_bytes(content.encode("utf-8", "surrogateescape"))
    worktree = find_worktree(str(tmp_path / "odd"))
    assert worktree is None or worktree.branch is None
    assert head_state(str(tmp_path / "odd")) is None
    try:
        assert found(tmp_path / "odd").endswith(".heddle")
    except UsageError:
        assert worktree is None


def test_a_working_directory_that_is_gone_is_a_clear_error(tmp_path: Path) -> None:
    def ask(**options: str) -> str:
        folder = tmp_path / "gone"
        folder.mkdir()
        os.chdir(folder)
        folder.rmdir()
        try:
            return find_heddle_dir(**options)
        except UsageError as error:
            return str(error)

    assert "no longer exists" in in_fork(ask)
    assert "no longer exists" in in_fork(lambda: ask(explicit="relative"))
    assert in_fork(lambda: ask(explicit="/absolute")) == "/absolute"


def test_a_folder_below_the_home_that_is_a_registry_of_its_own_is_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "work" / ".heddle").mkdir(parents=True)
    (home / "work" / "deep").mkdir()
    assert found(home / "work" / "deep") == str(home / "work" / ".heddle")


def test_a_home_that_is_reached_through_a_link_is_still_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".heddle").mkdir()
    (home / "notes").mkdir()
    (tmp_path / "alias").symlink_to(home)
    with pytest.raises(UsageError, match="no registry for"):
        found(tmp_path / "alias" / "notes")
    monkeypatch.setenv("HOME", str(tmp_path / "alias"))
    with pytest.raises(UsageError, match="no registry for"):
        found(home / "notes")


def test_a_marker_file_may_name_its_git_folder_relatively_or_absolutely(
    repository: Path, tmp_path: Path
) -> None:
    for number, marker in enumerate((f"gitdir: {repository}/.git\n", "gitdir: ../project/.git")):
        folder = tmp_path / f"marked{number}"
        folder.mkdir()
        (folder / ".git").write_text(marker)
        worktree = find_worktree(str(folder))
        assert worktree is not None
        assert worktree.git_dir == str(repository / ".git")
        assert (worktree.root, worktree.main_root) == (str(folder), str(folder))
        assert worktree.branch == "trunk"
    (tmp_path / "nested" / "marked").mkdir(parents=True)
    (tmp_path / "nested" / ".git").write_text("nothing of git's")
    assert find_worktree(str(tmp_path / "nested" / "marked")) is None


def test_a_branch_with_slashes_is_found_loose_and_only_a_commit_is_a_state(
    repository: Path, tmp_path: Path
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "-b", "feature/deep/er")
    assert thread_of_folder(str(repository)) == "feature/deep/er"
    assert head_state(str(repository)) == commit[:12]
    head = repository / ".git" / "HEAD"
    for text, state in (
        ("0123456789ab\n", "0123456789ab"),
        ("0123456789abcdef", "0123456789ab"),
        ("0123456789a", None),
        ("0123456789AB", None),
        ("not a commit!", None),
        ("", None),
    ):
        head.write_text(text)
        assert head_state(str(repository)) == state
        assert thread_of_folder(str(repository)) == "detached/project"
    head.write_text("ref: refs/heads/\n")
    assert thread_of_folder(str(repository)) == "detached/project"
    head.write_text("ref: refs/tags/v1\n")
    assert thread_of_folder(str(repository)) == "detached/project"
    (repository / ".git" / "packed-refs").write_text(
        f"# pack-refs\n{'a' * 40} refs/heads/x-packed\n{'b' * 40} refs/heads/packed\n"
    )
    head.write_text("ref: refs/heads/packed\n")
    assert head_state(str(repository)) == "b" * 12


def test_told_folders_are_put_right_and_need_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_heddle_dir(explicit="a/../b/") == str(tmp_path / "b")
    assert find_heddle_dir(explicit="/x/./y") == "/x/y"
    (tmp_path / "sub" / ".heddle").mkdir(parents=True)
    assert find_heddle_dir("sub") == str(tmp_path / "sub" / ".heddle")
    monkeypatch.chdir(tmp_path / "sub")
    assert find_heddle_dir() == str(tmp_path / "sub" / ".heddle")
    assert find_heddle_dir("", explicit="") == str(tmp_path / "sub" / ".heddle")
