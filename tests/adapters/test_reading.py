"""Which way a look takes to the records: the index where it is right, else what lies there."""

from __future__ import annotations

import errno
import os
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry.adapters import lock_file, reading
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.adapters.found_records import Moved
from heddle_registry.codec import claim_to_toml, entry_to_toml
from heddle_registry.core.claim import Claim, ClaimHolder
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.transaction import Decision, Keys, PutEntry
from heddle_registry.ports.query import Query
from heddle_registry.testing.fake_host import FakeHost
from tests.process_helpers import flock_holder, until

if TYPE_CHECKING:
    from pathlib import Path

AT = Timestamp("2026-07-01T12:00:00Z")


def entry(session_id: str, **fields: Any) -> AgentEntry:
    given = {"thread": "main", "base_state": "b", "started_at": AT, **fields}
    return AgentEntry(session_id=session_id, status=AgentStatus.ACTIVE, **given)


class Folder:
    """A store, a stranger beside it, and what the store's looks cost."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = DirectoryStore(str(path / ".heddle"), FakeHost())
        self.layout = self.store.layout
        self._monkeypatch = monkeypatch
        self.scans = 0
        folders = self.store._folders
        real = folders.agents.scan

        def scan(*given: Any) -> Any:
            self.scans += 1
            return real(*given)

        monkeypatch.setattr(folders.agents, "scan", scan)
        self.write(entry("agent-a"))
        self.names()  # the first look builds the index
        self.scans = 0

    def write(self, *entries: AgentEntry) -> None:
        effects = tuple(PutEntry(one) for one in entries)
        self.store.transact(Keys(), lambda *_: Decision(effects=effects), {})
        self.scans = 0

    def stranger_writes(self, one: AgentEntry) -> None:
        """As another program does: a new file under the name, and no word to the index."""
        path = os.path.join(self.layout.agents, f"{one.session_id}.toml")
        before = os.stat(self.layout.agents).st_mtime_ns
        with open(path + "~", "wb") as file:
            file.write(entry_to_toml(one))
        os.replace(path + "~", path)
        until(lambda: self._touched(before), "the folder's time to move on")

    def _touched(self, before: int) -> bool:
        marker = os.path.join(self.layout.agents, "marker")
        with open(marker, "w"):
            pass
        os.unlink(marker)
        return os.stat(self.layout.agents).st_mtime_ns != before

    def lose_index(self) -> None:
        """Remove the index, and change the folder so that nothing that was kept of it counts."""
        self.store.index.close()
        os.unlink(self.layout.index)
        self.stranger_writes(entry("agent-a"))
        self.scans = 0

    def count_builds(self) -> list[object]:
        """Return a list that grows with each index that is built from nothing."""
        real, builds = self.store._reader._prepared, []

        def prepared() -> Any:
            builds.append(self)
            return real()

        self._monkeypatch.setattr(self.store._reader, "_prepared", prepared)
        return builds

    def count_acquires(self) -> list[object]:
        """Return a list that grows with what each taker of the lock asks for."""
        real, asked = DirectoryLock.acquire, []

        def acquire(lock: DirectoryLock, *given: Any, **named: Any) -> bool:
            asked.append((given, named))
            return real(lock, *given, **named)

        self._monkeypatch.setattr(DirectoryLock, "acquire", acquire)
        return asked

    def names(self) -> list[str]:
        return sorted(found.session_id for found in self.store.look(Query()).entries)

    @property
    def is_up_to_date(self) -> bool:
        index = self.store.index
        return index.is_at(index.folder_stamps())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


def test_while_nobody_else_writes_no_look_lists_the_folder(folder: Folder) -> None:
    assert folder.is_up_to_date
    assert folder.names() == ["agent-a"]
    assert folder.store.peek(Keys(all_active=True))[0].entries.keys() == {"agent-a"}
    assert folder.scans == 0


def test_a_look_after_a_strangers_change_is_right_and_brings_the_index_up_to_date(
    folder: Folder,
) -> None:
    folder.stranger_writes(entry("agent-b"))
    assert not folder.is_up_to_date
    builds = folder.count_builds()
    assert folder.names() == ["agent-a", "agent-b"]
    assert folder.is_up_to_date
    assert (folder.scans, builds) == (0, []), "only what changed was read"
    os.unlink(os.path.join(folder.layout.agents, "agent-a.toml"))
    assert folder.names() == ["agent-b"]


def test_a_writer_sees_a_strangers_change_and_leaves_the_index_right(folder: Folder) -> None:
    folder.stranger_writes(entry("agent-b"))
    seen = []

    def decide(loaded: Any, *_: object) -> Decision[None]:
        seen.append(set(loaded.entries))
        return Decision(effects=(PutEntry(entry("agent-c")),))

    folder.store.transact(Keys(all_active=True), decide, {})
    assert seen == [{"agent-a", "agent-b"}]
    assert folder.is_up_to_date
    assert folder.names() == ["agent-a", "agent-b", "agent-c"]


def test_what_the_index_knows_is_read_once_to_bring_it_up_to_date(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = folder.store.index.known, []

    def known() -> Any:
        asked.append(True)
        return real()

    folder.stranger_writes(entry("agent-b"))
    monkeypatch.setattr(folder.store.index, "known", known)
    assert folder.names() == ["agent-a", "agent-b"]
    assert folder.is_up_to_date
    assert len(asked) == 1


def test_who_writes_between_a_look_at_the_index_and_the_lock_is_seen(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DirectoryStore(folder.layout.root, FakeHost())
    effects = (PutEntry(entry("agent-c")),)
    real = DirectoryLock.acquire

    def acquire(lock: DirectoryLock, *given: Any, **named: Any) -> bool:
        if named == {"blocking": False}:
            monkeypatch.undo()
            # One that finds the index behind, brings it up to date, and writes.
            assert {one.session_id for one in other.look(Query()).entries} == {"agent-a", "agent-b"}
            other.transact(Keys(), lambda *_: Decision(effects=effects), {})
        return real(lock, *given, **named)

    folder.stranger_writes(entry("agent-b"))
    monkeypatch.setattr(DirectoryLock, "acquire", acquire)
    assert folder.names() == ["agent-a", "agent-b", "agent-c"]
    assert folder.is_up_to_date
    assert folder.scans == 0


def test_while_another_holds_the_lock_a_look_scans_and_waits_for_nobody(
    folder: Folder,
) -> None:
    folder.stranger_writes(entry("agent-b"))
    asked = folder.count_acquires()
    with flock_holder(os.path.join(folder.layout.agents, ".lock")):
        assert folder.names() == ["agent-a", "agent-b"]
        assert folder.scans == 1
        assert not folder.is_up_to_date
        assert asked == [((), {"blocking": False})]
    assert folder.names() == ["agent-a", "agent-b"]
    # Whoever still slept in the kernel when the wait was over wakes once more before it goes.
    until(lambda: folder.names() and folder.is_up_to_date, "the index to be brought up to date")


def test_a_writer_that_ends_while_a_look_waits_a_moment_is_waited_for(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DirectoryStore(folder.layout.root, FakeHost())
    effects = (PutEntry(entry("agent-b")),)
    stamps = folder.store.index.folder_stamps
    asked: list[object] = []

    def folder_stamps() -> Any:
        found = stamps()
        asked.append(found)
        # The first time in the gap between a rename and the index.
        return (found[0] + 1, *found[1:]) if len(asked) == 1 else found

    other.transact(Keys(), lambda *_: Decision(effects=effects), {})
    monkeypatch.setattr(folder.store.index, "folder_stamps", folder_stamps)
    monkeypatch.setattr(folder.store._reader, "_mend", lambda _: pytest.fail("nothing to mend"))
    assert folder.names() == ["agent-a", "agent-b"]
    assert len(asked) >= 2
    assert folder.scans == 0


def test_who_may_not_write_scans(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.stranger_writes(entry("agent-b"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert folder.names() == ["agent-a", "agent-b"]
    assert folder.scans == 1
    assert not folder.is_up_to_date


def test_where_a_link_stands_in_a_folders_place_a_look_changes_nothing(
    folder: Folder, tmp_path: Path
) -> None:
    folder.stranger_writes(entry("agent-b"))
    os.symlink(tmp_path, folder.layout.wait)
    assert folder.names() == ["agent-a", "agent-b"]
    assert not folder.is_up_to_date


def test_a_lost_index_is_built_anew_by_one_look_and_trusted_by_the_next(folder: Folder) -> None:
    folder.write(*(entry(f"agent-{number}") for number in range(5)))
    folder.lose_index()
    builds = folder.count_builds()
    expected = ["agent-0", "agent-1", "agent-2", "agent-3", "agent-4", "agent-a"]
    assert folder.names() == expected
    assert folder.is_up_to_date
    assert len(builds) == 1
    folder.scans = 0
    assert folder.names() == expected
    assert folder.scans == 0
    assert [n for n in os.listdir(folder.layout.root) if n.endswith(".lock")] in (
        [],
        ["index.sqlite.lock"],
    )


def test_a_writer_builds_a_small_index_anew_and_leaves_a_large_one_to_looks(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for few, is_built in ((0, False), (1, True), (2_000, True)):
        monkeypatch.setattr(reading, "_FEW", few)
        folder.lose_index()
        folder.store.transact(Keys(all_active=True), lambda *_: Decision(), {})
        assert folder.is_up_to_date is is_built
        assert folder.names() == ["agent-a"]


def test_while_another_builds_the_index_a_look_scans(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.lose_index()
    with flock_holder(folder.layout.index + ".lock"):
        assert folder.names() == ["agent-a"]
        assert folder.scans == 1
        assert not folder.is_up_to_date
        monkeypatch.setattr(time, "monotonic", lambda: 0.0)  # the machine has just booted
        monkeypatch.setattr(lock_file, "_Sleeper", lambda *_: pytest.fail("it waits"))
        assert folder.names() == ["agent-a"]


def test_who_may_not_stamp_the_folders_tries_once_and_scans(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a shared folder only its owner can.
    tried: list[object] = []

    def refuse(path: object, **_: object) -> None:
        tried.append(path)
        raise PermissionError(1, "Operation not permitted", path)

    folder.stranger_writes(entry("agent-b"))
    monkeypatch.setattr("heddle_registry.adapters.index.os.utime", refuse)
    assert folder.names() == ["agent-a", "agent-b"]
    assert (len(tried), folder.scans) == (1, 1)
    assert not folder.is_up_to_date


def test_who_could_not_bring_it_up_to_date_with_what_was_edited_in_place_says_so(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.path.join(folder.layout.agents, "agent-a.toml"), "wb") as file:
        file.write(entry_to_toml(entry("agent-a", thread="edited")))
    with folder.store.lock().held(), monkeypatch.context() as patched:
        patched.setattr(folder.store.index, "catch_up", lambda *_: False)
        assert not folder.store.catch_up()
    with folder.store.lock().held():
        assert folder.store.catch_up()
    assert [one.session_id for one in folder.store.look(Query(thread="edited")).entries] == [
        "agent-a"
    ]


def test_what_an_index_of_another_moment_knows_is_not_compared(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every row and every file of it, for nothing.
    folder.stranger_writes(entry("agent-b"))
    monkeypatch.setattr(folder.store.index, "known", lambda: pytest.fail("it is of no use"))
    assert folder.store.edited_in_place() == ()


def test_an_index_that_is_off_is_neither_asked_nor_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", "off")
    folder = Folder(tmp_path, monkeypatch)
    if not folder.store.index.is_off:
        pytest.skip("the index cannot be switched off by the environment")
    assert folder.names() == ["agent-a"]
    assert folder.scans == 1
    assert not os.path.exists(folder.layout.index)


def test_a_look_whose_records_move_under_it_begins_again_and_at_last_scans(folder: Folder) -> None:
    reader, asked = folder.store._reader, []

    def look(records: Any) -> str:
        asked.append(records)
        if len(asked) <= moves:
            raise Moved
        return "seen"

    for moves, tries in ((0, 1), (1, 2), (3, 4)):  # noqa: B007 - `look` uses it
        asked.clear()
        assert reader.read(look) == "seen"
        assert len(asked) == tries


def test_a_file_that_nobody_may_read_just_now_is_not_written_off(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = attrs.evolve(entry("agent-a"), model="changed")
    real = os.open

    def refuse(path: Any, *given: Any, **named: Any) -> int:
        if str(path).endswith("agent-a.toml"):
            raise OSError(24, "Too many open files", path)
        return real(path, *given, **named)

    for is_index_there in (True, False):
        if not is_index_there:
            folder.lose_index()
        folder.stranger_writes(changed)
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            look = folder.store.look(Query())
            assert [problem.code for problem in look.problems] == ["unavailable"]
            assert not folder.is_up_to_date
        assert folder.names() == ["agent-a"]
        assert folder.store.look(Query()).entries[0].model == "changed"


def test_a_look_into_a_folder_without_entries_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".heddle").mkdir()
    store = DirectoryStore(str(tmp_path / ".heddle"), FakeHost())
    assert store.look(Query()).entries == ()
    assert store.peek(Keys(all_active=True))[0].entries == {}
    assert os.listdir(tmp_path / ".heddle") == []


def test_whoever_wants_to_know_is_told_how_far_a_rebuild_is_and_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Folder(tmp_path, monkeypatch).lose_index()
    told: list[Any] = []

    class Bar:
        def __call__(self, done: int, whole: int) -> None:
            told.append((done, whole))

        def close(self) -> None:
            told.append("closed")

    store = DirectoryStore(str(tmp_path / ".heddle"), FakeHost(), on_rebuild=Bar)
    assert len(store.look(Query()).entries) == 1
    assert told[-1] == "closed"
    assert all(0 <= done <= whole for done, whole in told[:-1])


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("is_index_there", [True, False])
def test_a_claim_that_nobody_may_read_just_now_is_not_written_off(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, is_index_there: bool, code: int
) -> None:
    now = folder.store.peek(Keys())[1]
    holder = ClaimHolder(session_id="agent-a", granted_at=AT, renewed_at=now)
    claim = Claim(thread="main").granted(holder, 1, "/w")
    name = folder.layout.claim_name("main")
    folder.layout.make_folder(folder.layout.claims)
    path = os.path.join(folder.layout.claims, name)
    real = os.open

    def refuse(path: Any, *given: Any, **named: Any) -> int:
        if str(path).endswith(name):
            raise OSError(code, os.strerror(code), path)
        return real(path, *given, **named)

    if not is_index_there:
        folder.lose_index()
    with open(path, "wb") as file:
        file.write(claim_to_toml(claim))
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        look = folder.store.look(Query())
        assert [problem.code for problem in look.problems] == ["unavailable"]
        assert not folder.is_up_to_date
    look = folder.store.look(Query())
    assert look.problems == ()
    assert look.claims == {"main": claim}
    assert folder.is_up_to_date
    found = folder.store.peek(Keys(path="/w"))[0].claims
    assert found == {"main": claim}, "the folder's holder"


class Mended:
    """An entry that the index knows as no record, and that somebody mends without a rename."""

    def __init__(self, folder: Folder) -> None:
        self.path = os.path.join(folder.layout.agents, "agent-b.toml")
        folder.stranger_writes(entry("agent-b"))
        self.put(b"\x00 no TOML")
        folder._touched(0)
        assert folder.names() == ["agent-a"]
        assert folder.is_up_to_date
        self.put(entry_to_toml(entry("agent-b")))
        folder.scans = 0

    def put(self, data: bytes) -> None:
        with open(self.path, "r+b") as file:
            file.truncate()
            file.write(data)


def test_one_look_learns_what_was_mended_in_place_and_the_next_one_scans_no_more(
    folder: Folder,
) -> None:
    Mended(folder)
    assert folder.names() == ["agent-a", "agent-b"]
    assert folder.scans == 1
    assert folder.names() == ["agent-a", "agent-b"]
    assert folder.scans == 1


def test_a_decision_learns_what_was_mended_in_place_and_the_next_one_scans_no_more(
    folder: Folder,
) -> None:
    Mended(folder)
    seen: list[set[str]] = []

    def decide(loaded: Any, *_: object) -> Decision[None]:
        seen.append(set(loaded.entries))
        return Decision()

    for _ in range(2):
        folder.store.transact(Keys(all_active=True), decide, {})
        assert folder.scans == 1
    assert seen == [{"agent-a", "agent-b"}] * 2
    assert folder.is_up_to_date


def test_with_the_index_off_what_was_mended_in_place_is_seen_and_no_index_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path, monkeypatch)
    Mended(folder)
    folder.store.index.close()
    os.unlink(folder.layout.index)
    monkeypatch.setattr(folder.store.index, "is_off", True)
    assert folder.names() == ["agent-a", "agent-b"]
    assert not os.path.exists(folder.layout.index)


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_thorough_look_finds_an_entry_by_what_was_written_into_its_file_in_place(
    folder: Folder, *, is_busy: bool
) -> None:
    moved = attrs.evolve(entry("agent-a"), thread="moved")
    with open(os.path.join(folder.layout.agents, "agent-a.toml"), "r+b") as file:
        file.truncate()
        file.write(entry_to_toml(moved))
    query = Query(thread="moved")
    assert folder.store.look(query).entries == ()
    thorough = attrs.evolve(query, thorough=True)
    with flock_holder(folder.store.lock().path) if is_busy else nullcontext():
        assert folder.store.look(thorough).entries == (moved,)
    # Who may not wait for the lock scans, and leaves the index as it is.
    assert folder.scans == is_busy
    assert folder.store.look(query).entries == (() if is_busy else (moved,))


def test_a_thorough_look_where_nothing_was_written_in_place_needs_no_lock_and_no_scan(
    folder: Folder,
) -> None:
    with flock_holder(folder.store.lock().path):
        found = folder.store.look(Query(thorough=True)).entries
    assert [one.session_id for one in found] == ["agent-a"]
    assert folder.scans == 0


def test_whoever_made_a_new_index_waits_a_moment_for_the_lock_to_put_it_in_place(
    folder: Folder,
) -> None:
    folder.lose_index()
    asked = folder.count_acquires()
    assert folder.names() == ["agent-a"]
    assert asked == [((reading._PATIENCE_S,), {})]
    assert folder.is_up_to_date


def test_a_thorough_look_beside_somebody_who_spoils_the_index_is_still_right(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder.store.index, "known", lambda: None)
    found = folder.store.look(Query(thorough=True)).entries
    assert [one.session_id for one in found] == ["agent-a"]


def test_while_another_holds_the_lock_what_was_mended_in_place_is_found_by_scans(
    folder: Folder,
) -> None:
    Mended(folder)
    with flock_holder(folder.store.lock().path):
        for scans in (1, 2):
            assert folder.names() == ["agent-a", "agent-b"]
            assert folder.scans == scans, "the index is not written without the lock"


def test_where_no_index_can_be_made_a_writer_does_without(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.lose_index()
    monkeypatch.setattr(folder.store._reader, "_prepared", lambda: None)
    folder.write(entry("agent-b"))
    seen = folder.store.transact(
        Keys(all_active=True), lambda loaded, *_: Decision(answer=set(loaded.entries)), {}
    )
    assert isinstance(seen, Decision)
    assert seen.answer == {"agent-a", "agent-b"}
    assert not os.path.exists(folder.layout.index)


@pytest.mark.parametrize("session_id", ["agent-a", "agent-b"])
def test_what_is_written_while_a_thorough_look_goes_on_is_in_it_whole_or_not_at_all(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, session_id: str
) -> None:
    other = DirectoryStore(folder.layout.root, FakeHost())
    real, new = folder.store._reader._looked_over, entry(session_id, model="new")

    def looked_over() -> Any:
        found = real()
        other.transact(Keys(), lambda *_: Decision(effects=(PutEntry(new),)), {})
        return found

    monkeypatch.setattr(folder.store._reader, "_looked_over", looked_over)
    found = folder.store.look(Query(thorough=True)).entries
    monkeypatch.undo()
    assert new in found
    assert set(folder.store.look(Query()).entries) == set(found)
