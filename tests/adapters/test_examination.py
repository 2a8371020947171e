from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from heddle_registry import AgentRegistry
from heddle_registry.adapters import examination
from tests.process_helpers import NOBODY, as_nobody, needs_other_user, public_folder

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.ports.findings import Check


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


@needs_other_user
def test_a_registry_that_may_not_be_entered_is_not_called_absent(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with public_folder() as public:
        shutil.copytree(tmp_path / ".heddle", public / "registry")
        (public / "registry").chmod(0o700)
        other = AgentRegistry(public / "registry")
        told = as_nobody(lambda: [(c.status, c.detail, c.fix) for c in findings(other).values()])
    [(status, detail, fix)] = told
    assert status == "bad"
    assert "no permission" in detail
    assert "belongs to" in fix


def test_a_check_that_cannot_be_made_is_told_and_costs_no_other(
    registry: AgentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(examination, "filesystem_of", fail)
    (check,) = findings(registry).values()
    assert (check.name, check.status) == ("file system", "bad")
    assert "input/output error" in check.detail


def test_a_quarantine_that_may_not_be_read_is_not_called_empty(
    registry: AgentRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = os.listdir

    def listdir(path: str) -> list[str]:
        if str(path).endswith(".quarantine"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listing(path)

    (tmp_path / ".heddle" / "agents" / ".quarantine").mkdir()
    monkeypatch.setattr(os, "listdir", listdir)
    check = findings(registry)["quarantine"]
    assert (check.status, "no permission" in check.detail) == ("bad", True)
