"""The folder store: strangers beside it, damage in it, and what it may not do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import (
    AgentEntry,
    AgentRegistry,
    AgentStatus,
    ClaimLost,
    LiveOwner,
    LockTimeout,
    RecordCorrupt,
    Reserved,
    StoreUnavailable,
    UnknownEntry,
)
from heddle_registry.adapters import directory, line
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.found_records import FoundRecords
from heddle_registry.adapters.layout import thread_hash
from heddle_registry.codec import entry_to_toml
from heddle_registry.core.evidence import LivenessFact, Subject
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.transaction import Decision, Keys, NeedFacts
from heddle_registry.explain import why_branch
from heddle_registry.ports.query import Query
from heddle_registry.testing.fake_host import FakeHost
from tests import seed_registry
from tests.process_helpers import (
    as_nobody,
    flock_holder,
    in_fork,
    needs_other_user,
    needs_proc_locks,
    public_folder,
)
from tests.seed_registry import current_boot_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BAD = b"\x00 this is no TOML \xff"


@pytest.fixture
def heddle_dir(tmp_path: Path) -> Path:
    return tmp_path / ".heddle"


@pytest.fixture
def registry(heddle_dir: Path) -> AgentRegistry:
    return AgentRegistry(heddle_dir, lock_timeout_s=30)


def building(registry: AgentRegistry, thread: str, **fields: Any) -> Callable[[str], AgentEntry]:
    def build(new: str) -> AgentEntry:
        return AgentEntry(
            session_id=new,
            thread=thread,
            base_state="b",
            started_at=registry.host.now().at,
            status=AgentStatus.ACTIVE,
            **fields,
        )

    return build


def attempt(registry: AgentRegistry, thread: str = "main", **fields: Any) -> Reserved | LiveOwner:
    return registry.try_reserve_thread(thread, building(registry, thread, **fields))


def reserve(registry: AgentRegistry, thread: str = "main", **fields: Any) -> Reserved:
    outcome = attempt(registry, thread, **fields)
    assert isinstance(outcome, Reserved), outcome
    return outcome


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith((".lock", "index.sqlite"))
    }


def run_seed(heddle_dir: Path, *arguments: object) -> Any:
    command = [sys.executable, seed_registry.__file__, str(heddle_dir), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    return json.loads(done.stdout)


# -- the Rust tool in another process, on the same folder


def test_neither_program_gets_what_the_other_holds(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    reserve(registry, "ours", pid=os.getpid())
    reserve(registry, "ours without a pid")
    for thread in ("ours", "ours without a pid"):
        assert run_seed(heddle_dir, "try_reserve_thread", thread, os.getpid())["outcome"] == (
            "live_owner"
        )
    theirs = run_seed(heddle_dir, "try_reserve_thread", "theirs", os.getpid())
    assert theirs["outcome"] == "reserved"
    refused = attempt(registry, "theirs")
    assert isinstance(refused, LiveOwner)
    assert refused.entry is not None
    assert (refused.entry.session_id, refused.state) == (theirs["entry"]["session_id"], "occupied")


@pytest.mark.parametrize("deed", ["touch", "update_status", "delete"])
def test_what_the_other_program_does_to_a_holders_entry_never_gives_the_branch_to_a_second(
    registry: AgentRegistry, heddle_dir: Path, deed: str
) -> None:
    held = reserve(registry, pid=os.getpid())
    session_id = held.entry.session_id
    run_seed(heddle_dir, deed, session_id, *(["abandoned"] if deed == "update_status" else []))
    assert isinstance(attempt(registry), LiveOwner)
    if deed == "touch":
        found = registry.load(session_id)
        assert found is not None
        assert found.extension is None, "their rewrite drops our table"
        assert registry.heartbeat(session_id, held.token).fence == held.fence
        registry.release(session_id, token=held.token)
        assert reserve(registry).fence == held.fence + 1
    else:
        assert why_branch(registry, "main").state == "blocked"
        with pytest.raises(ClaimLost, match="another program"):
            registry.heartbeat(session_id, held.token)
        # What they grant meanwhile blocks us, as ever.
        theirs = run_seed(heddle_dir, "try_reserve_thread", "main", os.getpid())
        assert theirs["outcome"] == "reserved"
        assert isinstance(attempt(registry), LiveOwner)


@needs_proc_locks
def test_while_another_holds_the_lock_writers_wait_and_looks_go_on(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    held = reserve(registry, pid=os.getpid())
    hurried = AgentRegistry(heddle_dir, lock_timeout_s=0.2)
    before = contents(heddle_dir)
    with flock_holder(heddle_dir / "agents" / ".lock") as holder:
        writes: list[Callable[[], object]] = [
            lambda: attempt(hurried, "other"),
            lambda: hurried.heartbeat(held.entry.session_id, held.token),
            lambda: hurried.delete(held.entry.session_id),
        ]
        for write in writes:
            with pytest.raises(LockTimeout) as late:
                write()
            assert late.value.holder_pid == holder.pid
        assert isinstance(attempt(hurried), LiveOwner), "a refusal needs no lock"
        assert hurried.check("main", held.fence).valid
        assert hurried.list() == [held.entry]
        assert why_branch(hurried, "main").state == "held"
    assert contents(heddle_dir) == before


# -- damage


def test_a_file_that_is_no_toml_is_reported_and_later_put_aside(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    reserve(registry, "other")
    for name, age_s in (("agent-old.toml", 120), ("agent-young.toml", 0)):
        path = heddle_dir / "agents" / name
        path.write_bytes(BAD)
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    assert {problem.code for problem in registry.look().problems} == {"damaged"}
    assert len(registry.look().problems) == 2, "a look moves nothing"
    reserve(registry)
    left = [os.path.basename(problem.path) for problem in registry.look().problems]
    assert left == ["agent-young.toml"], "somebody may still be writing it"
    (kept,) = (heddle_dir / "agents" / ".quarantine").iterdir()
    assert kept.read_bytes() == BAD


@pytest.mark.parametrize("pid", ["mine", "nobody's", "none"])
def test_a_damaged_entry_refuses_the_branch_it_still_names_unless_its_owner_is_dead(
    registry: AgentRegistry, heddle_dir: Path, pid: str
) -> None:
    reserve(registry, "other")
    lines = ['thread = "main"', 'status = "active"', f'boot_id = "{current_boot_id()}"']
    number = {"mine": os.getpid(), "nobody's": 0x7FFF_FFFF}.get(pid)
    lines += [f"pid = {number}"] if number is not None else []
    path = heddle_dir / "agents" / "agent-bad.toml"
    path.write_text("\n".join([*lines, "started_at = ["]))
    os.utime(path, (0, 0))
    reserve(registry, "third")
    if pid == "nobody's":
        assert reserve(registry).fence == 1
    else:
        with pytest.raises(RecordCorrupt, match=r"agent-bad\.toml"):
            attempt(registry)
        assert why_branch(registry, "main").state == "blocked"
        assert path.exists(), "it names an owner who may live"
    with pytest.raises(RecordCorrupt):
        registry.load("agent-bad")


def claim_path(heddle_dir: Path, thread: str) -> Path:
    return heddle_dir / "claims" / f"{thread_hash(thread)}.toml"


def test_a_claim_that_cannot_be_read_refuses_its_branch_and_no_other(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    held = reserve(registry)
    path = claim_path(heddle_dir, "main")
    good = path.read_text()
    newer = good.replace("schema = 1", "schema = 99", 1)
    for content, error in ((BAD, RecordCorrupt), (newer.encode(), StoreUnavailable)):
        path.write_bytes(content)
        before = contents(heddle_dir)
        calls: list[Callable[[], object]] = [
            lambda: attempt(registry),
            lambda: registry.heartbeat(held.entry.session_id, held.token),
            lambda: registry.release(held.entry.session_id, token=held.token),
            lambda: registry.update_status(held.entry.session_id, "abandoned"),
            lambda: registry.delete(held.entry.session_id),
            lambda: registry.check("main", held.fence),
        ]
        for call in calls:
            with pytest.raises(error):
                call()
        assert contents(heddle_dir) == before
        assert why_branch(registry, "main").state == "blocked"
        assert registry.reap_dead() == 0
        assert registry.list() == [held.entry]
    reserve(registry, "other")
    path.write_text(good)
    assert registry.check("main", held.fence).valid


def test_a_copy_of_a_claim_under_another_name_neither_blocks_nor_stands_for_it(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    first = reserve(registry)
    path = claim_path(heddle_dir, "main")
    shutil.copy(path, path.with_name("backup.toml"))
    registry.release(first.entry.session_id, token=first.token)
    assert [os.path.basename(p.path) for p in registry.look().problems] == ["backup.toml"]
    assert reserve(registry).fence == 2
    reserve(registry, "other")
    # A claim's own file with another's content hides what the claim was.
    shutil.copy(path, claim_path(heddle_dir, "other"))
    with pytest.raises(RecordCorrupt):
        attempt(registry, "other")
    assert registry.check("main", 2).valid


def test_where_the_claims_are_lost_the_entries_copies_stand_for_them(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    by_pid = reserve(registry, pid=os.getpid())
    by_ttl = reserve(registry, "ttl")
    shutil.rmtree(heddle_dir / "claims")
    for thread, held in (("main", by_pid), ("ttl", by_ttl)):
        assert isinstance(attempt(registry, thread), LiveOwner)
        assert registry.check(thread, held.fence).valid
        with pytest.raises(ClaimLost):
            registry.heartbeat(held.entry.session_id, "guess")
        assert registry.heartbeat(held.entry.session_id, held.token).fence == held.fence
    shutil.rmtree(heddle_dir / "claims")
    registry.release(by_pid.entry.session_id, token=by_pid.token)
    assert not registry.check("main", by_pid.fence).valid
    assert reserve(registry).fence == by_pid.fence + 1


@pytest.mark.parametrize("index", ["on", "off"])
def test_a_listing_is_newest_first_with_and_without_the_index(
    registry: AgentRegistry, heddle_dir: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = [Timestamp(f"2026-07-01T12:00:0{second}Z") for second in (3, 9, 0, 6)]
    for number, at in enumerate(starts):
        build = building(registry, f"branch-{number}")
        registry.create_generated_entry(
            lambda session_id, build=build, at=at: attrs.evolve(build(session_id), started_at=at)
        )
    monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", index)
    monkeypatch.setattr("heddle_registry.adapters.directory._shared", {})
    listed = AgentRegistry(heddle_dir).list()
    assert [entry.started_at for entry in listed] == sorted(starts, reverse=True, key=str)


def test_a_liveness_lock_passes_to_no_command_unless_it_is_asked_to(
    registry: AgentRegistry,
) -> None:
    lock = registry.store.hold_liveness("agent-a")
    assert lock is not None
    try:
        assert not os.get_inheritable(lock.fileno())
    finally:
        lock.release()


def test_an_entry_of_a_newer_program_is_read_and_never_rewritten(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    registry.save(building(registry, "main")("agent-newer"))
    path = heddle_dir / "agents" / "agent-newer.toml"
    path.write_text(path.read_text() + "\n[heddle_registry]\nschema = 99\nlater = [1]\n")
    before = path.read_bytes()
    assert [entry.session_id for entry in registry.list()] == ["agent-newer"]
    assert isinstance(attempt(registry), LiveOwner)
    for call in (
        lambda: registry.update_status("agent-newer", "complete"),
        lambda: registry.heartbeat("agent-newer"),
    ):
        with pytest.raises(StoreUnavailable, match=r"(?i)newer.*Upgrade"):
            call()
    assert path.read_bytes() == before


# -- permissions


def let_all_read(folder: Path, mode: int = 0o755) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o666)


@needs_other_user
def test_who_may_only_read_can_ask_everything_and_change_nothing() -> None:
    with public_folder() as folder:
        owner = AgentRegistry(folder / ".heddle")
        held = reserve(owner, pid=os.getpid())
        let_all_read(folder / ".heddle")
        before = contents(folder)

        def ask() -> list[str]:
            reader = AgentRegistry(folder / ".heddle", lock_timeout_s=60)
            answers = [
                str(reader.list() == [held.entry]),
                str(reader.check("main", held.fence).valid),
                why_branch(reader, "main").state,
                type(attempt(reader)).__name__,
            ]
            for change in (
                lambda: attempt(reader, "other"),
                lambda: reader.heartbeat(held.entry.session_id, held.token),
            ):
                try:
                    change()
                except StoreUnavailable as error:
                    answers.append("permission" if "ermission" in str(error) else str(error))
            return answers

        assert as_nobody(ask) == ["True", "True", "held", "LiveOwner", "permission", "permission"]
        assert contents(folder) == before


@needs_other_user
def test_an_entry_that_may_not_be_read_closes_every_decision_that_would_need_it() -> None:
    with public_folder() as folder:
        heddle_dir = folder / ".heddle"
        owner = AgentRegistry(heddle_dir)
        reserve(owner, pid=os.getpid())
        let_all_read(heddle_dir, 0o777)
        secret = next((heddle_dir / "agents").glob("*.toml"))
        secret.chmod(0)

        def ask() -> list[str]:
            other = AgentRegistry(heddle_dir)
            answers = [str(other.list()), other.look().problems[0].code]
            for thread in ("main", "any other"):
                try:
                    attempt(other, thread)
                except StoreUnavailable as error:
                    answers.append(os.path.basename(error.path))
                # Without an index nobody knows to which branch it belongs.
                (heddle_dir / "index.sqlite").unlink(missing_ok=True)
            return answers

        assert as_nobody(ask) == ["[]", "unavailable", secret.name, secret.name]


@needs_other_user
def test_two_users_share_a_folder_that_both_may_write_to() -> None:
    with public_folder() as folder:
        heddle_dir = folder / ".heddle"
        heddle_dir.mkdir()
        heddle_dir.chmod(0o2777)
        os.chown(heddle_dir, -1, 65534)
        ours = reserve(AgentRegistry(heddle_dir), pid=os.getpid())

        def use() -> list[Any]:
            registry = AgentRegistry(heddle_dir)
            refused = attempt(registry)
            mine = reserve(registry, "theirs", pid=os.getppid())
            return [type(refused).__name__, mine.fence, len(registry.list())]

        assert as_nobody(use) == ["LiveOwner", 1, 2]
        registry = AgentRegistry(heddle_dir)
        assert isinstance(attempt(registry, "theirs"), LiveOwner)
        assert registry.check("main", ours.fence).valid
        assert registry.look().problems == ()


@pytest.mark.parametrize("call", ["scandir", "open", "stat"])
def test_a_passing_lack_of_descriptors_makes_nobody_forget_who_is_there(
    registry: AgentRegistry, heddle_dir: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.save(building(registry, "main")("agent-here"))
    stranger = heddle_dir / "agents" / "agent-here.toml"
    stranger.write_bytes(stranger.read_bytes() + b"\n")  # something to look at again
    (heddle_dir / "agents" / "note.toml").write_text("")
    real = getattr(os, call)

    def fail(path: Any, *given: Any, **named: Any) -> Any:
        if "agents" in str(path) and (call == "scandir" or str(path).endswith(".toml")):
            raise OSError(errno.EMFILE, "Too many open files", path)
        return real(path, *given, **named)

    monkeypatch.setattr(os, call, fail)
    for look in (registry.list, lambda: attempt(registry), lambda: attempt(registry, "other")):
        try:
            answer: Any = look()
        except StoreUnavailable:
            continue
        assert not isinstance(answer, list) or answer or registry.look().problems
        assert not isinstance(answer, Reserved) or answer.entry.thread == "other"
    monkeypatch.undo()
    assert "agent-here" in [entry.session_id for entry in registry.list()]
    assert isinstance(attempt(registry), LiveOwner)


# -- what one store object does for its process


def stored(registry: AgentRegistry) -> DirectoryStore:
    store = registry.store
    assert isinstance(store, DirectoryStore)
    return store


def test_a_refused_request_makes_no_folders(registry: AgentRegistry, heddle_dir: Path) -> None:
    with pytest.raises(UnknownEntry):
        registry.heartbeat("agent-nobody")
    assert registry.list() == []
    assert not heddle_dir.exists()
    reserve(registry)
    assert (heddle_dir / "agents").is_dir()


def test_an_entry_is_loaded_by_name_with_its_newest_heartbeat_and_not_when_stale(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    store = stored(registry)
    held = reserve(registry)
    session_id = held.entry.session_id
    assert store.load("agent-nobody") is None
    beaten = registry.heartbeat(session_id, held.token).entry
    assert store.load(session_id) == beaten
    registry.save(building(registry, "free")("agent-there"))
    there = store.load("agent-there")
    assert there is not None
    assert there.heartbeat_at is None
    claim = claim_path(heddle_dir, "main")
    good = claim.read_bytes()
    for bad in (BAD, good.replace(b"schema = 1", b"schema = 99", 1)):
        claim.write_bytes(bad)
        found = store.load(session_id)
        assert found is not None
        assert found.heartbeat_at is None, "the claim that would tell of it cannot be relied on"
    claim.write_bytes(good)
    ended = registry.release(session_id, token=held.token)
    assert store.load(session_id) == ended
    day_s = 86_400 * 10**9
    late = FakeHost(at=Timestamp.from_unix_ns(registry.host.now().at.unix_ns + 8 * day_s))
    assert DirectoryStore(str(heddle_dir), late).load(session_id) is None
    (heddle_dir / "agents" / "agent-bad.toml").write_bytes(BAD)
    with pytest.raises(RecordCorrupt):
        store.load("agent-bad")


def test_a_look_at_one_entry_tells_of_its_claim_and_of_no_other_damage(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    store = stored(registry)
    held = reserve(registry)
    session_id = held.entry.session_id
    (heddle_dir / "agents" / "agent-bad.toml").write_bytes(BAD)
    (heddle_dir / "claims" / "bad.toml").write_bytes(BAD)
    look = store.look(Query(session_id=session_id))
    assert [entry.session_id for entry in look.entries] == [session_id]
    assert list(look.claims) == ["main"]
    assert (look.problems, look.damaged_claims) == ((), {})
    assert store.look(Query(session_id=session_id, thread="other")).entries == ()
    claim_path(heddle_dir, "main").write_bytes(BAD)
    damaged = store.look(Query(session_id=session_id))
    assert (list(damaged.claims), list(damaged.damaged_claims)) == ([], ["main"])
    with pytest.raises(RecordCorrupt):
        store.look(Query(session_id="agent-bad"))
    assert list(store.look(Query(thread="main")).damaged_claims) == ["main"]
    assert store.look(Query(thread="main")).claims == {}
    (heddle_dir / "agents" / f"{session_id}.toml").unlink()
    assert list(store.look(Query(thread="main")).damaged_claims) == ["main"], "nobody is there"


def test_a_look_at_a_branch_brings_its_claim_whether_or_not_anybody_is_there(
    registry: AgentRegistry,
) -> None:
    store = stored(registry)
    held, other = reserve(registry), reserve(registry, "other")
    registry.release(held.entry.session_id, token=held.token)
    assert list(store.look(Query(thread="main")).claims) == ["main"]
    assert list(store.look(Query(thread="free")).claims) == []
    everybody = store.look(Query())
    assert set(everybody.claims) == {"other"}, "nobody holds the other one"
    many = [reserve(registry, f"thread-{number}") for number in range(20)]
    assert len(store.look(Query()).claims) == len(many) + 1
    assert other.entry.session_id in {entry.session_id for entry in everybody.entries}


def test_an_observation_names_who_has_a_liveness_lock_open_only_where_that_is_asked_for(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    store = stored(registry)
    held = store.hold_liveness("agent-a")
    assert held is not None
    subject = Subject(session_id="agent-a", pid=os.getpid(), liveness=held.file)
    assert os.fstat(held.fileno()).st_ino == held.file.inode
    plain = store.observe(registry.host, subject)
    assert (plain.liveness, plain.descriptor_pids) == (LivenessFact.HELD, ())
    if os.path.isdir("/proc/self/fd"):
        told = store.observe(registry.host, subject, details=True)
        assert told.descriptor_pids == (os.getpid(),)
    held.release()
    free = store.observe(registry.host, subject, details=True)
    assert (free.liveness, free.descriptor_pids) == (LivenessFact.FREE, ())
    again = store.hold_liveness("agent-a")
    assert again is not None
    fd = again.fileno()
    again.discard()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    again.discard()
    assert not (heddle_dir / "live" / "agent-a").exists()
    gone = store.observe(registry.host, subject)
    assert gone == registry.host.observe(subject)


def test_where_there_is_no_line_one_stands_alone(
    registry: AgentRegistry, heddle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "HAS_LINES", False)
    store = stored(registry)
    assert store.hold_liveness("agent-a") is None
    with store.join_line("main", 60) as place:
        assert place.ticket == ""
    assert not heddle_dir.exists()


def test_a_link_in_a_folders_place_stops_every_change(
    registry: AgentRegistry, heddle_dir: Path, tmp_path: Path
) -> None:
    reserve(registry)
    (tmp_path / "elsewhere").mkdir()
    (heddle_dir / "tmp").rename(heddle_dir / "moved")
    (heddle_dir / "tmp").symlink_to(tmp_path / "elsewhere")
    store = stored(registry)
    for change in (
        lambda: attempt(registry, "other"),
        store.lock,
        lambda: store.hold_liveness("agent-a"),
        lambda: store.join_line("main", 60).__enter__(),
    ):
        with pytest.raises(StoreUnavailable, match="link"):
            change()


def test_what_was_parsed_is_shared_by_the_stores_of_a_process_and_not_kept_for_ever(
    tmp_path: Path,
) -> None:
    host = FakeHost()
    first = DirectoryStore(str(tmp_path / "0"), host)
    assert DirectoryStore(str(tmp_path / "0"), host).index is first.index
    others = [DirectoryStore(str(tmp_path / str(number)), host) for number in range(1, 9)]
    assert DirectoryStore(str(tmp_path / "8"), host).index is others[-1].index
    assert DirectoryStore(str(tmp_path / "0"), host).index is not first.index


def test_a_forked_child_reads_for_itself(registry: AgentRegistry) -> None:
    held = reserve(registry)
    assert registry.list() == [held.entry]
    assert in_fork(lambda: [entry.session_id for entry in registry.list()]) == [
        held.entry.session_id
    ]
    released = in_fork(
        lambda: registry.release(held.entry.session_id, token=held.token).status.value
    )
    assert released == "complete"
    assert [entry.status for entry in registry.list()] == [AgentStatus.COMPLETE]


@pytest.mark.parametrize(("count", "by_name"), [(16, True), (17, False)])
def test_the_claims_of_a_few_entries_are_read_by_name_and_of_many_those_that_are_held(
    registry: AgentRegistry, count: int, *, by_name: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(count):
        reserve(registry, f"branch-{number}", pid=os.getpid())
    expected = registry.look().claims
    assert len(expected) == count
    name = "held_claims" if by_name else "claim"
    monkeypatch.setattr(FoundRecords, name, lambda *_: pytest.fail("that is more to read"))
    assert registry.look().claims == expected


def test_a_second_store_of_a_folder_begins_with_what_the_first_has_parsed(
    heddle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost()
    one, two = DirectoryStore(str(heddle_dir), host), DirectoryStore(str(heddle_dir), host)
    assert one.index is two.index
    assert one.index.boot_id() == host.now().boot_id
    monkeypatch.setattr(host, "now", lambda: pytest.fail("a process ends with its boot"))
    assert two.index.boot_id()


def test_of_many_registries_the_parts_of_the_last_eight_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_shared", {})
    stores = [DirectoryStore(str(tmp_path / str(number)), FakeHost()) for number in range(9)]
    again = [DirectoryStore(store.heddle_dir, FakeHost()) for store in reversed(stores)]
    kept = [new.index is old.index for new, old in zip(again, reversed(stores), strict=True)]
    assert kept == [True] * 8 + [False]


@pytest.mark.parametrize("is_made", [False, True])
def test_who_needs_facts_first_or_changes_nothing_leaves_all_as_it_is(
    heddle_dir: Path, registry: AgentRegistry, *, is_made: bool
) -> None:
    store = DirectoryStore(str(heddle_dir), FakeHost())
    if is_made:
        reserve(registry)
        path = heddle_dir / "agents" / "agent-bad.toml"
        path.write_bytes(BAD)
        os.utime(path, (1, 1))  # the next who writes puts it aside
        (heddle_dir / "tmp" / ".left.tmp").touch()
    before = contents(heddle_dir)
    asked = NeedFacts((Subject(session_id="agent-a"),))
    assert store.transact(Keys(), lambda *_: asked, {}) is asked
    decided: Decision[str] = Decision(answer="refused")
    assert store.transact(Keys(), lambda *_: decided, {}) is decided
    assert contents(heddle_dir) == before
    assert heddle_dir.exists() is is_made


def test_what_nobody_needs_is_named_and_removed_and_what_is_unsafe_is_told(
    heddle_dir: Path, registry: AgentRegistry
) -> None:
    reserve(registry)
    registry.look()
    store = DirectoryStore(str(heddle_dir), registry.host, lock_timeout_s=60)
    left = heddle_dir / "tmp" / ".left.tmp"
    left.touch()
    assert store.tidy(dry_run=True) == ("tmp/.left.tmp",)
    assert left.exists()
    assert store.tidy() == ("tmp/.left.tmp",)
    assert not left.exists()
    assert store.tidy() == ()
    assert {"folder", "lock", "index", "entries"} <= {c.name for c in store.examine(registry.host)}
    (path,) = (heddle_dir / "agents").glob("*.toml")
    path.write_bytes(path.read_bytes() + b"\n")
    assert store.edited_in_place() == (path.name,)
    with store.lock().held(60):
        assert store.catch_up()
    assert store.edited_in_place() == ()


def test_a_liveness_lock_is_held_told_and_let_go_with_or_without_its_file(
    heddle_dir: Path, registry: AgentRegistry
) -> None:
    reserve(registry)
    store = DirectoryStore(str(heddle_dir), FakeHost())
    path = heddle_dir / "live" / "agent-a"
    for inheritable, keeps in ((False, True), (True, False)):
        lock = store.hold_liveness("agent-a", inheritable=inheritable)
        assert lock is not None
        assert (lock.file.device, lock.file.inode) == (path.stat().st_dev, path.stat().st_ino)
        assert os.get_inheritable(lock.fileno()) is inheritable
        subject = Subject(session_id="agent-a", liveness=lock.file)
        held = store.observe(FakeHost(), subject, details=True)
        assert (held.liveness, held.descriptor_pids) == (LivenessFact.HELD, (os.getpid(),))
        assert store.observe(FakeHost(), subject).descriptor_pids == ()
        fd = lock.fileno()
        (lock.release if keeps else lock.discard)()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        assert path.exists() is keeps


def test_where_there_are_no_lines_and_no_locks_nothing_is_made_of_either(
    heddle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "HAS_LINES", False)
    store = DirectoryStore(str(heddle_dir), FakeHost())
    assert store.hold_liveness("agent-a") is None
    with store.join_line("main", 5) as place:
        assert isinstance(place, line.LonelyPlace)
    assert not heddle_dir.exists()


def test_a_place_in_the_line_is_given_up_however_the_wait_ends(heddle_dir: Path) -> None:
    store = DirectoryStore(str(heddle_dir), FakeHost())
    (waiting,) = [heddle_dir / "wait" / thread_hash("main")]

    def give_up() -> None:
        with store.join_line("main", 5) as place:
            assert [path.name for path in waiting.glob("[0-9]*") if path.suffix == ""] == [
                place.ticket
            ]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert list(waiting.iterdir()) == []


@pytest.mark.parametrize("others", [0, 20])
def test_a_listing_shows_when_each_holder_was_last_heard_of(heddle_dir: Path, others: int) -> None:
    host = FakeHost()
    registry = AgentRegistry(store=DirectoryStore(str(heddle_dir), host), host=host)
    held = reserve(registry, pid=host.own_pid())
    for number in range(others):
        reserve(registry, f"branch-{number}", pid=host.own_pid())
    host.advance(60)
    registry.heartbeat(held.entry.session_id, held.token)
    heard_of = {entry.session_id: entry.heartbeat_at for entry in registry.list()}
    assert heard_of.pop(held.entry.session_id) == host.now().at
    assert len(heard_of) == others
    assert host.now().at not in heard_of.values()


def test_who_peeks_without_the_lock_brings_no_index_up_to_date(
    heddle_dir: Path, registry: AgentRegistry
) -> None:
    reserve(registry)
    store = DirectoryStore(str(heddle_dir), FakeHost())
    assert store.heddle_dir == str(heddle_dir)
    store.look(Query())
    assert store.index.is_at(store.index.folder_stamps())
    with flock_holder(store.lock().path):
        path = heddle_dir / "agents" / "agent-new.toml"
        path.write_bytes(entry_to_toml(building(registry, "other")("agent-new")))
        loaded, _ = store.peek(Keys(threads=("other",)))
        assert list(loaded.entries) == ["agent-new"]
        assert not store.index.is_at(store.index.folder_stamps())


descriptors = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="descriptors cannot be looked at here"
)


def times_open(path: Path) -> int:
    fds = os.listdir("/proc/self/fd")
    return [os.path.realpath(f"/proc/self/fd/{fd}") for fd in fds].count(str(path))


@descriptors
def test_an_index_that_is_not_kept_is_closed_although_its_store_is_still_there(
    heddle_dir: Path, registry: AgentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_MOST_SHARED", 1)
    reserve(registry)
    registry.look()
    reserve(registry, "other")
    assert times_open(heddle_dir / "index.sqlite") == 1
    DirectoryStore(str(heddle_dir / "another"), FakeHost())
    assert times_open(heddle_dir / "index.sqlite") == 0
    reserve(registry, "third")
    assert len(registry.list()) == 3


@descriptors
def test_a_forked_child_leaves_the_open_index_of_its_parent_alone_and_opens_its_own(
    heddle_dir: Path, registry: AgentRegistry
) -> None:
    path = heddle_dir / "index.sqlite"
    reserve(registry)
    assert len(registry.list()) == 1
    assert times_open(path) == 1
    child = in_fork(lambda: (reserve(registry, "other").fence, times_open(path)))
    assert child == (1, 2)
    assert times_open(path) == 1
