from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from heddle_registry import AgentRegistry
from heddle_registry.adapters.liveness_file import hold_liveness
from heddle_registry.errors import LockTimeout, StoreUnavailable
from tests.process_helpers import flock_holder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def registry(tmp_path: Path) -> AgentRegistry:
    return AgentRegistry(tmp_path / ".heddle")


def test_a_registry_that_is_not_there_is_not_made(registry: AgentRegistry, tmp_path: Path) -> None:
    assert registry.store.tidy() == ()
    assert list(tmp_path.iterdir()) == []


def test_only_what_nobody_needs_goes(registry: AgentRegistry, tmp_path: Path) -> None:
    root = tmp_path / ".heddle"
    with registry.reserve("main") as claim:
        junk = [
            root / "tmp" / ".x.toml.0123.tmp",
            root / "agents" / ".agent-1.toml.tmp-1-2-3",
            root / "live" / "agent-gone",
            root / "queries" / "agent-gone.jsonl",
            root / "wait" / "0" / "0000000000000001",
            root / "wait" / "0" / "0000000000000001.wake",
        ]
        kept = [
            root / "queries" / f"{claim.session_id}.jsonl",
            root / "agents" / "notes.txt",
            root / "wait" / "1" / "0000000000000002",
            root / "live" / "agent-soon",
        ]
        for path in [*junk, *kept]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        waiter = hold_liveness(str(kept[2]))
        reserving = hold_liveness(str(kept[3]))  # its entry is about to be written
        try:
            wanted = sorted(os.path.relpath(path, root) for path in junk)
            assert sorted(registry.store.tidy(dry_run=True)) == wanted
            assert all(path.exists() for path in junk)
            assert sorted(registry.store.tidy()) == wanted
        finally:
            waiter.release()
            reserving.release()
        assert not any(path.exists() for path in junk)
        assert all(path.exists() for path in kept)
        assert (root / "live" / claim.session_id).exists()
        claim.check()
    assert registry.store.tidy() != ()


def test_the_lock_of_a_lost_claim_stays_because_it_proves_the_holders_death(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    root = tmp_path / ".heddle"
    with registry.reserve("main") as claim:
        live = root / "live" / claim.session_id
        stored = (root / "claims").glob("*.toml")
        held = next(stored).read_bytes()
    path = next((root / "claims").glob("*.toml"))
    path.write_bytes(held)  # as if a stranger had removed the entry behind the holder's back
    (root / "agents" / f"{claim.session_id}.toml").unlink()
    live.touch()
    registry.store.tidy()
    assert live.exists()
    path.write_text("not toml")
    registry.store.tidy()
    assert live.exists()


def test_nothing_goes_where_the_claims_cannot_be_read(
    registry: AgentRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / ".heddle"
    with registry.reserve("main"):
        pass
    junk = [root / "agents" / ".agent-1.toml.tmp-1-2-3", root / "live" / "agent-gone"]
    for path in junk:
        path.touch()
    scandir = os.scandir
    seen = []

    def refuse(path: str) -> object:
        if str(path).endswith("claims"):
            seen.append(path)
            if len(seen) > 1:  # under the lock
                raise OSError(errno.EIO, "Input/output error", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        registry.store.tidy()
    assert all(path.exists() for path in junk)


def test_who_only_looks_and_who_finds_nothing_wait_for_no_lock(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    root = tmp_path / ".heddle"
    with registry.reserve("main"):
        pass
    registry.store.tidy()
    impatient = AgentRegistry(root, lock_timeout_s=0)
    with flock_holder(root / "agents" / ".lock"):
        assert impatient.store.tidy() == ()
        (root / "tmp" / ".x.toml.0123.tmp").touch()
        assert impatient.store.tidy(dry_run=True) == ("tmp/.x.toml.0123.tmp",)
        with pytest.raises(LockTimeout):
            impatient.store.tidy()


def test_what_cannot_be_removed_is_left_and_not_named(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    root = tmp_path / ".heddle"
    with registry.reserve("main"):
        pass
    registry.store.tidy()
    (root / "queries").mkdir(exist_ok=True)
    (root / "queries" / "agent-gone.jsonl").mkdir()
    (root / "queries" / "notes").touch()
    (root / "agents" / ".x.toml.tmp-1-2-3").mkdir()
    (root / "tmp" / ".x.toml.0123.tmp").touch()
    assert registry.store.tidy() == ("tmp/.x.toml.0123.tmp",)
    assert (root / "queries" / "notes").exists(), "it is no query log"
    assert registry.store.tidy(dry_run=True) == ("queries/agent-gone.jsonl",)


def test_a_line_in_which_nobody_waits_goes_with_its_last_ticket(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    root = tmp_path / ".heddle"
    with registry.reserve("main"):
        pass
    for line, name in (("0", "1"), ("1", "notes"), ("2", "notes.wake")):
        (root / "wait" / line).mkdir(parents=True)
        (root / "wait" / line / name).touch()
    assert "wait/0/1" in registry.store.tidy()
    assert sorted(os.listdir(root / "wait")) == ["1", "2"], "what is no ticket stays"


def test_a_living_waiters_wake_up_call_stays(registry: AgentRegistry, tmp_path: Path) -> None:
    root = tmp_path / ".heddle"
    with registry.reserve("main"):
        pass
    (root / "wait" / "0").mkdir(parents=True)
    (root / "wait" / "0" / "1.wake").touch()
    waiter = hold_liveness(str(root / "wait" / "0" / "1"))
    try:
        assert not any(path.startswith("wait") for path in registry.store.tidy())
    finally:
        waiter.release()
    assert {"wait/0/1", "wait/0/1.wake"} <= set(registry.store.tidy())


def test_nothing_behind_a_link_is_removed_or_named(registry: AgentRegistry, tmp_path: Path) -> None:
    root = tmp_path / ".heddle"
    with registry.reserve("main"):
        pass
    registry.store.tidy()
    junk = {
        "tmp": ".x.toml.0123.tmp",
        "wait": "1",
        "live": "agent-gone",
        "queries": "agent-gone.jsonl",
    }
    for folder, name in junk.items():
        victim = tmp_path / "home" / folder
        victim.mkdir(parents=True)
        (victim / name).touch()
        inside = root / folder
        if folder == "wait":
            inside.mkdir(exist_ok=True)
            inside /= "0"
        else:
            shutil.rmtree(inside, ignore_errors=True)
        inside.symlink_to(victim)
        assert registry.store.tidy(dry_run=True) == ()
        assert registry.store.tidy() == ()
        assert (victim / name).exists()
        inside.unlink()
