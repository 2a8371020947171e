from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from heddle_registry import AgentRegistry
from tests.process_helpers import NOBODY, as_nobody, needs_other_user, public_folder

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.ports import Check


@pytest.fixture
def registry(tmp_path: Path) -> AgentRegistry:
    found = AgentRegistry(tmp_path / ".heddle")
    with found.reserve("main"):
        pass
    found.store.tidy()
    return found


def findings(registry: AgentRegistry) -> dict[str, Check]:
    checks = registry.store.examine(registry.host)
    return {check.name: check for check in checks if check.status != "ok"}


def test_nothing_is_wrong_with_a_fresh_registry(registry: AgentRegistry) -> None:
    assert findings(registry) == {}


def test_files_that_everybody_may_write_are_found_and_closed(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    claim = next((tmp_path / ".heddle" / "claims").iterdir())
    claim.chmod(0o666)
    (check,) = findings(registry).values()
    assert (check.name, check.status) == ("permissions", "bad")
    assert check.repair is not None
    assert check.repair() == "its mode is 0664 now"
    assert findings(registry) == {}


def test_what_stands_in_a_folders_place_is_bad_and_a_link_to_one_is_doubtful(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    root = tmp_path / ".heddle"
    (root / "queries").write_text("")
    assert findings(registry)["folder"].status == "bad"
    (root / "queries").unlink()
    (tmp_path / "elsewhere").mkdir()
    (root / "queries").symlink_to(tmp_path / "elsewhere")
    assert findings(registry)["folder"].status == "warn"


@needs_other_user
def test_a_folder_of_another_user_is_doubtful(registry: AgentRegistry, tmp_path: Path) -> None:
    os.chown(tmp_path / ".heddle" / "claims", NOBODY, NOBODY)
    found = findings(registry)["folder"]
    assert found.status == "warn"
    assert str(NOBODY) in found.detail


def test_a_lock_that_is_no_file_is_bad(registry: AgentRegistry, tmp_path: Path) -> None:
    lock = tmp_path / ".heddle" / "agents" / ".lock"
    lock.unlink()
    lock.symlink_to("elsewhere")
    assert findings(registry)["lock"].status == "bad"


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


@needs_other_user
def test_an_index_that_only_another_user_can_keep_is_told(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with public_folder() as public:
        shared = public / "registry"
        shutil.copytree(tmp_path / ".heddle", shared)
        for path in (shared, shared / "agents", shared / "claims"):
            path.chmod(0o755)
            os.chown(path, 65_533, -1)
        other = AgentRegistry(shared)
        other.list()

        told = as_nobody(lambda: [c.detail for c in other.store.examine(other.host)])
    assert any("only the folder's owner can keep it" in detail for detail in told)
    assert any("belongs to user 65533, and you are user 65534" in detail for detail in told)
