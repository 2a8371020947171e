from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.layout import thread_hash
from heddle_registry.install.git_script import guard_script, is_guard, is_pure_guard

if TYPE_CHECKING:
    from pathlib import Path

ZERO, ONE, TWO = ("0" * 40, "1" * 40, "2" * 40)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    for name in ("agents", "claims"):
        (tmp_path / ".heddle" / name).mkdir(parents=True)
    return tmp_path / ".heddle"


def asked(folder: Path, *lines: str, state: str = "prepared", status: int = 0) -> list[str]:
    """Run the hook; return the branches that it started a check for."""
    hook, said = folder / "hook", folder / "said"
    ask = f"sh -c 'cat >{said}; exit {status}' ask"
    hook.write_text(guard_script(ask, "", made_folders=0))
    hook.chmod(0o755)
    done = subprocess.run(
        [hook, state],
        cwd=folder,
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == (status == 5), done
    if not said.exists():
        assert done.stderr == ""
        return []
    branches = said.read_text().splitlines()
    said.unlink()
    return branches


def held(registry: Path, branch: str) -> None:
    path = registry / "claims" / f"{thread_hash(branch)}.toml"
    path.write_text(f'thread = "{branch}"\nfence = 1\n\n[holder]\nsession_id = "agent-x"\n')


def test_python_is_asked_only_for_branches_that_somebody_may_hold(
    tmp_path: Path, registry: Path
) -> None:
    held(registry, "held/ü")
    free = registry / "claims" / f"{thread_hash('once')}.toml"
    free.write_text('thread = "once"\nfence = 3\n\n[[past]]\nsession_id = "agent-x"\n')
    damaged = registry / "claims" / f"{thread_hash('damaged')}.toml"
    damaged.write_text("")

    def changed(*branches: str) -> list[str]:
        return asked(tmp_path, *(f"{ONE} {TWO} refs/heads/{branch}" for branch in branches))

    assert changed("main", "once", "held/u", "held") == []
    assert changed("main", "held/ü", "damaged") == ["held/ü", "damaged"]
    assert changed('quoted"') == ['quoted"']
    assert len(changed(*map(str, range(20)))) == 20


def test_an_entry_that_bears_a_fence_stands_for_a_claim_that_is_missing(
    tmp_path: Path, registry: Path
) -> None:
    fence = "\n[heddle_registry]\nfence = 2\n"
    (registry / "agents" / "agent-a.toml").write_text(f'thread = "main"\n{fence}')
    (registry / "agents" / "agent-b.toml").write_text('thread = "here"\n')

    assert asked(tmp_path, f"{ONE} {TWO} refs/heads/main") == ["main"]
    assert asked(tmp_path, f"{ONE} {TWO} refs/heads/here") == []
    assert asked(tmp_path, f"{ONE} {TWO} refs/heads/mai") == []


def test_only_local_branches_that_change_count_and_only_before_they_do(
    tmp_path: Path, registry: Path
) -> None:
    held(registry, "main")

    for line in (
        f"{ONE} {TWO} HEAD",
        f"{ONE} {TWO} refs/tags/main",
        f"{ONE} {TWO} refs/remotes/origin/main",
        f"{ONE} {TWO} refs/stash",
        f"{ONE} {ONE} refs/heads/main",
        "ref:refs/heads/main ref:refs/heads/other HEAD",
    ):
        assert asked(tmp_path, line) == [], line
    for line in (
        f"{ONE} {TWO} refs/heads/main",
        f"{ZERO} {ONE} refs/heads/main",
        f"{ONE} {ZERO} refs/heads/main",
        f"{ZERO} {ZERO} refs/heads/main",
    ):
        assert asked(tmp_path, line, status=5) == ["main"], line
        for state in ("preparing", "committed", "aborted"):
            assert asked(tmp_path, line, state=state) == []


def test_without_a_registry_nobody_is_asked(tmp_path: Path) -> None:
    assert asked(tmp_path, f"{ONE} {TWO} refs/heads/main") == []


def test_the_guard_knows_itself_and_what_was_added_to_it() -> None:
    script = guard_script("ask", "", made_folders=1)

    assert is_guard(script)
    assert is_pure_guard(script)
    assert not is_pure_guard(script + "echo mine\n")
    assert is_guard(script + "echo mine\n")
    assert not is_guard("#!/bin/sh\n")
