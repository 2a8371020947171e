"""The index has a row for each file that is there, and none for one that is gone."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from heddle_registry.adapters import index_building, record_files, writing
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.index import Index
from heddle_registry.adapters.record_files import RecordFile, RecordFiles
from heddle_registry.codec import claim_to_toml, entry_to_toml
from heddle_registry.core.claim import Claim, ClaimHolder
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.transaction import (
    Decision,
    Effect,
    Keys,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from heddle_registry.errors import StoreUnavailable
from heddle_registry.ports.query import Query
from heddle_registry.testing.fake_host import FakeHost
from tests.process_helpers import in_fork, until

AT = Timestamp("2026-07-01T12:00:00Z")


def entry(session_id: str, thread: str = "main") -> AgentEntry:
    return AgentEntry(
        session_id=session_id, thread=thread, base_state="b", started_at=AT,
        status=AgentStatus.ACTIVE,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    made = DirectoryStore(str(tmp_path / ".heddle"), FakeHost())
    write(
        made, PutEntry(entry("agent-a")), PutEntry(entry("agent-b")), PutClaim(Claim(thread="main"))
    )
    made.look(Query())
    return made


def write(store: DirectoryStore, *effects: Effect) -> None:
    store.transact(Keys(), lambda *_: Decision(effects=effects), {})


def rows(store: DirectoryStore) -> tuple[set[str], set[str]]:
    """Return the names that the index knows, of entries and of claims."""
    known = store.index.known()
    assert known is not None
    return set(known.entries), set(known.claims)


def files(store: DirectoryStore) -> tuple[set[str], set[str]]:
    folders = (store.layout.agents, store.layout.claims)
    entries, claims = ({n for n in os.listdir(f) if n.endswith(".toml")} for f in folders)
    return entries, claims


def moved_on(folder: str) -> None:
    """Let the folder's time be another than any it had: a stranger's change shows by it."""
    before = os.stat(folder).st_mtime_ns

    def touch() -> bool:
        with open(os.path.join(folder, "marker"), "w"):
            pass
        os.unlink(os.path.join(folder, "marker"))
        return os.stat(folder).st_mtime_ns != before

    until(touch, "the folder's time to move on")


def test_a_row_comes_and_goes_with_its_file(store: DirectoryStore) -> None:
    assert rows(store) == files(store)
    write(
        store, RemoveEntry("agent-a"), PutEntry(entry("agent-c")), PutClaim(Claim(thread="other"))
    )
    assert rows(store) == files(store)
    assert "agent-a.toml" not in rows(store)[0]
    stamps = store.index.folder_stamps()
    assert store.index.is_at(stamps)


def test_a_row_comes_and_goes_with_a_file_that_a_stranger_made_or_removed(
    store: DirectoryStore,
) -> None:
    layout = store.layout
    os.unlink(os.path.join(layout.agents, "agent-a.toml"))
    os.unlink(os.path.join(layout.claims, layout.claim_name("main")))
    with open(os.path.join(layout.agents, "agent-d.toml"), "wb") as file:
        file.write(entry_to_toml(entry("agent-d", "strange")))
    with open(os.path.join(layout.claims, layout.claim_name("strange")), "wb") as file:
        file.write(claim_to_toml(Claim(thread="strange")))
    for folder in (layout.agents, layout.claims):
        moved_on(folder)
    assert {found.session_id for found in store.look(Query()).entries} == {"agent-b", "agent-d"}
    assert rows(store) == files(store)
    found = store.index.entry_rows(store.index.folder_stamps(), "thread = 'strange'")
    assert found is not None
    assert [row.name for row in found] == ["agent-d.toml"]


def test_an_index_of_another_layout_is_left_to_whoever_knows_it_and_not_kept_open(
    store: DirectoryStore,
) -> None:
    store.index.close()
    connection = sqlite3.connect(store.layout.index)
    connection.execute("PRAGMA user_version = 9999")
    connection.commit()
    connection.close()
    moved_on(store.layout.agents)
    before = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else None
    for _ in range(3):
        assert store.index.known() is None
    if before is not None:
        assert len(os.listdir("/dev/fd")) <= before
    assert len(store.look(Query()).entries) == 2


def test_what_was_asked_once_is_not_asked_again_until_something_moves(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = store.index.folder_stamps()
    assert store.index.is_at(stamps)
    with monkeypatch.context() as patched:
        patched.setattr(store.index, "_read", lambda *_: pytest.fail("it is known"))
        assert store.index.is_at(stamps)
    assert not store.index.is_at((1, 1))


def test_an_answer_is_kept_for_its_own_moment_only(store: DirectoryStore) -> None:
    stamps = store.index.folder_stamps()
    assert store.index.is_at(stamps)
    store.index.keep((1, 1), "asked", ["of another moment"])
    assert store.index.kept(stamps, "asked") is None
    store.index.keep(stamps, "asked", ["now"])
    assert store.index.kept(stamps, "asked") == ["now"]
    assert store.index.kept((1, 1), "asked") is None


def test_an_answer_is_not_kept_for_the_moment_that_another_os_thread_moved_on_to(
    store: DirectoryStore,
) -> None:
    index, before = store.index, store.index.folder_stamps()
    assert index.is_at(before)

    class MovesOn(tuple[int, int]):
        """Stamps that are still being compared when another OS thread looks."""

        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            write(store, PutEntry(entry("agent-c")))
            assert index.is_at(index.folder_stamps())
            return tuple(self) == other

        __hash__ = tuple.__hash__

    index.keep(MovesOn(before), "asked", ["of before"])
    now = index.folder_stamps()
    assert now != before
    assert index.kept(now, "asked") is None


@pytest.mark.parametrize("why", ["another moment", "a full disk", "Ctrl-C"])
def test_a_change_that_cannot_be_recorded_leaves_no_transaction_open(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt if why == "Ctrl-C" else OSError(28, "No space left on device")

    before = store.index.folder_stamps()
    if why == "another moment":
        before = (1, 1)
    else:
        monkeypatch.setattr(store.index, "_stamp", fail)
    with suppress(KeyboardInterrupt):
        store.index.record(before, {"agent-z.toml": entry("agent-z")}, {}, lambda _: None)
    other = sqlite3.connect(store.layout.index, timeout=0)
    other.execute("BEGIN IMMEDIATE")
    other.rollback()
    other.close()
    assert "agent-z.toml" not in rows(store)[0]


@pytest.mark.parametrize("by", ["a writer", "a reader that catches up"])
def test_who_looks_while_a_change_is_noted_sees_none_of_it(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    seen: list[set[str]] = []
    real = Index._stamp

    def look_first(self: Index, *given: Any) -> None:
        other = Index(store.layout, store.index.boot_id)
        known = other.known()
        other.close()
        assert known is not None
        seen.append(set(known.entries))
        real(self, *given)

    if by == "a writer":
        monkeypatch.setattr(Index, "_stamp", look_first)
        write(store, PutEntry(entry("agent-c")))
    else:
        with open(os.path.join(store.layout.agents, "agent-c.toml"), "wb") as file:
            file.write(entry_to_toml(entry("agent-c")))
        moved_on(store.layout.agents)
        monkeypatch.setattr(Index, "_stamp", look_first)
        store.look(Query())
    assert seen == [{"agent-a.toml", "agent-b.toml"}]
    assert "agent-c.toml" in rows(store)[0]
    assert store.index.is_at(store.index.folder_stamps())


def test_the_row_of_a_claim_that_was_taken_back_goes_too(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = writing.replace_file

    def fail_for_entries(folder: str, *given: Any, **named: Any) -> None:
        if folder == store.layout.agents:
            raise StoreUnavailable(folder, "it is full")
        real(folder, *given, **named)

    monkeypatch.setattr(writing, "replace_file", fail_for_entries)
    with pytest.raises(StoreUnavailable):
        write(store, PutClaim(Claim(thread="new")), PutEntry(entry("agent-c")))
    assert rows(store) == files(store)


def test_an_older_copy_that_comes_while_the_index_is_brought_up_to_date_is_not_completed(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its rows are older than those of which was asked what had changed.
    older = Path(store.layout.root) / "older"
    shutil.copy(store.layout.index, older)
    write(store, PutEntry(attrs.evolve(entry("agent-a"), thread="moved", model="new")))
    assert [found.session_id for found in store.look(Query(thread="moved")).entries] == ["agent-a"]
    moved_on(store.layout.agents)
    real = RecordFiles.changed_since

    def changed_since(self: RecordFiles[Any], known: Any) -> Any:
        if older.exists():
            older.rename(store.layout.index)
        return real(self, known)

    monkeypatch.setattr(RecordFiles, "changed_since", changed_since)
    for _ in range(2):
        found = store.look(Query(thread="moved")).entries
        assert [entry.session_id for entry in found] == ["agent-a"]
    assert not older.exists()


def test_of_the_answers_to_many_questions_the_last_few_are_kept(store: DirectoryStore) -> None:
    index = store.index
    stamps = index.folder_stamps()
    assert index.is_at(stamps)
    most = 0
    for number in range(100):
        index.keep(stamps, number, [number])
        kept = [asked for asked in range(100) if index.kept(stamps, asked) is not None]
        assert kept[-1] == number
        most = max(most, len(kept))
    assert most == 32


def test_a_listing_that_is_asked_for_again_asks_the_index_nothing(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [PutEntry(entry(f"agent-m{number}")) for number in range(20)]
    write(store, *many)
    for _ in range(2):
        found = store.look(Query())
    monkeypatch.setattr(store.index, "_read", lambda *_: pytest.fail("it is known"))
    again = store.look(Query())
    assert (again.entries, again.claims) == (found.entries, found.claims)
    assert len(again.entries) == 22


descriptors = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="descriptors cannot be looked at here"
)


def open_files(path: str) -> list[str]:
    """Return this process's descriptors of a file, be it removed since or not."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)") == path:
                found.append(fd)
    return found


@descriptors
@pytest.mark.parametrize("is_linked", [False, True])
def test_an_index_that_somebody_removed_is_let_go(
    store: DirectoryStore, *, is_linked: bool
) -> None:
    assert store.index.known() is not None
    assert len(open_files(store.layout.index)) == 1
    os.unlink(store.layout.index)
    if is_linked:
        os.symlink("elsewhere", store.layout.index)
    assert store.index.known() is None
    assert open_files(store.layout.index) == []


@descriptors
def test_an_index_that_nobody_needs_any_more_is_let_go(store: DirectoryStore) -> None:
    store.index.close()
    for _ in range(3):
        assert Index(store.layout, store.index.boot_id).known() is not None
    assert open_files(store.layout.index) == []


@descriptors
@pytest.mark.parametrize("how", ["begins anew", "has no use for it"])
def test_a_forked_child_never_closes_its_parents_connection(
    store: DirectoryStore, how: str
) -> None:
    # SQLite: to close it there may take the parent's locks away.
    store.index.close()
    mine: list[Index] = [Index(store.layout, store.index.boot_id)]
    assert mine[0].known() is not None
    (opened,) = open_files(store.layout.index)

    def in_child() -> tuple[list[str], bool]:
        if how == "begins anew":
            mine[0].forget_parent()
            mine[0].close()
            knows = mine[0].known() is not None
            mine[0].close()
        else:
            mine.clear()
            knows = True
        gc.collect()
        return open_files(store.layout.index), knows

    assert in_fork(in_child) == ([opened], True)
    assert mine[0].known() is not None


@pytest.mark.parametrize("named", ["0", "off", "NO"])
def test_an_index_that_is_switched_off_is_neither_asked_nor_written(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    store.index.close()
    before = Path(store.layout.index).read_bytes()
    monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", named)
    off = Index(store.layout, store.index.boot_id)
    assert off.known() is None
    assert not off.is_at(off.folder_stamps())
    off.record(off.folder_stamps(), {"agent-a.toml": None}, {}, lambda _: None)
    assert Path(store.layout.index).read_bytes() == before
    monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", "1")
    assert Index(store.layout, store.index.boot_id).known() is not None


def held_by(session_id: str) -> Claim:
    holder = ClaimHolder(session_id=session_id, granted_at=AT, renewed_at=FakeHost().now())
    return Claim(thread="main").granted(holder, 1, None)


def claims_of(store: DirectoryStore) -> dict[str, list[str] | None]:
    """Return which claims the index says each session to have or to have had."""
    stamps = store.index.folder_stamps()
    return {
        name: store.index.claim_names_of(stamps, name)
        for name in ("agent-a", "agent-b")
    }  # fmt: skip


@pytest.mark.parametrize("by", ["a writer", "a stranger"])
def test_a_claim_that_forgot_a_session_is_no_longer_found_by_it(
    store: DirectoryStore, by: str
) -> None:
    write(store, PutClaim(held_by("agent-a")))
    name = store.layout.claim_name("main")
    assert claims_of(store) == {"agent-a": [name], "agent-b": []}
    if by == "a writer":
        write(store, PutClaim(held_by("agent-b")))
    else:
        path = Path(store.layout.claims, name)
        path.with_name("fresh").write_bytes(claim_to_toml(held_by("agent-b")))
        path.with_name("fresh").rename(path)
        store.look(Query())
    assert claims_of(store) == {"agent-a": [], "agent-b": [name]}


@pytest.mark.parametrize("by", ["a writer", "a stranger", "nobody yet"])
def test_of_a_claim_that_is_gone_nothing_is_found(store: DirectoryStore, by: str) -> None:
    write(store, PutClaim(held_by("agent-a")))
    name = store.layout.claim_name("main")
    before = store.index.folder_stamps()
    os.unlink(os.path.join(store.layout.claims, name))
    if by == "a stranger":
        moved_on(store.layout.claims)
        store.look(Query())
    else:
        claims = {name: None if by == "a writer" else held_by("agent-a")}
        store.index.record(before, {}, claims, lambda _: None)
    assert claims_of(store) == {"agent-a": [], "agent-b": []}
    assert rows(store)[1] == set()


def test_an_index_of_another_boot_is_not_completed_but_made_anew(store: DirectoryStore) -> None:
    # A power loss may have torn in it what no stamp shows.
    store.index.close()
    connection = sqlite3.connect(store.layout.index)
    connection.execute("UPDATE meta SET boot = 'another'")
    connection.execute("UPDATE entries SET thread = 'torn'")
    connection.commit()
    connection.close()
    moved_on(store.layout.agents)
    assert store.index.known() is None
    assert {found.thread for found in store.look(Query()).entries} == {"main"}
    assert rows(store) == files(store)


@descriptors
def test_an_index_is_closed_before_another_takes_its_place(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows replaces no file that is open.
    assert store.index.known() is not None
    store.index.boot_id = lambda: "the next boot"
    assert store.index.known() is None
    moved_on(store.layout.agents)
    real = os.replace

    def replace(old: str, new: str) -> None:
        if new == store.layout.index and open_files(new):
            raise PermissionError(13, "somebody has it open")
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    store.look(Query())
    assert rows(store) == files(store)


def test_a_journal_of_a_killed_writer_is_not_rolled_back_into_a_new_index(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It belongs to the old one, whose pages say something else.
    store.index.close()
    journal = Path(store.layout.index + "-journal")
    connection = sqlite3.connect(store.layout.index, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN")
    connection.execute("UPDATE entries SET thread = 'torn'")
    connection.execute("UPDATE meta SET boot = 'another'")
    left = journal.read_bytes()
    connection.close()
    os.unlink(store.layout.index)
    journal.write_bytes(left)
    for number in range(100):
        path = Path(store.layout.agents, f"agent-n{number}.toml")
        path.write_bytes(entry_to_toml(entry(f"agent-n{number}")))
    built: list[object] = []
    real = index_building.build_index
    monkeypatch.setattr(
        index_building, "build_index", lambda *given: built.append(given) or real(*given)
    )
    assert len(store.look(Query()).entries) == 102
    assert len(built) == 1, "the first one was torn by it"
    assert rows(store) == files(store)


@pytest.mark.parametrize("why", ["another index", "no stamp", ""])
def test_whoever_brings_the_index_up_to_date_is_told_whether_that_worked(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    # An edit in place moves no stamp: the index would look right by those.
    known = store.index.known()
    assert known is not None
    if why == "another index":
        known = known._replace(meta=("another boot", *known.meta[1:]))
    elif why == "no stamp":
        monkeypatch.setattr(os, "utime", lambda *_, **__: os.stat("/nowhere"))
    assert store.index.catch_up(known, [], [], ["agent-a.toml"], []) is (not why)
    monkeypatch.undo()
    assert ("agent-a.toml" in rows(store)[0]) is bool(why)


def test_an_index_is_asked_by_every_os_thread(store: DirectoryStore) -> None:
    assert store.index.known() is not None
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(store.index.known() is not None))
    thread.start()
    thread.join()
    assert found == [True]


def test_an_index_that_cannot_be_opened_is_as_good_as_none(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    store.index.close()
    monkeypatch.setattr("heddle_registry.adapters.index.open_database", refuse)
    assert store.index.known() is None
    moved_on(store.layout.agents)
    assert len(store.look(Query()).entries) == 2


def test_an_index_that_vanishes_at_any_moment_fails_nobody(store: DirectoryStore) -> None:
    known = store.index.known()
    assert known is not None
    os.unlink(store.layout.index)
    assert not store.index.catch_up(known, [], [], ["agent-a.toml"], [])
    store.index.record(store.index.folder_stamps(), {"agent-a.toml": None}, {}, lambda _: None)
    assert store.index.known() is None


@pytest.mark.parametrize("is_open", [False, True])
def test_a_link_in_its_place_is_not_followed_even_to_an_index(
    store: DirectoryStore, *, is_open: bool
) -> None:
    assert store.index.known() is not None
    if not is_open:
        store.index.close()
    path = Path(store.layout.index)
    elsewhere = path.rename(path.with_name("elsewhere.sqlite"))
    path.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    store.index.record(store.index.folder_stamps(), {"agent-a.toml": None}, {}, lambda _: None)
    assert elsewhere.read_bytes() == before
    assert store.index.known() is None


def test_an_index_that_another_process_made_anew_is_the_one_that_is_written(
    store: DirectoryStore,
) -> None:
    assert store.index.known() is not None
    path = Path(store.layout.index)
    Path(shutil.copy(path, path.with_name("fresh"))).rename(path)
    write(store, PutEntry(entry("agent-c")))
    other = Index(store.layout, store.index.boot_id)
    known = other.known()
    other.close()
    assert known is not None
    assert "agent-c.toml" in known.entries


TICK_NS = 60 * 10**9


class Coarse:
    """A store on a file system that may hide a change within a tick of another."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index_building, "tick_of", lambda _: TICK_NS)
        # Or what is remembered would be believed sooner than a row, and be put in its place.
        monkeypatch.setattr(record_files, "CLOCK_TICK_NS", TICK_NS)
        self.store = DirectoryStore(str(path / ".heddle"), FakeHost())
        self.ahead_ns = 0
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + self.ahead_ns)

    def unsettled(self) -> list[str]:
        index = self.store.index
        found = index.entry_rows(index.folder_stamps(), "is_record = 1")
        assert found is not None
        assert index.tick_ns == TICK_NS
        return sorted(row.name for row in found if not row.makes_record(index.tick_ns))

    def names(self) -> list[str]:
        return sorted(rows(self.store)[0])


@pytest.fixture
def coarse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Coarse:
    made = Coarse(tmp_path, monkeypatch)
    write(made.store, *(PutEntry(entry(f"agent-m{number:02}")) for number in range(10)))
    made.store.look(Query())
    write(made.store, *(PutEntry(entry(f"agent-m{number:02}")) for number in range(10)))
    return made


def test_where_the_clock_is_coarse_later_writers_settle_a_few_young_rows_each(
    coarse: Coarse,
) -> None:
    young = [f"agent-m{number:02}.toml" for number in range(10)]
    assert coarse.unsettled() == young
    write(coarse.store, PutClaim(Claim(thread="other")))
    assert coarse.unsettled() == young, "the tick is not over: another look would prove nothing"
    coarse.ahead_ns = 1_000 * TICK_NS
    write(coarse.store, PutClaim(Claim(thread="more")))
    assert len(coarse.unsettled()) == 2
    write(coarse.store, PutClaim(Claim(thread="most")))
    assert coarse.unsettled() == []
    assert coarse.names() == young


def test_where_each_change_has_a_time_of_its_own_no_row_is_looked_for_to_settle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At ten thousand entries it would cost a writer more than the change itself.
    monkeypatch.setattr(index_building, "tick_of", lambda _: 0)
    monkeypatch.setattr(Index, "_settle", lambda *_: pytest.fail("nothing to settle"))
    store = DirectoryStore(str(tmp_path / ".heddle"), FakeHost())
    write(store, PutEntry(entry("agent-a")))
    store.look(Query())
    write(store, PutEntry(entry("agent-b")))
    assert rows(store)[0] == {"agent-a.toml", "agent-b.toml"}


@pytest.mark.parametrize("tick_ns", [0, TICK_NS])
def test_no_change_of_the_index_goes_through_all_rows_of_a_table(
    tmp_path: Path, tick_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Claims are never pruned, and thousands of entries may be there.
    monkeypatch.setattr(index_building, "tick_of", lambda _: tick_ns)
    store = DirectoryStore(str(tmp_path / ".heddle"), FakeHost())
    write(store, PutEntry(entry("agent-a")))
    store.look(Query())
    asked: list[str] = []
    connection = store.index._connect()
    assert connection is not None
    connection.set_trace_callback(asked.append)
    write(store, PutEntry(entry("agent-b")), PutClaim(held_by("agent-b")))
    write(store, PutClaim(held_by("agent-a")), RemoveEntry("agent-b"))
    store.index.record(
        store.index.folder_stamps(), {}, {store.layout.claim_name("main"): None}, lambda _: None
    )
    store.index.highest_fence(store.index.folder_stamps(), "main")
    connection.set_trace_callback(None)
    asked = [query for query in asked if query not in {"BEGIN", "BEGIN IMMEDIATE", "COMMIT"}]
    assert {query.split()[0] for query in asked} == {"SELECT", "INSERT", "DELETE", "UPDATE"}
    plans = {
        row[3]: query
        for query in asked
        for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")
    }
    scans = {plan: query for plan, query in plans.items() if plan.startswith("SCAN")}
    assert set(scans) <= {"SCAN meta", "SCAN CONSTANT ROW"}, scans  # of one row each


def test_only_what_is_no_record_is_looked_at_as_a_problem(store: DirectoryStore) -> None:
    write(store, PutClaim(held_by("agent-a")))
    stamps = store.index.folder_stamps()
    assert store.index.names(stamps, "entries", "is_record = 0") == []
    assert store.index.names(stamps, "claims", "is_record = 0") == []


def test_a_young_row_whose_file_cannot_be_read_is_left_as_it_is(coarse: Coarse) -> None:
    coarse.ahead_ns = 1_000 * TICK_NS
    index = coarse.store.index
    closed: RecordFile[AgentEntry] = RecordFile("agent-m00.toml", "agents/agent-m00.toml", 0)
    closed.error = StoreUnavailable(closed.path, "no permission", errno=13)
    index.record(index.folder_stamps(), {}, {}, lambda _: closed)
    assert len(coarse.unsettled()) == 10
    assert index.names_of_no_records(index.folder_stamps(), "entries") == []


def test_a_young_row_whose_file_is_gone_is_left_to_whoever_finds_it_gone(coarse: Coarse) -> None:
    # Removed by a stranger after the folders were compared: no writer may fail by it.
    coarse.ahead_ns = 1_000 * TICK_NS
    index = coarse.store.index
    index.record(index.folder_stamps(), {"agent-m00.toml": None}, {}, lambda _: None)
    assert len(coarse.unsettled()) == 9
    assert index.is_at(index.folder_stamps())


@pytest.mark.parametrize("fails", ["the move", "the clock"])
def test_an_index_that_cannot_be_put_in_place_is_not_made_twice_for_one_look(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    store.index.close()
    os.unlink(store.layout.index)
    moved_on(store.layout.agents)
    built: list[object] = []
    real = index_building.build_index

    def build(*given: Any) -> str | None:
        built.append(given)
        return real(*given)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(index_building, "build_index", build)
    if fails == "the move":
        monkeypatch.setattr("heddle_registry.adapters.index.os.replace", refuse)
    else:
        monkeypatch.setattr("heddle_registry.adapters.index.os.utime", refuse)
    assert len(store.look(Query()).entries) == 2
    assert len(built) == 1
    assert not os.path.exists(store.layout.index + ".building")


def test_a_file_whose_name_is_no_text_stays_a_problem_and_is_not_brought_up_to_date_for_ever(
    store: DirectoryStore,
) -> None:
    path = os.path.join(os.fsencode(store.layout.agents), b"\xff.toml")
    try:
        with open(path, "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system has no such names")
    for number in range(3):
        with open(os.path.join(store.layout.agents, f"agent-n{number}.toml"), "wb") as other:
            other.write(entry_to_toml(entry(f"agent-n{number}")))
        moved_on(store.layout.agents)
        assert [problem.code for problem in store.look(Query()).problems] == ["damaged"]
        assert store.edited_in_place() == ()
    os.unlink(path)
    moved_on(store.layout.agents)
    assert store.look(Query()).problems == ()
