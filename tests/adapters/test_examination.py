from __future__ import annotations

import errno
import os
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from heddle_registry import AgentRegistry
from heddle_registry.adapters import examination
from heddle_registry.errors import StoreUnavailable
from tests.adapters.store_findings import findings, shared_copy, told
from tests.process_helpers import (
    NOBODY,
    as_nobody,
    flock_holder,
    needs_other_user,
    public_folder,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def registry(tmp_path: Path) -> AgentRegistry:
    found = AgentRegistry(tmp_path / ".heddle")
    with found.reserve("main"):
        pass
    found.store.tidy()
    return found


def test_nothing_is_wrong_with_a_fresh_registry(registry: AgentRegistry, tmp_path: Path) -> None:
    assert findings(registry) == {}
    assert told(registry, "folder") == [str(tmp_path / ".heddle")]
    assert told(registry, "entries") == ["1 readable"]
    assert told(registry, "claims") == ["1 readable"]


def test_a_registry_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    none = AgentRegistry(tmp_path / ".heddle")
    (check,) = none.store.examine(none.host)
    assert (check.status, "the first reservation makes it" in check.detail) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_whoever_holds_the_lock_at_this_moment_is_named(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    lock = tmp_path / ".heddle" / "agents" / ".lock"
    with flock_holder(lock) as other:
        (detail,) = told(registry, "lock")
        assert detail.endswith(f"held by process {other.pid} at this moment")
    assert "held" not in told(registry, "lock")[0]
    lock.unlink()
    assert findings(registry) == {}


def test_the_index_is_told_as_it_stands(registry: AgentRegistry, tmp_path: Path) -> None:
    registry.list()
    assert told(registry, "index") == ["up to date"]
    stranger = next((tmp_path / ".heddle" / "agents").glob("*.toml"))
    os.utime(stranger, (1, 1))
    stranger.rename(stranger.with_name("agent-renamed.toml"))
    assert told(registry, "index") == ["behind; the next question brings it up to date"]
    for path in (tmp_path / ".heddle").glob("index.sqlite*"):
        path.unlink()
    anew = AgentRegistry(tmp_path / ".heddle")
    assert told(anew, "index") == ["none yet; the next question that needs it makes it"]


def test_of_many_five_are_named_and_the_rest_counted(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    quarantine = tmp_path / ".heddle" / "agents" / ".quarantine"
    quarantine.mkdir()
    for number in range(5):
        (quarantine / f"{number}").touch()
    assert findings(registry)["quarantine"].detail.startswith("5 damaged files in ")
    assert findings(registry)["quarantine"].detail.endswith(": 0, 1, 2, 3, 4")
    for number in range(5, 7):
        (quarantine / f"{number}").touch()
    assert findings(registry)["quarantine"].detail.endswith(": 0, 1, 2, 3, 4 and 2 more")


def test_every_folder_and_record_that_everybody_may_write_is_found_and_no_link(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    root = tmp_path / ".heddle"
    open_to_all = []
    for name in (".", "agents", "claims", "live", "wait", "tmp"):
        folder = root / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        open_to_all.append(folder)
    entry = next((root / "agents").glob("*.toml"))
    entry.chmod(0o602)
    (root / "agents" / "link").symlink_to(entry)
    checks = [c for c in registry.store.examine(registry.host) if c.name == "permissions"]
    assert {c.detail.partition(" can be")[0] for c in checks} == {
        str(path) for path in (*open_to_all, entry)
    }
    assert all(c.status == "bad" and c.repair is not None for c in checks)
    assert told(registry, "folder") == [], "all is not well with the folder"
    for check in checks:
        assert check.repair is not None
        check.repair()
    assert told(registry, "permissions") == []
    assert (root / "agents").stat().st_mode & 0o777 == 0o775


@needs_other_user
def test_what_cannot_be_changed_here_is_told_without_an_offer_to_mend_it(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with public_folder() as public:
        shared = shared_copy(tmp_path / ".heddle", public)
        entry = next((shared / "agents").glob("*.toml"))
        entry.chmod(0o646)
        other = AgentRegistry(shared)
        checks = as_nobody(
            lambda: [
                (c.name, c.status, c.detail, c.repair is not None)
                for c in other.store.examine(other.host)
                if c.name in ("folder", "permissions")
            ]
        )
    assert (
        "permissions",
        "bad",
        f"{entry} can be written by everybody on this machine",
        False,
    ) in (checks)
    details = [detail for name, status, detail, _ in checks if (name, status) == ("folder", "warn")]
    assert any("cannot be written here: looks work, changes fail" in detail for detail in details)
    assert not any(status == "ok" for _, status, *_ in checks)


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
    (root / "queries").symlink_to(tmp_path / "elsewhere")
    assert findings(registry)["folder"].status == "bad", "a link to nothing is no folder"
    (tmp_path / "elsewhere").mkdir()
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
        shared = shared_copy(tmp_path / ".heddle", public)
        for path in (shared, shared / "agents", shared / "claims"):
            os.chown(path, 65_533, -1)
        other = AgentRegistry(shared)
        other.list()

        details = as_nobody(lambda: [c.detail for c in other.store.examine(other.host)])
    assert any("only the folder's owner can keep it" in detail for detail in details)
    assert any("belongs to user 65533, and you are user 65534" in detail for detail in details)


@needs_other_user
def test_a_registry_that_may_not_be_entered_is_not_called_absent(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with public_folder() as public:
        shutil.copytree(tmp_path / ".heddle", public / "registry")
        (public / "registry").chmod(0o700)
        other = AgentRegistry(public / "registry")
        found = as_nobody(lambda: [(c.status, c.detail, c.fix) for c in findings(other).values()])
    [(status, detail, fix)] = found
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


def test_no_permission_is_changed_behind_a_link(registry: AgentRegistry, tmp_path: Path) -> None:
    live = tmp_path / ".heddle" / "live"
    shutil.rmtree(live, ignore_errors=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "open").touch()
    (tmp_path / "elsewhere" / "open").chmod(0o666)
    live.symlink_to(tmp_path / "elsewhere")
    assert set(findings(registry)) == {"folder"}


def test_settings_that_everybody_may_write_are_bad(registry: AgentRegistry, tmp_path: Path) -> None:
    settings = tmp_path / ".heddle" / "config.toml"
    settings.touch()
    settings.chmod(0o666)
    check = findings(registry)["permissions"]
    assert "config.toml" in check.detail
    assert check.repair is not None
    check.repair()
    assert findings(registry) == {}


def test_a_file_system_that_is_mounted_read_only_is_told_from_a_missing_permission(
    registry: AgentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    assert "ask its owner" in findings(registry)["folder"].fix
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert "mount its file system writable" in findings(registry)["folder"].fix


def test_a_file_system_that_nothing_names_is_not_doubted(
    registry: AgentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "filesystem_of", lambda _: None)
    assert findings(registry) == {}
    assert told(registry, "file system") == ["its type cannot be told here"]


@needs_other_user
def test_an_administrator_can_keep_anybodys_index(registry: AgentRegistry, tmp_path: Path) -> None:
    for path in (tmp_path / ".heddle", tmp_path / ".heddle" / "agents"):
        os.chown(path, NOBODY, NOBODY)
    assert "index" not in findings(registry)


def test_what_another_program_wrote_in_place_is_told_and_read_again(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    registry.list()
    path = next((tmp_path / ".heddle" / "agents").glob("*.toml"))
    path.write_text(path.read_text().replace('thread = "main"', 'thread = "elsewhere"'))
    check = findings(registry)["index"]
    assert check.detail.startswith(f"1 changed in place by another program (agents/{path.name})")
    assert check.repair is not None
    assert check.repair() == "it is up to date"
    assert findings(registry) == {}
    assert check.repair() == "nothing is wrong with it any more"


def test_an_index_that_cannot_be_kept_is_not_called_up_to_date(
    registry: AgentRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.list()
    path = next((tmp_path / ".heddle" / "agents").glob("*.toml"))
    path.write_text(path.read_text().replace('thread = "main"', 'thread = "elsewhere"'))
    repair = findings(registry)["index"].repair
    assert repair is not None
    monkeypatch.setattr(type(registry.store), "catch_up", lambda _: False)
    with pytest.raises(StoreUnavailable):
        repair()
