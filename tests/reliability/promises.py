"""What the registry promises, each as the shortest check that fails where it is broken.

A check is given an empty folder and raises AssertionError. `planted` breaks the promises.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import AgentStatus, ClaimLost, LiveOwner, LockTimeout, Reserved
from heddle_registry.adapters import directory, lock_file, writing
from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.codec import entry_to_toml
from heddle_registry.core import evidence
from heddle_registry.core.entry import ContextQueryEntry
from heddle_registry.core.evidence import Observation, Owner, ProcessState, Subject, VerdictKind
from heddle_registry.core.transaction import Keys
from heddle_registry.errors import RegistryError
from heddle_registry.ports.query import Query
from heddle_registry.registry.attempt import Terms
from tests.process_helpers import flock_holder, locked_elsewhere, until
from tests.registry.world import World
from tests.reliability.boundaries import AT, OPERATIONS, Operation, in_folder
from tests.reliability.io_faults import Faults, no_waiting_for_the_disk

if TYPE_CHECKING:
    from pathlib import Path


def _operation(name: str) -> Operation:
    return next(operation for operation in OPERATIONS if operation.name == name)


def a_strangers_flock_is_respected(folder: Path) -> None:
    path = folder / ".lock"
    with flock_holder(path):
        lock = DirectoryLock(str(folder))
        try:
            lock.acquire(0.2)
        except LockTimeout:
            return
        lock.release()
        raise AssertionError("both hold it")


def our_lock_keeps_a_stranger_out(folder: Path) -> None:
    with DirectoryLock(str(folder)).held():
        assert locked_elsewhere(folder / ".lock")


def a_copy_of_the_descriptor_keeps_no_lock(folder: Path) -> None:
    # What a child between fork and exec has.
    lock = DirectoryLock(str(folder))
    with lock.held():
        here = lock_file.identity_of((folder / ".lock").stat())
        [fd] = [fd for fd, (identity, _, _) in lock_file._open.items() if identity == here]
        copy = os.dup(fd)
    try:
        assert not locked_elsewhere(folder / ".lock")
    finally:
        os.close(copy)


def a_lock_on_a_replaced_file_is_taken_anew(folder: Path) -> None:
    path = folder / ".lock"
    taken = threading.Event()
    done = threading.Event()

    def wait() -> None:
        with DirectoryLock(str(folder)).held(60):
            taken.set()
            done.wait(60)

    with flock_holder(path) as holder:
        waiter = threading.Thread(target=wait)
        waiter.start()
        until(lambda: lock_file._open, "the waiter's descriptor")
        os.rename(path, folder / "old")
        path.touch()
        holder.kill()
        try:
            assert taken.wait(60)
            assert locked_elsewhere(path)
        finally:
            done.set()
            waiter.join()


def no_power_cut_tears_or_loses(folder: Path) -> None:
    from tests.reliability.test_power_loss import check_every_outage

    with no_waiting_for_the_disk():
        for name in ("reserve", "take over after the TTL", "release", "delete"):
            (folder / name).mkdir()
            check_every_outage(_operation(name), folder / name)


def no_power_cut_takes_a_damaged_file(folder: Path) -> None:
    from tests.reliability.mending import MENDING
    from tests.reliability.test_power_loss import check_every_outage

    with no_waiting_for_the_disk():
        for operation in MENDING:
            if operation.name in ("move a damaged entry away", "write a damaged claim anew"):
                (folder / operation.name).mkdir()
                check_every_outage(operation, folder / operation.name)


def whatever_fails_is_told_as_it_is(folder: Path) -> None:
    from tests.reliability.test_every_boundary import table_of

    with no_waiting_for_the_disk():
        for name in ("release", "log a query over the brim"):
            (folder / name).mkdir()
            table_of(_operation(name), folder / name)


def _world(folder: Path) -> World:
    return World("directory", folder)


def _indexed(folder: Path) -> World:
    world = _world(folder)
    for name in ("agent-a", "agent-b"):
        world.present(name, f"f/{name}", native_actor_key=f"x:{name}")
    for _ in range(2):
        assert len(world.registry.list()) == 2
    for files in (world.store._folders.agents, world.store._folders.claims):  # type: ignore[attr-defined]
        files.tick_ns = 0
    return world


def a_strangers_entry_is_seen(folder: Path) -> None:
    world = _indexed(folder)
    _as_a_stranger(world, "agent-c")
    found = {entry.session_id for entry in world.registry.look(Query(thread="f/agent-c")).entries}
    assert found == {"agent-c"}


def a_strangers_entry_is_seen_after_we_wrote(folder: Path) -> None:
    world = _indexed(folder)
    store: Any = world.store
    trusted = store._index.folder_stamps()
    assert store._index.is_at(trusted)
    _as_a_stranger(world, "agent-c")
    # A write that the index takes note of, in the moment after the stranger's.
    writer = writing.Writer(store.layout, store._folders, store._index, world.store.peek(Keys())[0])
    writer._entries["agent-a.toml"] = world.loaded("agent-a")
    writer._stamp(store._index.folder_stamps())
    directory._shared.clear()
    fresh = _fresh(world)
    found = {entry.session_id for entry in fresh.registry.look(Query(thread="f/agent-c")).entries}
    assert found == {"agent-c"}


def _fresh(world: World) -> World:
    return in_folder(world, world.folder)


def _as_a_stranger(world: World, session_id: str) -> None:
    entry = world.entry(session_id, f"f/{session_id}")
    temp = world.folder / "agents" / ".new"
    temp.write_bytes(entry_to_toml(entry))
    temp.rename(world.folder / "agents" / f"{session_id}.toml")


def an_edit_in_place_is_seen(folder: Path) -> None:
    world = _indexed(folder)
    directory._shared.clear()
    fresh = _fresh(world)
    path = world.folder / "agents" / "agent-a.toml"
    path.write_bytes(path.read_bytes().replace(b'base_state = "hd-base"', b'base_state = "edited"'))
    found = fresh.registry.find_active_by_native_actor_key("x:agent-a")
    assert found is not None
    assert found.base_state == "edited"


def a_stepped_or_sleeping_clock_ends_no_claim(folder: Path) -> None:
    world = _world(folder)
    world.reserve()
    world.host.step_wall(100_000)
    world.refused()
    world.host.suspend(100_000)
    world.refused()


def a_ttl_ends_a_claim_and_only_then(folder: Path) -> None:
    world = _world(folder)
    world.reserve()
    world.host.advance(299)
    world.refused()
    world.host.step_wall(-100_000)
    world.host.advance(2)
    world.reserve()


def each_holder_has_a_greater_fence(folder: Path) -> None:
    world = _world(folder)
    fences = []
    for _ in range(3):
        fences.append(world.reserve().fence)
        world.host.advance(301)
    assert fences == sorted(set(fences))


def an_old_fence_and_an_old_token_are_refused(folder: Path) -> None:
    world = _world(folder)
    first = world.reserve()
    world.host.advance(301)
    second = world.reserve()
    assert not world.registry.check("main", first.fence).valid
    assert world.registry.check("main", second.fence).valid
    with pytest.raises(ClaimLost) as lost:
        world.registry.heartbeat(first.entry.session_id, first.token)
    assert lost.value.by == second.entry.session_id


def the_holders_entry_is_there(folder: Path) -> None:
    world = _world(folder)
    held = world.reserve()
    stored = world.registry.load(held.entry.session_id)
    assert stored is not None
    assert stored.is_active
    assert stored.fence == held.fence
    claim = world.store.peek(Keys(threads=("main",)))[0].claims.get("main")
    assert claim is not None
    assert claim.holder is not None
    assert claim.holder.session_id == stored.session_id
    directory._shared.clear()
    assert isinstance(_fresh(world).try_reserve(), LiveOwner)


def an_entry_without_its_claim_blocks_nobody(folder: Path) -> None:
    world = _world(folder)
    held = world.reserve(pid=world.host.spawn(["owner"]))
    world.registry.release(held.entry.session_id, token=held.token)
    # What a crash before the claim leaves.
    orphan = attrs.evolve(held.entry, session_id="agent-orphan").extended(fence=held.fence + 1)
    (world.folder / "agents" / "agent-orphan.toml").write_bytes(entry_to_toml(orphan))
    taken = world.reserve()
    assert taken.fence > held.fence + 1
    assert world.loaded("agent-orphan").status is AgentStatus.ABANDONED


def a_wrong_token_is_told_nothing(folder: Path) -> None:
    world = _world(folder)
    held = world.reserve()
    stories = set()
    for _ in range(2):
        try:
            world.registry.heartbeat(held.entry.session_id, "guess")
        except ClaimLost as lost:
            stories.add(lost.why)
        else:
            raise AssertionError("a guess was accepted")
        world.host.advance(301)
        world.on_terms(force_reason="a secret reason", ttl_s=60)
    assert stories == {"token refused"}


def a_forced_holder_is_told_who_and_why(folder: Path) -> None:
    world = _world(folder)
    held = world.reserve()
    taker = world.on_terms(force_reason="the release is today", ttl_s=60)
    assert isinstance(taker, Reserved)
    with pytest.raises(ClaimLost) as lost:
        world.registry.heartbeat(held.entry.session_id, held.token)
    assert lost.value.by == taker.entry.session_id
    assert "the release is today" in lost.value.why


def who_cannot_be_seen_is_not_reaped(folder: Path) -> None:
    world = _world(folder)
    held = world.reserve(pid=world.host.spawn(["owner"]))
    elsewhere = world.seen_from(world.host.in_namespace(pid_ns="inner"))
    elsewhere.sweep()
    other_host = world.seen_from(world.host.other_machine())
    other_host.sweep()
    assert world.loaded(held.entry.session_id).is_active
    assert isinstance(elsewhere.try_reserve_thread("main", world.building()), LiveOwner)


def the_dead_free_their_branch(folder: Path) -> None:
    world = _world(folder)
    for end in (
        world.host.kill,
        lambda pid: world.host.kill(pid, zombie=True),
        world.host.reuse,
    ):
        pid = world.host.spawn(["owner"])
        held = world.reserve(pid=pid)
        end(pid)
        taken = world.reserve()
        assert taken.fence > held.fence
        world.registry.release(taken.entry.session_id, token=taken.token)


def a_held_liveness_lock_is_life(folder: Path) -> None:
    world = _world(folder)
    terms = {"owner": world.registry.owner_for(world.host.spawn(["gone"])), "hold_liveness": True}
    build = world.building("main")
    outcome, lock = world.registry.reserve_on_terms("main", build, Terms(**terms))
    assert isinstance(outcome, Reserved)
    assert lock is not None
    assert terms["owner"] is not None
    world.host.kill(terms["owner"].pid)
    try:
        world.refused()
    finally:
        lock.release()
    world.reserve()


def nobody_overtakes_who_waits(folder: Path) -> None:
    world = _world(folder)
    with world.store.join_line("main", 60):
        assert world.refused().entry is None
    world.reserve()


def a_dead_waiter_is_passed_over(folder: Path) -> None:
    world = _world(folder)
    with world.store.join_line("main", 60):
        [queue] = (world.folder / "wait").iterdir()
    (queue / "0000000000000001").write_text("")
    world.reserve()


def a_damaged_record_closes_its_branch_and_no_other(folder: Path) -> None:
    world = _world(folder)
    world.reserve(pid=world.host.spawn(["owner"]))
    [claim] = (world.folder / "claims").glob("*.toml")
    claim.write_bytes(b"not toml")
    (world.folder / "agents" / "agent-bad.toml").write_bytes(
        b'thread = "other"\nstatus = "active"\npid = 1\nnot toml\n'
    )
    for thread in ("main", "other"):
        try:
            world.reserve(thread)
        except RegistryError:
            continue
        raise AssertionError(f"{thread} was granted over a record that nobody could read")
    try:
        world.reserve("third")
    except RegistryError as error:
        raise AssertionError("what nobody could read closed a branch it does not name") from error


def a_newer_programs_entry_is_not_rewritten(folder: Path) -> None:
    world = _world(folder)
    world.present("agent-new")
    path = world.folder / "agents" / "agent-new.toml"
    path.write_bytes(path.read_bytes() + b"\n[heddle_registry]\nschema = 99\n")
    before = path.read_bytes()
    for change in (
        lambda: world.registry.update_status("agent-new", "complete"),
        lambda: world.registry.log_context_query(
            "agent-new", ContextQueryEntry(path="p", scope="s", queried_at=AT)
        ),
    ):
        try:
            change()
        except RegistryError:
            continue
        raise AssertionError("rewritten")
    assert path.read_bytes() == before


def no_link_is_followed(folder: Path) -> None:
    victim = folder / "victim"
    victim.mkdir()
    (victim / ".notes.tmp").write_text("precious")
    world = _world(folder)
    world.reserve()
    (world.folder / "tmp").rmdir()
    (world.folder / "tmp").symlink_to(victim)
    with contextlib.suppress(RegistryError):
        world.reserve("other")
    assert (victim / ".notes.tmp").exists()


def a_killed_writers_temp_file_goes_with_the_next_write(folder: Path) -> None:
    world = _world(folder)
    world.reserve()
    (world.folder / "tmp" / ".agent-x.toml.0123456789abcdef.tmp").write_text("half")
    world.reserve("other")
    assert list((world.folder / "tmp").iterdir()) == []


def one_folder_is_for_one_branch(folder: Path) -> None:
    world = _world(folder)
    world.reserve("one", path=str(folder))
    world.refused("two", path=str(folder))


def the_entry_is_written_before_the_claim_that_names_it(folder: Path) -> None:
    world = _world(folder)
    with Faults(str(world.folder)) as faults:
        world.reserve()
    renamed = [call.to.partition("/")[0] for call in faults.calls if call.name == "replace"]
    assert [folder for folder in renamed if folder in ("agents", "claims")] == ["agents", "claims"]


def a_pid_of_another_namespace_proves_nothing(folder: Path) -> None:
    owner = Owner(pid=7, boot_id="b", host="h", pid_ns="inner", time_ns="t", start_ticks=1)
    for state in (ProcessState.MISSING, ProcessState.RUNNING, ProcessState.ZOMBIE):
        seen = Observation(boot_id="b", host="h", pid_ns="outer", time_ns="t", process=state,
                           start_ticks=2)  # fmt: skip
        verdict = evidence.judge(Subject(session_id="agent-a", owner=owner), seen)
        assert verdict.kind is VerdictKind.UNKNOWN, state


def only_our_own_temp_files_are_swept(folder: Path) -> None:
    world = _world(folder)
    world.reserve()
    (world.folder / "tmp" / "letter.doc").write_text("precious")
    world.reserve("other")
    assert (world.folder / "tmp" / "letter.doc").exists()


def who_lost_the_folder_is_not_renewed(folder: Path) -> None:
    world = _world(folder)
    first = world.reserve("one", path=str(folder))
    world.host.advance(301)
    world.reserve("two", path=str(folder))
    with pytest.raises(ClaimLost):
        world.registry.heartbeat(first.entry.session_id, first.token)
