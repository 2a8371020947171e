"""The guard as git meets it: real repositories, real commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.process_helpers import as_nobody, needs_other_user, public_folder
from tests.repositories import Repository

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repository")
    made.heddle("install", "git")
    return made


def test_a_commit_on_a_held_branch_is_its_holders_alone(repository: Repository) -> None:
    repository.commit()
    claim = repository.reserve("main")

    said = repository.commit(status=128)
    why = repository.heddle("why", "main")
    repository.commit(status=128, HEDDLE_AGENT_TOKEN="another's")
    repository.commit(**claim)
    repository.commit(HEDDLE_AGENT_TOKEN=claim["HEDDLE_AGENT_TOKEN"])

    assert claim["HEDDLE_AGENT_SESSION_ID"] in said
    assert "refused" in said
    sentence = next(line.strip() for line in why.splitlines() if " holds it since " in line)
    assert sentence in said
    repository.heddle(
        "release",
        claim["HEDDLE_AGENT_SESSION_ID"],
        "--token",
        claim["HEDDLE_AGENT_TOKEN"],
        "--status",
        "complete",
    )
    repository.commit()


def test_every_way_to_move_a_held_branch_is_refused(repository: Repository) -> None:
    repository.git("checkout", "-q", "-b", "other")
    repository.commit()
    repository.reserve("main")
    before = repository.git("rev-parse", "main")

    for words in (
        ("branch", "-f", "main", "HEAD"),
        ("branch", "-D", "main"),
        ("branch", "-m", "main", "moved"),
        ("update-ref", "refs/heads/main", "HEAD"),
        ("update-ref", "-d", "refs/heads/main"),
        ("fetch", "-q", ".", "other:main"),
        ("push", "-q", ".", "other:main"),
    ):
        said = repository.git(*words, status=None)
        assert "'main' is held" in said, words
        assert repository.git("rev-parse", "main") == before, words
    repository.git("checkout", "-q", "main")
    for words in (
        ("merge", "-q", "other"),
        ("reset", "-q", "--hard", "other"),
        ("rebase", "other"),
    ):
        assert "'main' is held" in repository.git(*words, status=None), words
        assert repository.git("rev-parse", "main") == before, words


def test_what_changes_no_held_branch_goes_on(repository: Repository) -> None:
    repository.reserve("main")
    (repository.path / "file").write_text("x")
    repository.git("add", "file")

    repository.git("stash", "-q")
    repository.git("tag", "v1")
    repository.git("pack-refs", "--all")
    repository.git("gc", "-q")
    repository.git("checkout", "-q", "-b", "free")
    repository.commit()
    repository.git("pack-refs", "--all")
    repository.git("branch", "-m", "free", "freed")
    repository.git("checkout", "-q", "--detach")
    repository.commit()
    repository.git("branch", "-D", "freed")


def test_packing_is_known_by_its_command_not_by_a_word_in_a_message(repository: Repository) -> None:
    repository.reserve("main")

    repository.git("commit", "--allow-empty", "-m", "pack-refs", status=128)
    repository.git("-c", "gc.auto=0", "commit", "--allow-empty", "-m", "x pack-refs", status=128)
    repository.git("-c", "gc.auto=0", "pack-refs", "--all")


def test_linked_worktrees_and_pushes_from_clones_ask_the_same_registry(
    repository: Repository, tmp_path: Path
) -> None:
    repository.git("worktree", "add", "-q", "-b", "linked", tmp_path / "linked")
    repository.git("clone", "-q", repository.path, tmp_path / "clone")
    linked, clone = repository.at(tmp_path / "linked"), repository.at(tmp_path / "clone")
    claim = repository.reserve("linked")
    clone.commit()

    assert "'linked' is held" in linked.commit(status=128)
    linked.commit(**claim)
    linked.git("checkout", "-q", "--detach")  # git itself keeps pushes from what is checked out
    assert "'linked' is held" in clone.git("push", "-qf", "origin", "HEAD:linked", status=None)
    clone.git("push", "-q", "origin", "HEAD:new")


def test_the_repository_asks_its_own_registry_wherever_the_variable_points(
    repository: Repository, tmp_path: Path
) -> None:
    claim = repository.reserve("main")
    other = Repository(tmp_path / "other")
    other.heddle("install", "git")

    other.commit(**claim)
    repository.commit(status=128, HEDDLE_DIR=str(tmp_path / "other" / ".heddle"))


def test_a_registry_that_was_named_at_the_installation_is_the_one_asked(tmp_path: Path) -> None:
    registry = tmp_path / "it's shared"
    repository = Repository(tmp_path / "repository")
    repository.heddle("install", "git", "--heddle-dir", registry)
    repository.commit()
    repository.heddle("reserve", "main", "--ttl", "60", "--heddle-dir", registry)

    assert "'main' is held" in repository.commit(status=128)


def test_many_branches_in_one_go_are_judged_one_by_one(repository: Repository) -> None:
    for name in ("a", 'b"quoted', "c/d", *map(str, range(10))):
        repository.git("branch", name)
    repository.reserve('b"quoted')

    said = repository.git("push", "-q", ".", *(f"main~0:refs/heads/n{n}" for n in range(12)))
    assert said == ""
    (repository.path / "new").write_text("x")
    repository.git("add", "new")
    repository.commit()
    said = repository.git(
        "push", "--atomic", ".", *(f"main:{n}" for n in range(10)), 'main:b"quoted', status=None
    )
    assert "is held" in said
    assert repository.git("rev-parse", "0") != repository.git("rev-parse", "main")


def test_a_damaged_claim_lets_its_branch_pass_with_a_warning_and_hides_no_other(
    repository: Repository,
) -> None:
    repository.reserve("main")
    (claim,) = (repository.path / ".heddle" / "claims").glob("*.toml")
    repository.reserve("held")
    claim.write_text("not toml")

    said = repository.commit()
    assert "is damaged" in said
    assert "lets this change pass" in said
    said = repository.git("push", "--atomic", ".", "main:new", "main:held", status=None)
    assert "'held' is held" in said


def test_an_interpreter_that_is_gone_stops_nobody(repository: Repository) -> None:
    repository.reserve("main")
    hook = repository.path / ".git" / "hooks" / "reference-transaction"
    lines = hook.read_text().splitlines(keepends=True)
    hook.write_text(
        "".join(
            "ask() { /nowhere/python -I; }\n" if line.startswith("ask()") else line
            for line in lines
        )
    )

    assert "passes unguarded" in repository.commit()


@needs_other_user
def test_a_registry_that_may_not_be_read_lets_changes_pass_with_a_warning() -> None:
    with public_folder() as folder:
        repository = Repository(folder / "repository")
        repository.heddle("install", "git")
        repository.reserve("main")
        hook = repository.path / ".git" / "hooks" / "reference-transaction"

        def ask() -> str:
            script = f"echo 1 2 refs/heads/main | {hook} prepared"
            done = repository.run("sh", "-c", script, status=0)
            return done.stderr

        # Where the other user may not start this Python either, the hook itself says so.
        said = as_nobody(ask)
        assert "lets this change pass" in said or "passes unguarded" in said
