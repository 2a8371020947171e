"""The index never says anything that the files do not, whoever changed them and whenever."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from heddle_registry import AgentRegistry, AgentStatus, Query, Timestamp
from heddle_registry.adapters import directory, record_files, snapshot
from heddle_registry.adapters.index_tables import new_stamp, tick_of
from heddle_registry.adapters.layout import thread_hash
from heddle_registry.adapters.record_files import CLOCK_TICK_NS
from heddle_registry.codec import entry_to_toml
from heddle_registry.core.limits import MAX_SWEEP
from heddle_registry.core.transaction import Keys
from tests.process_helpers import ROOT, in_fork, python

SEED = ROOT / "tests" / "seed_registry.py"


def entry_of(registry, session_id, **fields):
    from heddle_registry import AgentEntry

    return AgentEntry(
        **{
            "session_id": session_id,
            "thread": f"f/{session_id}",
            "base_state": "b",
            "started_at": registry.host.now().at,
            "status": AgentStatus.ACTIVE,
            **fields,
        }
    )


@pytest.fixture
def heddle(tmp_path):
    return tmp_path / ".heddle"


@pytest.fixture
def registry(heddle):
    registry = AgentRegistry(heddle)
    for number in range(30):
        registry.save(
            entry_of(registry, f"agent-{number:02d}", native_actor_key=f"codex:thread:{number}")
        )
    assert {entry.session_id for entry in registry.list()} == {
        f"agent-{number:02d}" for number in range(30)
    }
    assert (heddle / "index.sqlite").exists()
    return registry


def stranger(heddle, *words):
    """Do something as a program that knows no index and no claims, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(SEED), str(heddle), *words], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def by_scan(heddle):
    """Return what a process without any index finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEDDLE_REGISTRY_INDEX", "off")
        patch.setattr(directory, "_shared", {})
        return AgentRegistry(heddle).list()


def served_by_index(monkeypatch):
    """Count the scans from here on."""
    scans = []
    scan = snapshot.take_snapshot
    monkeypatch.setattr(
        snapshot, "take_snapshot", lambda folders: (scans.append(1), scan(folders))[1]
    )
    return scans


def test_a_look_up_reads_no_other_file(registry, monkeypatch):
    scans = served_by_index(monkeypatch)
    found = registry.find_active_by_native_actor_key("codex:thread:7")
    assert found.session_id == "agent-07"
    assert scans == []


def test_a_fresh_process_finds_by_the_index_what_a_scan_finds(registry, heddle, monkeypatch):
    monkeypatch.setattr(directory, "_shared", {})
    scans = served_by_index(monkeypatch)
    assert AgentRegistry(heddle).list() == by_scan(heddle)[:]
    assert len(scans) == 1  # the comparison's own


@pytest.mark.parametrize(
    "change",
    ["update_status", "touch", "delete", "save", "edit in place", "replace in place", "remove"],
)
def test_the_next_question_sees_what_a_stranger_did(registry, heddle, change):
    path = heddle / "agents" / "agent-07.toml"
    if change == "update_status":
        stranger(heddle, "update_status", "agent-07", "complete")
    elif change == "touch":
        stranger(heddle, "touch", "agent-07")
    elif change == "delete":
        stranger(heddle, "delete", "agent-07")
    elif change == "save":
        new = {
            "session_id": "agent-new", "thread": "f/new", "base_state": "b", "status": "active",
            "started_at": "2026-07-01T12:00:00Z", "native_actor_key": "codex:thread:new",
        }  # fmt: skip
        stranger(heddle, "save", json.dumps(new))
        assert registry.find_active_by_native_actor_key("codex:thread:new") is not None
    elif change == "edit in place":
        text = path.read_bytes().replace(b'"f/agent-07"', b'"f/agent-77"')
        with path.open("r+b") as file:
            file.write(text)
        assert registry.load("agent-07").thread == "f/agent-77"
    elif change == "replace in place":
        path.write_bytes(path.read_bytes().replace(b'base_state = "b"', b'base_state = "c"'))
    else:
        path.unlink()
    assert registry.list() == by_scan(heddle)
    found = registry.find_active_by_native_actor_key("codex:thread:7")
    expected = [
        e for e in by_scan(heddle) if e.native_actor_key == "codex:thread:7" and e.is_active
    ]
    assert found == (expected[0] if expected else None)


@pytest.mark.parametrize("change", ["added", "removed", "swapped", "damaged"])
def test_the_next_process_sees_what_a_stranger_did_to_the_claims(
    registry, heddle, tmp_path, change, monkeypatch
):
    folders = [str(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        os.mkdir(folder)
    with registry.reserve("main", path=folders[0]), registry.reserve("other"):
        path = heddle / "claims" / f"{thread_hash('main')}.toml"
        third = path.with_name(f"{thread_hash('third')}.toml")
        kept = path.read_bytes()
        elsewhere = kept.replace(folders[0].encode(), folders[1].encode())
        registry.list()
        assert registry.store.index.is_at(registry.store.index.folder_stamps())
        beside = tmp_path / "beside"
        if change == "added":
            beside.write_bytes(elsewhere.replace(b'"main"', b'"third"'))
            beside.rename(third)
        elif change == "swapped":
            beside.write_bytes(elsewhere)
            beside.rename(path)
        elif change == "damaged":
            third.write_bytes(b"no claim")
        else:
            path.unlink()

        def told():
            monkeypatch.setattr(directory, "_shared", {})
            store = AgentRegistry(heddle).store
            look = store.look(Query())
            naming = [
                [claim.thread for claim in loaded.claims.values() if claim.path == folder]
                for folder in folders
                for loaded, _ in [store.peek(Keys(path=folder))]
            ]
            return set(look.claims), [problem.code for problem in look.problems], naming

        assert (
            told()
            == {
                "added": ({"main", "other"}, [], [["main"], ["third"]]),
                "removed": ({"other"}, [], [[], []]),
                "swapped": ({"main", "other"}, [], [[], ["main"]]),
                "damaged": ({"main", "other"}, ["damaged"], [["main"], []]),
            }[change]
        )
        path.write_bytes(kept)


def test_the_journal_of_a_lost_index_is_not_played_back_into_the_next(
    registry, heddle, monkeypatch
):
    def lose():
        registry.store.index.close()
        (heddle / "index.sqlite").unlink()
        monkeypatch.setattr(directory, "_shared", {})
        return {entry.base_state for entry in AgentRegistry(heddle).list()}

    assert lose() == {"b"}  # built at once, as the next will be: page for page the same
    with closing(sqlite3.connect(heddle / "index.sqlite", isolation_level=None)) as index:
        change = "UPDATE entries SET base_state = ?, read_at = ctime + 1000000000"
        index.execute(change, ("x",))
        index.execute("PRAGMA synchronous = OFF")
        index.execute("BEGIN")
        index.execute(change, ("y",))
        # What is there when this process is killed here: the pages as they were before.
        journal = (heddle / "index.sqlite-journal").read_bytes()
        index.execute("ROLLBACK")
    monkeypatch.setattr(directory, "_shared", {})
    assert {entry.base_state for entry in AgentRegistry(heddle).list()} == {"x"}
    (heddle / "index.sqlite-journal").write_bytes(journal)
    assert lose() == {"b"}
    assert {entry.base_state for entry in AgentRegistry(heddle).list()} == {"b"}


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o600), (0o755, 0o640), (0o770, 0o660)])
def test_the_index_is_readable_for_whom_the_entries_are(registry, heddle, folder, file):
    registry.store.index.close()
    (heddle / "index.sqlite").unlink()
    heddle.chmod(folder)
    before = os.umask(0o022)
    try:
        (heddle / "agents" / "agent-00.toml").touch()  # nothing that is remembered counts
        (heddle / "agents" / "agent-01.toml").unlink()
        registry.list()
    finally:
        os.umask(before)
    assert (heddle / "index.sqlite").stat().st_mode & 0o777 == file
    for beside in heddle.glob("index.sqlite-*"):
        assert beside.stat().st_mode & 0o777 & ~file == 0


def test_changes_within_one_clock_tick_are_all_seen(registry, heddle):
    path = heddle / "agents" / "agent-03.toml"
    stored = registry.load("agent-03")
    for number in range(200):
        entry = attrs.evolve(stored, model=f"model-{number:03d}")
        temp = path.with_suffix(".new")
        temp.write_bytes(entry_to_toml(entry))
        temp.replace(path)
        assert registry.load("agent-03").model == f"model-{number:03d}"
        [found] = registry.look(Query(native_actor_key="codex:thread:3")).entries
        assert found.model == f"model-{number:03d}"


@pytest.mark.parametrize("name", ["agents", "claims"])
def test_a_change_in_the_same_clock_tick_as_the_index_is_seen(registry, heddle, name, monkeypatch):
    with registry.reserve("main"):
        pass
    assert registry.store.index.is_at(registry.store.index.folder_stamps())
    folder = heddle / name
    tick = folder.stat().st_ctime_ns
    (folder / "bad.toml").write_bytes(b"no record")
    # As on a kernel whose clock has not moved since the index was written.
    os.utime(folder, ns=(tick, tick))
    monkeypatch.setattr(directory, "_shared", {})
    assert [Path(problem.path).name for problem in AgentRegistry(heddle).look().problems] == [
        "bad.toml"
    ]


def test_no_clock_gives_the_stamp_of_an_index(monkeypatch):
    step = 2**30
    now = 1_700_000_000 * 10**9 // step * step + 5
    monkeypatch.setattr(time, "time_ns", lambda: now)
    stamps = {new_stamp() for _ in range(100)}
    assert len(stamps) == 100
    assert all(now - 2 * step < stamp < now - 5 for stamp in stamps)


def test_an_edit_in_place_within_one_clock_tick_is_seen(registry, heddle):
    path = heddle / "agents" / "agent-03.toml"
    for number in range(200):
        with path.open("r+b") as file:
            text = file.read().replace(b'base_state = "b"', b'base_state = "%d"' % (number % 10))
            text = text.replace(b'base_state = "%d"' % ((number - 1) % 10),
                                b'base_state = "%d"' % (number % 10))  # fmt: skip
            file.seek(0)
            file.write(text)
        [found] = registry.look(Query(native_actor_key="codex:thread:3")).entries
        assert found.base_state == str(number % 10)


@pytest.mark.parametrize("harm", ["deleted", "garbage", "truncated", "old copy", "other version"])
def test_a_harmed_index_costs_time_and_nothing_else(registry, heddle, harm, monkeypatch):
    index = heddle / "index.sqlite"
    old = index.read_bytes()
    registry.update_status("agent-05", "complete")
    if harm == "deleted":
        index.unlink()
    elif harm == "garbage":
        index.write_bytes(b"no database" * 1000)
    elif harm == "truncated":
        index.write_bytes(old[: len(old) // 2])
    elif harm == "old copy":
        index.write_bytes(old)
    else:
        other = bytearray(old)
        other[60:64] = (99).to_bytes(4, "big")
        index.write_bytes(bytes(other))
    for fresh in (False, True):
        if fresh:
            monkeypatch.setattr(directory, "_shared", {})
        again = AgentRegistry(heddle)
        assert again.list() == by_scan(heddle)
        assert again.load("agent-05").status is AgentStatus.COMPLETE
        assert again.find_active_by_native_actor_key("codex:thread:5") is None
        with again.reserve("f/agent-05"):
            pass


def poison(heddle):
    """Let a row bear its file's stamp and say what the file does not, as torn pages may."""
    with closing(sqlite3.connect(heddle / "index.sqlite")) as index, index:
        changed = index.execute(
            "UPDATE entries SET model = 'poison', read_at = ctime + 1000000000"
            " WHERE session_id = 'agent-07'"
        )
        assert changed.rowcount == 1


def models(registry):
    return {entry.model for entry in registry.list()}


@pytest.mark.parametrize("why", ["none", "another boot", "another version"])
def test_no_row_of_another_boot_or_version_is_believed(registry, heddle, why, monkeypatch):
    poison(heddle)
    monkeypatch.setattr(directory, "_shared", {})
    other = AgentRegistry(heddle)
    assert other.store.index.is_at(other.store.index.folder_stamps())
    other.store.index.close()
    other.store.index._kept = (None, {})
    if why == "another boot":
        monkeypatch.setattr(other.store.index, "boot_id", lambda: "another-boot")
    elif why == "another version":
        with closing(sqlite3.connect(heddle / "index.sqlite")) as index:
            [(version,)] = index.execute("PRAGMA user_version")
            index.execute(f"PRAGMA user_version = {version + 1}")
    # The first makes sure that the poison works.
    expected = {None, "poison"} if why == "none" else {None}
    assert models(other) == expected
    assert models(other) == expected, "the index that was made anew is right too"
    assert other.store.index.is_at(other.store.index.folder_stamps())


@pytest.mark.parametrize("index", ["on", "off"])
@pytest.mark.parametrize("entry", ["plain", "of a later program"])
def test_no_fence_is_given_twice_though_the_claims_were_deleted(
    registry, heddle, index, entry, monkeypatch
):
    for _ in range(3):
        with registry.reserve("main") as claim:
            pass
    assert claim.fence == 3
    shutil.rmtree(heddle / "claims")
    if entry != "plain":  # no row can hold it, and its fence counts all the same
        path = heddle / "agents" / f"{claim.session_id}.toml"
        path.write_text(path.read_text().replace("fence = 3", "fence = 3\nlater = true"))
    if index == "off":
        monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", "off")
    monkeypatch.setattr(directory, "_shared", {})
    registry = AgentRegistry(heddle)
    registry.list()
    scans = served_by_index(monkeypatch)
    assert not registry.check("main", 3).valid
    with registry.reserve("main") as claim:
        assert claim.fence == 4
    assert (scans == []) is (index == "on")


def test_what_ended_is_pruned_by_the_index_but_for_the_entries_of_holders(
    registry, heddle, monkeypatch
):
    with registry.reserve("main") as claim:
        held = next((heddle / "claims").iterdir())
        kept = held.read_bytes()
    held.write_bytes(kept)  # as a crash leaves it between the two writes of a release
    long_ago = Timestamp("2026-01-01T12:00:00Z")
    done = {"status": AgentStatus.COMPLETE, "completed_at": long_ago}
    for session_id in ("agent-old", claim.session_id):
        path = heddle / "agents" / f"{session_id}.toml"
        stored = registry.load(session_id) or entry_of(registry, session_id)
        path.write_bytes(entry_to_toml(attrs.evolve(stored, **done)))
    registry.list()
    scans = served_by_index(monkeypatch)
    with registry.reserve("other"):
        pass
    assert not (heddle / "agents" / "agent-old.toml").exists()
    assert (heddle / "agents" / f"{claim.session_id}.toml").exists()
    assert registry.sweep().ended_claims == ("main",)
    assert not (heddle / "agents" / f"{claim.session_id}.toml").exists()
    assert scans == []


@pytest.mark.parametrize("index", ["on", "off"])
def test_what_does_not_say_when_it_ended_is_pruned_by_when_it_began(
    registry, heddle, index, monkeypatch
):
    if index == "off":
        monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", "off")
        monkeypatch.setattr(directory, "_shared", {})
        registry = AgentRegistry(heddle)
    now_ns = registry.host.now().at.unix_ns
    for session_id, days in (("agent-old", 8), ("agent-young", 6)):
        began_at = Timestamp.from_unix_ns(now_ns - days * 86_400 * 10**9)
        ended = entry_of(registry, session_id, status=AgentStatus.COMPLETE, started_at=began_at)
        (heddle / "agents" / f"{session_id}.toml").write_bytes(entry_to_toml(ended))
    assert registry.sweep().pruned == ("agent-old",)
    assert not (heddle / "agents" / "agent-old.toml").exists()


@pytest.mark.parametrize("index", ["on", "off"])
def test_those_that_ended_first_are_pruned_first_and_no_more_than_a_few_at_once(
    registry, heddle, index, monkeypatch
):
    if index == "off":
        monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", "off")
        monkeypatch.setattr(directory, "_shared", {})
        registry = AgentRegistry(heddle)
    for number in range(MAX_SWEEP + 4):
        ended_at = Timestamp(f"2026-01-{28 - number:02d}T12:00:00Z")
        old = entry_of(
            registry,
            f"agent-old-{number:02d}",
            status=AgentStatus.COMPLETE,
            started_at=Timestamp("2026-01-01T12:00:00Z"),
            completed_at=ended_at,
        )
        (heddle / "agents" / f"{old.session_id}.toml").write_bytes(entry_to_toml(old))
    registry.list()
    with registry.reserve("main"):
        pass
    left = {path.stem for path in (heddle / "agents").glob("agent-old-*")}
    assert left == {f"agent-old-{number:02d}" for number in range(4)}


WRITER = """
import random, sys
from heddle_registry import AgentRegistry, Held
registry = AgentRegistry(sys.argv[1])
number = int(sys.argv[2])
random.seed(number)
print("ready", flush=True)
for round in range(40):
    try:
        with registry.reserve(f"w/{number}/{round % 3}"):
            pass
    except Held:
        pass
print("done", flush=True)
sys.stdin.readline()
"""


def test_readers_beside_busy_writers_and_a_stranger_agree_with_the_files(registry, heddle):
    with (
        python(WRITER, heddle, 1) as first,
        python(WRITER, heddle, 2) as second,
    ):
        for writer in (first, second):
            assert writer.line(60) == "ready"
        chance = random.Random(7)
        for _ in range(10):
            victim = f"agent-{chance.randrange(30):02d}"
            if chance.random() < 0.5:
                stranger(heddle, "touch", victim)
            else:
                registry.update_entry(
                    victim, lambda entry: attrs.evolve(entry, model=str(chance.random()))
                )
            found = registry.find_active_by_native_actor_key(registry.load(victim).native_actor_key)
            assert found == registry.load(victim)
        for writer in (first, second):
            assert writer.line(60) == "done"
            writer.tell()
            assert writer.ends() == 0
    fresh = AgentRegistry(heddle)
    assert fresh.list() == by_scan(heddle)
    assert not list((heddle / "tmp").iterdir())


def test_a_folder_that_cannot_be_stamped_is_scanned_and_right(registry, heddle, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    registry.update_status("agent-09", "complete")
    assert registry.list() == by_scan(heddle)
    with registry.reserve("f/agent-09"):
        assert registry.find_active_by_native_actor_key("codex:thread:9") is None


def test_on_a_coarse_clock_rows_are_not_believed_until_they_are_settled(
    registry, heddle, monkeypatch
):
    # So coarse that no disk is slow enough to let a tick pass; what is waited for is put ahead.
    coarse = 3_600 * 10**9
    ahead = 0
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + ahead)
    monkeypatch.setattr(directory, "_shared", {})
    monkeypatch.setattr(record_files, "CLOCK_TICK_NS", coarse)
    monkeypatch.setattr("heddle_registry.adapters.index_building.tick_of", lambda path: coarse)
    (heddle / "index.sqlite").unlink()
    other = AgentRegistry(heddle)
    read = []
    one = type(other.store._folders.agents)._read
    monkeypatch.setattr(
        type(other.store._folders.agents),
        "_read",
        lambda self, name: (read.append(name), one(self, name))[1],
    )

    def files_read_by_a_fresh_process():
        monkeypatch.setattr(directory, "_shared", {})
        read.clear()
        assert len(AgentRegistry(heddle).list()) == 30
        return {name for name in read if name.startswith("agent-")}

    other.list()
    # Rows that were made of files older than a tick are believed at once.
    ahead = 2 * coarse
    (heddle / "index.sqlite").unlink()
    assert len(files_read_by_a_fresh_process()) == 30
    assert files_read_by_a_fresh_process() == set()

    ahead = 0
    AgentRegistry(heddle).update_entry("agent-04", lambda e: attrs.evolve(e, model="new"))
    for _ in range(2):  # one look does not settle it
        assert files_read_by_a_fresh_process() == {"agent-04.toml"}
    ahead = 2 * coarse
    AgentRegistry(heddle).update_entry("agent-05", lambda e: attrs.evolve(e, model="new"))
    assert "agent-04.toml" not in files_read_by_a_fresh_process()


def test_a_copied_registry_is_not_believed_by_its_old_index(registry, heddle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(heddle, copy)
    (copy / "agents" / "agent-01.toml").unlink()
    assert AgentRegistry(copy).list() == by_scan(copy)
    assert AgentRegistry(copy).load("agent-01") is None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="nowhere to count descriptors")
def test_many_registries_in_one_process_keep_few_files_open(tmp_path):
    registries = [AgentRegistry(tmp_path / str(number) / ".heddle") for number in range(40)]
    for registry in registries:
        registry.save(entry_of(registry, "agent-one"))
        assert len(registry.list()) == 1
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(40, 80):
        registry = AgentRegistry(tmp_path / str(number) / ".heddle")
        registry.save(entry_of(registry, "agent-one"))
        assert len(registry.list()) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 16
    assert all(len(registry.list()) == 1 for registry in registries), "a closed index opens again"


def test_a_forked_child_opens_an_index_of_its_own_also_of_a_registry_long_unused(
    registry, heddle, tmp_path
):
    for number in range(20):
        AgentRegistry(tmp_path / str(number) / ".heddle").save(entry_of(registry, "agent-one"))
    assert registry.find_active_by_native_actor_key("codex:thread:3") is not None
    parents = registry.store.index._connection
    assert parents is not None

    def child():
        found = registry.find_active_by_native_actor_key("codex:thread:4")
        own = registry.store.index._connection
        # Closing the parent's here would take back what the parent is just writing.
        is_left_open = parents.total_changes >= 0
        return found.session_id, own is not None and own is not parents, is_left_open

    assert in_fork(child) == ("agent-04", True, True)
    assert registry.list() == by_scan(heddle)


@pytest.mark.parametrize(
    ("times", "tick_ns"), [(range(100), 0), ([1, 2, 3, 4, 5, 5, 6, 7], CLOCK_TICK_NS)]
)
def test_a_file_system_that_gives_two_changes_one_time_is_told_from_one_that_does_not(
    tmp_path, times, tick_ns
):
    left = iter(times)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", lambda _: SimpleNamespace(st_ctime_ns=next(left)))
        found = tick_of(str(tmp_path / "index"))
    assert found == tick_ns
    assert list(tmp_path.iterdir()) == []


def test_hardly_anything_is_opened_for_a_look_up_among_many(registry, heddle):
    opened = []

    def audit(event, args):
        if event == "open" and str(args[0]).endswith(".toml"):
            opened.append(Path(args[0]).name)

    registry.find_active_by_native_actor_key("codex:thread:4")
    sys.addaudithook(audit)
    registry.find_active_by_native_actor_key("codex:thread:5")
    registry.find_active_by_path(heddle)
    assert len(opened) <= 2
