from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from heddle_registry import AgentRegistry, Reserved
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.scripting import build_entry
from tests.adapters.store_findings import findings, shared_copy, told
from tests.process_helpers import as_nobody, needs_other_user, public_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def registry(tmp_path: Path) -> AgentRegistry:
    found = AgentRegistry(tmp_path / ".heddle")
    with found.reserve("main"):
        pass
    return found


def test_a_lost_claim_is_named_with_what_would_free_it(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with registry.reserve("main") as claim:
        path = tmp_path / ".heddle" / "agents" / f"{claim.session_id}.toml"
        kept = path.read_bytes()
        path.unlink()  # as a program does that knows no claims
        found = findings(registry)["claims"]
        assert found.status == "warn"
        assert claim.session_id in found.detail
        assert "--force" in found.fix
        path.write_bytes(kept)


def test_a_young_file_that_is_no_toml_may_still_be_written_by_somebody(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    path = tmp_path / ".heddle" / "agents" / "half.toml"
    path.write_text("session_id = ")
    assert findings(registry)["entries"].repair is None
    os.utime(path, (1, 1))
    assert findings(registry)["entries"].repair is not None
    assert told(registry, "entries") == [findings(registry)["entries"].detail]
    soon = time.time() + 3600
    os.utime(path, (soon, soon))
    assert findings(registry)["entries"].repair is not None, "of a clock that was wrong"
    path.unlink()
    path.mkdir()
    assert findings(registry)["entries"].repair is not None, "nobody is writing a folder"


def test_sessions_that_nobody_here_can_observe_are_told_only_while_they_run_on_this_boot(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with registry.reserve("other") as claim:
        path = tmp_path / ".heddle" / "agents" / f"{claim.session_id}.toml"
        own = path.read_text()
        owner = registry.load(claim.session_id).owner
        assert owner is not None
        assert "entries" not in findings(registry), "it runs here"
        for kind in ("pid_ns", "time_ns"):
            here = f'{kind} = "{getattr(owner, kind)}"'
            assert here in own
            path.write_text(own.replace(here, f'{kind} = "elsewhere"'))
            assert findings(registry)["entries"].detail.startswith("1 run in another pid or time")
        elsewhere = path.read_text()
        path.write_text(elsewhere.replace(owner.boot_id, "00000000-0000-0000-0000-000000000000"))
        assert "entries" not in findings(registry), "before the last boot"
        path.write_text(elsewhere.replace('status = "active"', 'status = "complete"'))
        assert "entries" not in findings(registry), "it has ended"
        path.write_text(own)


def test_a_claim_is_not_called_lost_while_its_holders_entry_cannot_be_read(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with registry.reserve("other") as claim:
        path = tmp_path / ".heddle" / "agents" / f"{claim.session_id}.toml"
        own = path.read_bytes()
        path.write_text("torn")
        found = findings(registry)
        path.write_bytes(own)
    assert "claims" not in found
    assert told(registry, "claims") == ["2 readable"]


def test_a_claim_whose_holder_has_died_is_not_called_lost(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    root = tmp_path / ".heddle"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        terms = Terms(owner=registry.owner_for(owner.pid))
        taken, _ = registry.reserve_on_terms("other", build_entry(registry, "other"), terms)
        assert isinstance(taken, Reserved)
        (root / "agents" / f"{taken.entry.session_id}.toml").unlink()
        assert findings(registry)["claims"].detail.startswith("branch 'other' is lost")
        owner.communicate(b"")
    assert "claims" not in findings(registry)


@needs_other_user
def test_a_record_that_only_others_may_read_is_told_and_not_mended(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with public_folder() as public:
        shared = shared_copy(tmp_path / ".heddle", public)
        other = AgentRegistry(shared)
        found = as_nobody(
            lambda: [
                (c.name, c.status, c.fix, c.repair is None)
                for c in other.store.examine(other.host)
                if c.name in ("entries", "claims")
            ]
        )
    assert [(name, status, no_repair) for name, status, _, no_repair in found] == [
        ("entries", "bad", True),
        ("claims", "bad", True),
    ]
    assert [fix for _, _, fix, _ in found] == 2 * ["Ask its owner for permission"]
