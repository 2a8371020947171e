"""The index has a row for each file that is there, and none for one that is gone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from heddle_registry.adapters import writing
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.index import Index
from heddle_registry.adapters.record_files import RecordFiles
from heddle_registry.codec import claim_to_toml, entry_to_toml
from heddle_registry.core.claim import Claim
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
from tests.process_helpers import until

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
        assert len(os.listdir("/dev/fd")) == before
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


@pytest.mark.parametrize("why", ["another moment", "a folder whose time was rounded"])
def test_a_change_that_cannot_be_recorded_leaves_no_transaction_open(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    before = (1, 1) if why == "another moment" else store.index.folder_stamps()
    monkeypatch.setattr(store.index, "_stamp", lambda *_: False)
    store.index.record(before, {"agent-z.toml": entry("agent-z")}, {}, lambda _: None)
    other = sqlite3.connect(store.layout.index, timeout=0)
    other.execute("BEGIN IMMEDIATE")
    other.rollback()
    other.close()
    assert "agent-z.toml" not in rows(store)[0]


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
    for number in range(100):
        index.keep(stamps, number, [number])
    kept = [number for number in range(100) if index.kept(stamps, number) is not None]
    assert kept[-2:] == [98, 99]
    assert len(kept) <= 32


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
