"""Faults of the original around files, folders and permissions (SEED.md §5, by number)."""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from tests.faults.checks import attempt, is_refused, works
from tests.faults.sides import (
    LATE_S,
    SIDES,
    Side,
    dead,
    entry,
    living,
    now_text,
)
from tests.process_helpers import (
    PATIENCE_S,
    Fork,
    as_nobody,
    flock_holder,
    in_fork,
    needs_other_user,
    public_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def _put(bad: str, path: Path) -> None:
    match bad:
        case "empty":
            path.write_text("")
        case "folder":
            path.mkdir()
        case "dangling link":
            path.symlink_to("nowhere")
        case "FIFO":
            os.mkfifo(path)
        case "not UTF-8":
            path.write_bytes(b'thread = "\xff\xfe"\n')


@pytest.mark.parametrize("bad", ["empty", "folder", "dangling link", "FIFO", "not UTF-8"])
def test_01_no_bad_file_hides_an_entry_or_blocks_another_thread(side: Side, bad: str) -> None:
    side.save(entry("agent-a", thread="other", native_actor_key="codex:thread:1"))
    _put(bad, side.agents / "bad.toml")

    def everything() -> list[object]:
        found = works(lambda: side.find("native_actor_key", "codex:thread:1"))
        return [
            [known["session_id"] for known in works(side.list)],
            found["session_id"],
            works(lambda: side.chain("agent-a")),
            works(lambda: side.try_reserve("main", lambda new: living(new, "main")))[0],
            works(side.reap_dead),
        ]

    # In a process of its own: a FIFO hangs whoever opens it to read.
    patience_s = PATIENCE_S if side.name == "ours" else LATE_S
    assert in_fork(everything, patience_s) == [["agent-a"], "agent-a", ["agent-a"], "reserved", 0]


def test_02_a_delete_waits_for_whoever_holds_the_lock(side: Side) -> None:
    side.save(entry("agent-a"))
    with flock_holder(side.agents / ".lock"):
        attempt(side, lambda: side.hurried().delete("agent-a"))
        assert (side.agents / "agent-a.toml").exists()


def test_02_an_entry_that_goes_while_it_is_listed_breaks_no_list(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    side.save(entry("agent-a"))
    side.save(entry("agent-b"))
    real_scandir = os.scandir

    class Late:
        """Another process deletes an entry when its name has been read."""

        def __init__(self, folder: str) -> None:
            self._items = list(real_scandir(folder))
            (side.agents / "agent-b.toml").unlink(missing_ok=True)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self._items)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Late)
    assert "agent-a" in [known["session_id"] for known in works(side.list)]


@pytest.fixture
def shared(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Side]]:
    with public_folder() as folder:
        yield lambda name: SIDES[name](folder / ".heddle")


def _let_all_read(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@needs_other_user
@pytest.mark.parametrize("closed", ["agents", ".heddle"])
def test_13_without_permission_nothing_is_called_absent_or_empty(
    side: Side, closed: str, shared: Callable[[str], Side]
) -> None:
    there = shared(side.name)
    there.save(entry("agent-a", native_actor_key="k"))
    _let_all_read(there.dir)
    (there.agents if closed == "agents" else there.dir).chmod(0)
    looks = (there.list, lambda: there.load("agent-a"), lambda: there.find("native_actor_key", "k"))
    assert as_nobody(lambda: [is_refused(look) for look in looks]) == [True] * 3


@needs_other_user
def test_14_a_user_who_may_only_read_sees_the_list_although_an_entry_is_stale(
    side: Side, shared: Callable[[str], Side]
) -> None:
    there = shared(side.name)
    there.save(entry("agent-a"))
    there.save(entry("agent-old", "merged", completed_at=now_text(days_ago=8)))
    _let_all_read(there.dir)
    before = sorted(path.name for path in there.agents.iterdir())
    assert as_nobody(lambda: [known["session_id"] for known in works(there.list)]) == ["agent-a"]
    assert sorted(path.name for path in there.agents.iterdir()) == before


def test_15_a_file_that_names_another_session_makes_no_reap_write_a_second_file(
    side: Side,
) -> None:
    side.save(dead("agent-inside", "main"))
    os.rename(side.agents / "agent-inside.toml", side.agents / "agent-outside.toml")
    side.reap_dead()
    assert side.reap_dead() == 0
    assert [path.name for path in side.agents.glob("*.toml")] == ["agent-outside.toml"]


@pytest.mark.parametrize("door", ["save", "load", "update_status"])
def test_17_an_id_too_long_for_a_file_name_is_the_registrys_own_error(
    side: Side, door: str
) -> None:
    long = "a" * (230 if door == "save" else 300)
    calls = {
        "save": lambda: side.save(entry(long, thread="main")),
        "load": lambda: side.load(long),
        "update_status": lambda: side.update_status(long, "complete"),
    }
    try:
        calls[door]()
    except OSError:
        raise AssertionError("an error of the operating system") from None
    except side.errors:
        return
    raise AssertionError("no error at all")


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_23_a_writer_killed_at_any_step_leaves_no_file_behind_the_next_write(
    side: Side, call: str
) -> None:
    def is_the_entrys(given: object, target: object = None) -> bool:
        if call == "fsync":  # folders are made durable too, and before it
            return stat.S_ISREG(os.fstat(given).st_mode)
        return str(target).endswith("agent-a.toml")

    def write_and_die() -> None:
        def dying(real: Callable[..., object]) -> Callable[..., object]:
            def step(*given: object, **named: object) -> object:
                if is_the_entrys(*given):
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **named)

            return step

        for name in ("fsync",) if call == "fsync" else ("replace", "rename"):
            setattr(os, name, dying(getattr(os, name)))
        side.save(entry("agent-a"))

    start = len(str(side.dir))
    with Fork(write_and_die) as writer:
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
    left = [path for path in side.dir.rglob("*") if path.is_file() and "tmp" in str(path)[start:]]
    assert left, "the writer died with a temporary file at work"
    side.save(entry("agent-b"))
    assert not [path for path in left if path.exists()]


def test_23_an_invalid_id_makes_no_folder(side: Side) -> None:
    attempt(side, lambda: side.save(entry("../x", thread="main")))
    assert not side.dir.exists()
