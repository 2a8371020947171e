from __future__ import annotations

from pathlib import Path

import pytest

from tests.repositories import Repository

HOOK = "reference-transaction"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def hooks_in(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith(".sample")}


def test_a_repository_is_as_before_once_the_guard_came_and_went(repository: Repository) -> None:
    hooks = repository.path / ".git" / "hooks"
    assert hooks_in(hooks) == {}

    assert "now wired" in repository.heddle("install", "git")
    wired = hooks_in(hooks)
    assert "wired already" in repository.heddle("install", "git")
    assert hooks_in(hooks) == wired
    assert "no longer" in repository.heddle("install", "git", "--remove")
    assert hooks_in(hooks) == {}
    assert "not wired" in repository.heddle("install", "git", "--remove")
    assert not (repository.path / ".heddle").exists()


def test_a_hook_that_was_there_is_asked_too_and_comes_back_as_it_was(
    repository: Repository,
) -> None:
    hook = repository.path / ".git" / "hooks" / HOOK
    said = repository.path.parent / "said"
    theirs = f'#!/bin/sh\necho "$1" >>{said}\ncat >>{said}\n[ ! -e {said}.no ]\n'
    hook.write_text(theirs)
    hook.chmod(0o711)
    repository.commit()
    lines = len(said.read_text().splitlines())

    repository.heddle("install", "git")
    said.unlink()
    repository.commit()
    assert len(said.read_text().splitlines()) == lines
    repository.reserve("main")
    assert "'main' is held" in repository.commit(status=128)
    repository.git("checkout", "-q", "-b", "free")
    said.with_name("said.no").touch()
    repository.commit(status=128)
    repository.heddle("install", "git", "--remove")

    assert hook.read_text() == theirs
    assert hook.stat().st_mode & 0o777 == 0o711
    assert [p.name for p in hook.parent.iterdir() if HOOK in p.name] == [HOOK]


def test_a_link_to_a_hook_stays_that_link(repository: Repository) -> None:
    hook = repository.path / ".git" / "hooks" / HOOK
    tracked = repository.path / "hook.sh"
    tracked.write_text("#!/bin/sh\nexit 1\n")
    tracked.chmod(0o755)
    hook.symlink_to("../../hook.sh")

    repository.heddle("install", "git")
    repository.commit(status=128)
    assert tracked.read_text() == "#!/bin/sh\nexit 1\n"
    repository.heddle("install", "git", "--remove")

    assert hook.is_symlink()
    assert hook.readlink() == Path("../../hook.sh")


def test_a_dry_run_shows_the_hook_and_writes_nothing(repository: Repository) -> None:
    said = repository.heddle("install", "git", "--dry-run")

    assert "+#!/bin/sh" in said
    assert "nothing was changed" in said
    assert hooks_in(repository.path / ".git" / "hooks") == {}


@pytest.mark.parametrize("is_absolute", [False, True])
def test_the_guard_goes_where_hooks_path_points_in_every_worktree(
    repository: Repository, tmp_path: Path, *, is_absolute: bool
) -> None:
    folder = tmp_path / "my hooks" if is_absolute else Path("tools/git hooks")
    repository.git("config", "core.hooksPath", folder)
    repository.git("worktree", "add", "-q", "-b", "linked", tmp_path / "linked")
    linked = repository.at(tmp_path / "linked")
    (repository.path / "below").mkdir()

    said = repository.at(repository.path / "below").heddle("install", "git")
    repository.reserve("main")
    repository.reserve("linked")

    assert ("may serve other" if is_absolute else "do not commit") in said
    assert "'main' is held" in repository.commit(status=128)
    assert "'linked' is held" in linked.commit(status=128)
    assert hooks_in(repository.path / ".git" / "hooks") == {}
    linked.heddle("install", "git", "--remove")
    repository.commit()
    for top in (repository.path, linked.path):
        assert not (top / folder).exists()
        assert not (top / "tools").exists()


def test_a_hooks_folder_of_many_repositories_takes_no_registry_of_one(
    repository: Repository, tmp_path: Path
) -> None:
    repository.git("config", "core.hooksPath", tmp_path / "hooks")

    said = repository.heddle("install", "git", "--heddle-dir", tmp_path / "registry", status=2)

    assert "serves other repositories" in said


def test_a_guard_that_somebody_added_to_is_not_thrown_away(repository: Repository) -> None:
    repository.heddle("install", "git")
    hook = repository.path / ".git" / "hooks" / HOOK
    hook.write_text(hook.read_text() + "echo mine\n")
    before = hook.read_text()

    for words in ((), ("--remove",)):
        said = repository.heddle("install", "git", *words, status=2)
        assert "something else" in said
    assert hook.read_text() == before


def test_a_new_python_is_written_into_a_guard_that_is_there(repository: Repository) -> None:
    repository.heddle("install", "git")
    hook = repository.path / ".git" / "hooks" / HOOK
    current = hook.read_text()
    hook.write_text(current.replace("-I", "-I -X dev"))

    repository.heddle("install", "git")

    assert hook.read_text() == current
    assert hook.stat().st_mode & 0o111 == 0o111


def test_a_bare_repository_and_a_submodule_are_guarded(
    repository: Repository, tmp_path: Path
) -> None:
    repository.git("clone", "-q", "--bare", repository.path, tmp_path / "bare.git")
    bare = repository.at(tmp_path / "bare.git")
    bare.heddle("install", "git", "--heddle-dir", tmp_path / "registry")
    bare.heddle("reserve", "main", "--ttl", "60", "--heddle-dir", tmp_path / "registry")
    repository.commit()
    said = repository.git("push", "-q", tmp_path / "bare.git", "main", status=None)
    assert "'main' is held" in said

    outer = Repository(tmp_path / "outer")
    allow = ("-c", "protocol.file.allow=always")
    outer.git(*allow, "submodule", "--quiet", "add", repository.path, "inner")
    inner = outer.at(outer.path / "inner")
    inner.heddle("install", "git")
    inner.reserve("main")
    assert "'main' is held" in inner.commit(status=128)
    outer.commit()


def test_outside_of_any_repository_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    said = Repository(tmp_path / "nothing").heddle("install", "git", status=2)

    assert "git repository" in said
