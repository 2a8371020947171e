"""Every operation that mends or tidies a registry's folder, for the tables of `boundaries`."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.adapters import examination, repair
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.layout import thread_hash
from tests.reliability.boundaries import NO_CLAIM, Operation

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.ports.findings import Check
    from tests.registry.world import World

NOT_TOML = b"\x00 says nothing"
MISNAMED = b"""session_id = "agent-lost"
thread = "lost"
base_state = "b"
started_at = "2026-07-01T12:00:00Z"
status = "active"
"""
CLAIM = f"{thread_hash('main')}.toml"
ELSEWHERE = f"{thread_hash('elsewhere')}.toml"


def store_of(world: World) -> DirectoryStore:
    assert isinstance(world.store, DirectoryStore)
    return world.store


def examine(world: World) -> tuple[Check, ...]:
    """Return what `doctor` finds, without its trial of the lock, which starts a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examination, "lock_fault", lambda _: None)
        return store_of(world).examine(world.host)


def doctor(world: World) -> None:
    """Mend all that can be mended, as `doctor --fix` does; then nothing is left to mend."""
    for check in examine(world):
        if check.repair is not None:
            check.repair()
    left = [check.detail for check in examine(world) if check.repair is not None]
    assert not left, left


def _held(world: World) -> Any:
    return world.reserve(pid=world.host.spawn(["holder"]), path=str(world.folder.parent))


def _old(path: Path) -> None:
    # Nobody is writing it any more.
    os.utime(path, (1, 1))


def _damaged_entry(world: World) -> None:
    world.present("agent-elsewhere", "elsewhere")
    path = world.folder / "agents" / "agent-bad.toml"
    path.write_bytes(NOT_TOML)
    _old(path)


def _folder_for_entry(world: World) -> None:
    world.present("agent-elsewhere", "elsewhere")
    folder = world.folder / "agents" / "agent-bad.toml"
    folder.mkdir()
    (folder / "inside").write_bytes(NOT_TOML)


def _misnamed_entry(world: World) -> None:
    world.present("agent-elsewhere", "elsewhere")
    path = world.folder / "agents" / "agent-else.toml"
    path.write_bytes(MISNAMED)
    _old(path)


def _damaged_claim(world: World) -> None:
    _held(world)
    (world.folder / "claims" / CLAIM).write_bytes(NO_CLAIM)


def _folder_for_claim(world: World) -> None:
    _held(world)
    place = world.folder / "claims" / CLAIM
    place.unlink()
    place.mkdir()
    (place / "inside").write_bytes(NOT_TOML)


def _edited_entry(world: World) -> None:
    world.present("agent-elsewhere", "elsewhere")
    world.registry.list()
    path = world.folder / "agents" / "agent-elsewhere.toml"
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.write(data.replace(b'"elsewhere"', b'"somewhere"'))


def _misnamed_claim(world: World) -> None:
    _held(world)
    (world.folder / "claims" / CLAIM).rename(world.folder / "claims" / ELSEWHERE)


def _no_claim(world: World) -> None:
    _held(world)
    (world.folder / "claims" / "notes.toml").write_bytes(NOT_TOML)


def _open_to_all(world: World) -> None:
    _held(world)
    (world.folder / "claims" / CLAIM).chmod(0o666)


LEFT_OVER = (
    "tmp/.x.toml.0123456789abcdef.tmp",
    "agents/.agent-1.toml.tmp-1-2-3",
    "live/agent-gone",
    "queries/agent-gone.jsonl",
    "wait/0/0000000000000001",
    "wait/0/0000000000000001.wake",
)


def _littered(world: World) -> None:
    _held(world)
    for name in LEFT_OVER:
        path = world.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _quarantine(world: World, _: Any) -> str:
    return repair.quarantine_entry(store_of(world), world.host, "agent-bad.toml", 5)


def _rename(world: World, _: Any) -> str:
    return repair.rename_entry(store_of(world), "agent-else.toml", "agent-lost.toml", 5)


def _rebuild(world: World, _: Any) -> str:
    return repair.rebuild_claim(store_of(world), world.host, CLAIM, 5)


def _rename_claim(world: World, _: Any) -> str:
    return repair.rename_claim(store_of(world), ELSEWHERE, CLAIM, 5)


def _put_claim_aside(world: World, _: Any) -> str:
    return repair.quarantine_claim(store_of(world), "notes.toml", 5)


def _close(world: World, _: Any) -> str:
    return repair.close_to_others(str(world.folder / "claims" / CLAIM))


def _remove(world: World, _: Any) -> str:
    return repair.remove_leftovers(store_of(world), 5)


def _refresh(world: World, _: Any) -> str:
    return repair.refresh_index(store_of(world), 5)


def _with_one_name(act: Any) -> Any:
    # On a file system that knows no second names.
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def acting(world: World, given: Any) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "link", refuse)
            return act(world, given)

    return acting


def _examine(world: World, _: Any) -> bool:
    # Whatever cannot be seen just now, it never says that all is well.
    return any(check.status == "bad" for check in examine(world))


def _is_moved(folder: Path, answer: str) -> None:
    # What the answer names is there, and nothing is where it was.
    assert not os.path.lexists(folder / "agents" / "agent-bad.toml")
    assert (folder / answer.split()[2]).exists(), answer


def _is_indexed(folder: Path, answer: str) -> None:
    if answer != repair.NOTHING_LEFT:  # said where the index may not even be opened
        with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as connection:
            rows = connection.execute("SELECT thread FROM entries").fetchall()
        assert rows == [("somewhere",)]


def _is_aside(folder: Path, answer: str) -> None:
    assert [path.name for path in (folder / "claims").iterdir()] == [CLAIM]
    assert answer == repair.NOTHING_LEFT or (folder / answer.split()[2]).exists(), answer


def _is_renamed(folder: Path, _: str) -> None:
    names = {path.name for path in (folder / "agents").glob("*.toml")}
    assert names == {"agent-elsewhere.toml", "agent-lost.toml"}


def _is_closed(folder: Path, _: str) -> None:
    assert not (folder / "claims" / CLAIM).stat().st_mode & stat.S_IWOTH


def _is_as_told(folder: Path, answer: str) -> None:
    gone = [name for name in LEFT_OVER if not (folder / name).exists()]
    assert answer.startswith(f"removed {len(gone)}"), answer
    assert ("left" in answer) == (len(gone) < len(LEFT_OVER)), answer


def _are_gone(folder: Path, answer: tuple[str, ...]) -> None:
    assert {name for name in LEFT_OVER if not (folder / name).exists()} == set(answer)


MENDING = (
    Operation("reserve beside a file that says nothing", _damaged_entry,
              lambda world, _: world.reserve(pid=world.host.spawn(["taker"])), grants=True,
              keeps=NOT_TOML),
    Operation("move a damaged entry away", _damaged_entry, _quarantine, keeps=NOT_TOML,
              mends=doctor, proves=_is_moved),
    Operation("move a damaged entry away, without a second name", _damaged_entry,
              _with_one_name(_quarantine), keeps=NOT_TOML, mends=doctor, proves=_is_moved),
    Operation("move a folder away from an entry's place", _folder_for_entry, _quarantine,
              keeps=NOT_TOML, mends=doctor, proves=_is_moved),
    Operation("give an entry its own name", _misnamed_entry, _rename, keeps=MISNAMED,
              mends=doctor, proves=_is_renamed),
    Operation("write a damaged claim anew", _damaged_claim, _rebuild, keeps=NO_CLAIM,
              mends=doctor),
    Operation("write a damaged claim anew, without a second name", _damaged_claim,
              _with_one_name(_rebuild), keeps=NO_CLAIM, mends=doctor),
    Operation("write a claim anew where a folder lies", _folder_for_claim, _rebuild,
              keeps=NOT_TOML, mends=doctor),
    Operation("give a claim its own name", _misnamed_claim, _rename_claim, mends=doctor,
              proves=_is_aside),
    Operation("move a file away that is no claim", _no_claim, _put_claim_aside,
              keeps=NOT_TOML, mends=doctor, proves=_is_aside),
    Operation("close a file to everybody else", _open_to_all, _close, mends=doctor,
              proves=_is_closed),
    Operation("remove what is left over", _littered, _remove, mends=doctor, proves=_is_as_told),
    Operation("have the index read an edited file", _edited_entry, _refresh, mends=doctor,
              proves=_is_indexed),
    Operation("tidy what is left over", _littered, lambda world, _: world.store.tidy(),
              mends=doctor, proves=_are_gone),
    Operation("examine", _damaged_entry, _examine, looks=True, mends=doctor),
)  # fmt: skip
