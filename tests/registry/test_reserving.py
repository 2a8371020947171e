"""Who gets a branch, who is refused, and that a refusal leaves no trace."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import (
    AgentEntry,
    AgentStatus,
    ClaimLost,
    Held,
    LiveOwner,
    Reserved,
    StoreUnavailable,
    UsageError,
    VerdictKind,
)
from heddle_registry.adapters import record_files
from heddle_registry.adapters.atomic_file import UnreadableFile
from heddle_registry.adapters.found_records import FoundRecords
from heddle_registry.core.limits import MAX_SWEEP
from heddle_registry.ports.query import Query
from tests.registry.world import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_holder_is_named_with_evidence_to_whoever_is_refused_and_nothing_is_written(
    world: World,
) -> None:
    pid = world.host.spawn(["agent"])
    held = world.reserve(pid=pid, harness="codex")
    assert (held.fence, held.is_new, held.present) == (1, True, ())
    assert held.token
    before = world.records()
    refused = world.refused()
    assert refused.entry is not None
    assert refused.entry.session_id == held.entry.session_id
    assert refused.state == "held"
    assert refused.verdict is not None
    assert [evidence.code for evidence in refused.verdict.evidence] == ["process"]
    assert f"{held.entry.session_id} (codex) holds it since" in refused.why
    assert f"process {pid} (agent) ends" in refused.frees_when
    with pytest.raises(Held) as caught:
        world.registry.create_generated_entry_for_thread("main", world.building())
    assert caught.value.holder == refused.entry
    assert world.records() == before
    assert world.records() == before


def test_a_branch_of_another_name_is_another_branch(world: World) -> None:
    world.reserve("feature/a")
    assert world.reserve("feature/A").fence == 1
    assert world.reserve("feature/a/b").fence == 1


def test_an_owner_without_a_pid_holds_for_three_hundred_seconds_awake(world: World) -> None:
    held = world.reserve()
    world.host.suspend(86_400)
    world.host.step_wall(-40 * 86_400)
    world.host.advance(299)
    assert world.refused().frees_when == "It frees when it is released or its TTL passes in 1 s"
    world.host.advance(1)
    taker = world.reserve()
    assert taker.fence == held.fence + 1
    assert world.loaded(held.entry.session_id).status is AgentStatus.ABANDONED
    with pytest.raises(ClaimLost) as lost:
        world.registry.heartbeat(held.entry.session_id, held.token)
    assert lost.value.by == taker.entry.session_id
    assert "its TTL had passed, and it was taken over by" in lost.value.why


def test_death_frees_a_branch_at_once_and_its_entry_is_abandoned(world: World) -> None:
    deaths: list[Callable[[int], None]] = [
        world.host.kill,
        lambda pid: world.host.kill(pid, zombie=True),
        world.host.reuse,
    ]
    for number, die in enumerate(deaths):
        pid = world.host.spawn(["agent"])
        held = world.reserve(pid=pid)
        assert held.fence == number + 1
        die(pid)
    assert world.reserve().fence == len(deaths) + 1
    ended = [entry.status for entry in world.registry.list() if not entry.is_active]
    assert ended == [AgentStatus.ABANDONED] * len(deaths)


def test_who_cannot_be_looked_at_blocks_and_is_never_reaped(world: World) -> None:
    pid = world.host.spawn(["agent"])
    world.reserve(pid=pid)
    world.host.hide(pid)
    elsewhere = [
        world.registry,
        world.seen_from(world.host.in_namespace(pid_ns="inner")),
        world.seen_from(world.host.in_namespace(time_ns="shifted")),
        world.seen_from(world.host.other_machine()),
    ]
    before = world.records()
    for registry in elsewhere:
        outcome = registry.try_reserve_thread("main", world.building())
        assert isinstance(outcome, LiveOwner)
        assert outcome.verdict is not None
        assert outcome.verdict.kind is VerdictKind.UNKNOWN
        assert registry.reap_dead() == 0
    assert world.records() == before


def test_after_a_reboot_the_branch_is_free_on_the_same_machine_alone(world: World) -> None:
    pid = world.host.spawn(["agent"])
    world.reserve(pid=pid)
    other = world.seen_from(world.host.other_machine())
    world.host.reboot()
    assert isinstance(other.try_reserve_thread("main", world.building()), LiveOwner)
    assert world.reserve().fence == 2


def test_mere_presence_blocks_a_stranger_until_it_ends_or_dies(world: World) -> None:
    pid = world.host.spawn(["codex"])
    world.present("agent-here", pid=pid)
    world.present("agent-elsewhere", "other", pid=pid)
    refused = world.refused()
    assert (refused.state, refused.entry) == ("occupied", world.loaded("agent-here"))
    assert "without a claim" in refused.why
    world.host.kill(pid)
    held = world.reserve(pid=world.host.own_pid())
    assert world.loaded("agent-here").status is AgentStatus.ABANDONED
    assert world.loaded("agent-elsewhere").is_active, "another branch is not its business"
    assert held.present == ()
    unknown = world.present("agent-unknown", "third")
    assert world.refused("third").entry == unknown
    world.registry.update_status("agent-unknown", "complete")
    assert world.reserve("third").fence == 1


def test_entries_of_the_same_process_and_of_the_family_do_not_block(world: World) -> None:
    pid = world.host.spawn(["claude"])
    owner = world.host.owner_for(pid)
    assert owner is not None

    def attached(session_id: str, **keys: str) -> AgentEntry:
        # Attaching records the owner that it saw.
        fields = world.entry(session_id, pid=pid, boot_id=world.host.boot_id, **keys)
        from heddle_registry.core.edit import decide_attach
        from heddle_registry.core.transaction import Keys

        made = fields.extended(owner=owner)
        world.store.transact(Keys(), lambda loaded, *_: decide_attach(made, loaded), {})
        return world.loaded(session_id)

    family = [
        attached("agent-root", native_actor_key="root"),
        attached("agent-asks", native_actor_key="asks", native_parent_actor_key="root"),
        attached("agent-child", native_actor_key="child", native_parent_actor_key="asks"),
    ]
    same = world.on_terms(owner=owner)
    assert isinstance(same, Reserved)
    assert {entry.session_id for entry in same.present} == {e.session_id for e in family}
    world.registry.release(same.entry.session_id, token=same.token)

    stranger = world.present("agent-nephew", native_actor_key="n", native_parent_actor_key="root")
    assert isinstance(world.on_terms(asker="agent-asks", ttl_s=60), LiveOwner)
    world.registry.update_status(stranger.session_id, "complete")
    held = world.on_terms(asker="agent-asks", ttl_s=60)
    assert isinstance(held, Reserved)
    assert held.entry.native_actor_key is None
    assert held.entry.native_parent_actor_key == "asks"
    assert world.loaded("agent-asks") == family[1], "the asker's own entry stays as it was"
    chain = world.registry.actor_chain_for_session(held.entry.session_id)
    assert [node.session_id for node in chain[:-1]] == ["agent-root", "agent-asks"]
    assert isinstance(world.on_terms(ttl_s=60), LiveOwner)


def test_the_bearer_gets_the_same_entry_again_and_a_guess_gets_nothing(world: World) -> None:
    held = world.reserve()
    before = world.records()
    same = world.on_terms(bearer=held.token, ttl_s=5)
    assert isinstance(same, Reserved)
    assert (same.entry, same.fence, same.token) == (held.entry, held.fence, held.token)
    assert not same.is_new
    assert isinstance(world.on_terms(bearer="guess", ttl_s=5), LiveOwner)
    assert isinstance(world.on_terms(bearer="\udcff", ttl_s=5), LiveOwner)
    assert world.records() == before
    world.host.advance(301)
    again = world.on_terms(bearer=held.token, ttl_s=5)
    assert isinstance(again, Reserved)
    assert again.is_new, "an expired claim is renewed by a heartbeat, not by reserving"
    assert again.token != held.token


def test_force_takes_the_branch_spares_the_living_and_tells_the_old_holder(world: World) -> None:
    pid = world.host.spawn(["agent"])
    held = world.reserve(pid=pid)
    world.present("agent-lives", pid=world.host.spawn(["codex"]))
    world.present("agent-unknown")
    taken = world.on_terms(force_reason="they are on holiday", ttl_s=60)
    assert isinstance(taken, Reserved)
    assert taken.fence == held.fence + 1
    assert [entry.session_id for entry in taken.present] == ["agent-lives"]
    assert world.loaded("agent-lives").is_active
    for ended in (held.entry.session_id, "agent-unknown"):
        assert world.loaded(ended).status is AgentStatus.ABANDONED
    for door in (world.registry.heartbeat, lambda i, t: world.registry.release(i, token=t)):
        with pytest.raises(ClaimLost) as lost:
            door(held.entry.session_id, held.token)
        assert lost.value.by == taken.entry.session_id
        assert f"taken by force by {taken.entry.session_id} at " in lost.value.why
        assert "they are on holiday" in lost.value.why
    with pytest.raises(ClaimLost) as stranger:
        world.registry.heartbeat(held.entry.session_id, "guess")
    assert (stranger.value.by, stranger.value.why) == ("", "token refused")
    assert not world.registry.check("main", held.fence).valid
    assert world.registry.check("main", taken.fence).valid


def test_a_folder_is_granted_under_one_branch_at_a_time(world: World, tmp_path: Path) -> None:
    tree, other = tmp_path / "tree", tmp_path / "other"
    tree.mkdir()
    (tmp_path / "link").symlink_to(tree)
    world.reserve("one", path=str(tree))
    before = world.records()
    for spelling in (str(tree), str(tmp_path / "link"), f"{tree}/../tree/"):
        refused = world.refused("two", path=spelling)
        assert f"its folder {tree.resolve()} belongs to the claim on 'one'" in refused.why
    path = str(tree.resolve())
    forced = world.on_terms("two", path=path, force_reason="mine", ttl_s=60)
    assert isinstance(forced, LiveOwner), "force is for a branch, not for another branch's folder"
    assert world.records() == before
    world.reserve("three", path=str(other))
    world.reserve("four", path=str(tree / "inner"))
    world.host.advance(301)
    assert world.registry.check("one", 1).valid, "expired, but nobody took branch or folder"
    assert world.reserve("two", path=str(tree)).fence == 1
    late = world.registry.check("one", 1)
    assert not late.valid
    assert late.why == "its TTL has passed, and its folder belongs to the claim on 'two'"


@pytest.fixture(params=["on", "off"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in files, with the index or without."""
    if request.param == "off":
        monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", "off")
    return World("directory", tmp_path)


def nobody_can_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = record_files.read_with_stat

    def read(path: str, limit: int) -> object:
        if path == str(file):
            raise UnreadableFile(path, "io", "input/output error", errno.EIO)
        return real(path, limit)

    monkeypatch.setattr(record_files, "read_with_stat", read)
    os.utime(file)  # so that it is read again


def test_a_folder_whose_holder_may_be_in_a_file_that_cannot_be_read_is_granted_to_nobody(
    files: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = files
    tree = tmp_path / "tree"
    tree.mkdir()
    pid = world.host.spawn(["agent"])
    first = world.reserve("one", path=str(tree), pid=pid)
    elsewhere = world.reserve("two", path=str(tmp_path / "other"))
    claim = next(
        path
        for path in (world.folder / "claims").iterdir()
        if b'thread = "one"' in path.read_bytes()
    )
    with monkeypatch.context() as patched:
        nobody_can_read(claim, patched)
        for ask in (
            lambda: world.try_reserve("three", path=str(tree)),
            lambda: world.on_terms("three", path=str(tree.resolve()), force_reason="x", ttl_s=60),
        ):
            with pytest.raises(StoreUnavailable, match=claim.name):
                ask()
        # Whoever needs to know of no other folder goes on.
        world.reserve("four")
        world.registry.heartbeat(elsewhere.entry.session_id, elsewhere.token)
        world.registry.release(elsewhere.entry.session_id, token=elsewhere.token)
    refused = world.refused("three", path=str(tree))
    assert refused.entry is not None
    assert refused.entry.session_id == first.entry.session_id


def test_a_newer_programs_claim_keeps_its_folder(files: World, tmp_path: Path) -> None:
    world = files
    folder = str(tmp_path / "tree")
    first = world.reserve("one", path=folder, pid=world.host.spawn(["agent"]))
    (claim,) = (world.folder / "claims").iterdir()
    newer = world.folder / "newer"
    newer.write_text(claim.read_text().replace("schema = 1", "schema = 99", 1))
    newer.rename(claim)
    for _ in range(2):
        refused = world.refused("two", path=folder)
        assert refused.entry is not None
        assert refused.entry.session_id == first.entry.session_id
    newer.write_text("schema = 99\nthread = [1]\n")  # nobody here can say whose it is
    newer.rename(claim)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="schema 99"):
            world.try_reserve("two", path=folder)
    assert isinstance(world.try_reserve("two"), Reserved)


def test_what_has_no_claims_name_keeps_nobodys_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("directory", tmp_path)
    world.reserve("one")
    notes = world.folder / "claims" / "notes.toml"
    notes.write_text("mine")
    nobody_can_read(notes, monkeypatch)
    world.reserve("two", path=str(tmp_path / "tree"))


def test_an_expired_claim_counts_as_lost_or_kept_only_where_its_folders_claims_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("directory", tmp_path)
    tree = str(tmp_path / "tree")
    held = world.reserve("one", path=tree)
    world.host.advance(301)
    world.reserve("two", path=tree)
    error = StoreUnavailable(tree, "input/output error")

    def fail(*_: object) -> object:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(FoundRecords, "claims_naming", fail)
        for ask in (
            lambda: world.registry.check("one", 1),
            lambda: world.registry.heartbeat(held.entry.session_id, held.token),
        ):
            with pytest.raises(StoreUnavailable, match="input/output error"):
                ask()
    assert not world.registry.check("one", 1).valid


def test_the_end_of_an_expired_claim_is_told_as_no_take_over(world: World) -> None:
    held = world.reserve("main")
    world.host.advance(301)
    assert world.registry.sweep(end_expired=True).reaped == (held.entry.session_id,)
    with pytest.raises(ClaimLost) as lost:
        world.registry.heartbeat(held.entry.session_id, held.token)
    assert "its TTL had passed, and it was ended at " in lost.value.why


@pytest.mark.parametrize(
    ("thread", "fields"),
    [
        ("", {}),
        ("a\nb", {}),
        ("a\0b", {}),
        ("x" * 2000, {}),
        ("lone \udcff", {}),
        ("main", {"pid": 0x7FFF_FFFF}),
        ("main", {"pid": 0}),
        ("main", {"pid": -1}),
        ("main", {"pid": 2**40}),
        ("main", {"path": "a\0b"}),
        ("main", {"status": AgentStatus.COMPLETE}),
        ("main", {"base_state": None}),
        ("main", {"started_at": "yesterday"}),
    ],
)
def test_a_mistaken_request_is_a_usage_error_and_makes_nothing(
    world: World, thread: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        world.try_reserve(thread, **fields)
    assert world.registry.list() == []
    assert not world.folder.exists()


@pytest.mark.parametrize("ttl_s", [0, -1, 0.5, 2_592_001, float("nan"), float("inf"), True, "9"])
def test_a_ttl_out_of_bounds_is_a_usage_error(world: World, ttl_s: Any) -> None:
    with pytest.raises(UsageError):
        world.on_terms(ttl_s=ttl_s)
    assert not world.folder.exists()


def test_a_builder_for_another_thread_or_of_no_entry_is_refused(world: World) -> None:
    for build in (world.building("other"), lambda _: None, lambda _: {"thread": "main"}):
        with pytest.raises(UsageError):
            world.registry.try_reserve_thread("main", build)
    assert not world.folder.exists()


def test_a_builder_may_name_an_unused_id_and_a_used_one_is_drawn_again(world: World) -> None:
    named = world.registry.try_reserve_thread("main", lambda _: world.entry("my-own-id"))
    assert isinstance(named, Reserved)
    assert named.entry.session_id == "my-own-id"
    before = world.records()
    calls: list[str] = []

    def always_the_same(new: str) -> AgentEntry:
        calls.append(new)
        return world.entry("my-own-id", "other")

    with pytest.raises(StoreUnavailable, match="in use"):
        world.registry.try_reserve_thread("other", always_the_same)
    assert len(set(calls)) == len(calls) < 20
    assert world.records() == before
    ids = iter(["my-own-id", "my-own-id", "another"])
    second = world.registry.try_reserve_thread("other", lambda _: world.entry(next(ids), "other"))
    assert isinstance(second, Reserved)


def test_a_builder_runs_without_the_lock_and_chooses_the_token(world: World) -> None:
    def build(new: str) -> AgentEntry:
        if world.registry.load("agent-beside") is None:
            world.registry.save(world.entry("agent-beside", "other"))  # would wait for itself
        return world.entry(new, reservation_token="my-secret")

    held = world.registry.try_reserve_thread("main", build)
    assert isinstance(held, Reserved)
    assert held.token == "my-secret"
    assert world.registry.heartbeat(held.entry.session_id, "my-secret").fence == held.fence
    assert world.loaded(held.entry.session_id).reservation_token is None


def test_what_a_builder_says_of_owner_and_fence_counts_for_nothing(world: World) -> None:
    held = world.reserve()
    forged = attrs.evolve(held.entry, session_id="agent-forged", thread="other")
    taken = world.registry.try_reserve_thread("other", lambda _: forged)
    assert isinstance(taken, Reserved)
    assert taken.fence == 1
    assert taken.token != held.token
    assert world.registry.check("main", held.fence).valid


def test_one_reserve_abandons_and_prunes_no_more_than_sixteen(world: World) -> None:
    gone = world.host.spawn(["x"])
    for number in range(MAX_SWEEP + 3):
        world.present(f"agent-dead-{number:02d}", pid=gone)
        done = world.entry(f"agent-done-{number:02d}", "other", status=AgentStatus.COMPLETE)
        world.registry.save(done)
    world.host.kill(gone)
    world.host.advance(8 * 86_400)
    world.reserve()
    left = world.registry.look(Query(include_stale=True)).entries
    assert len([entry for entry in left if entry.session_id.startswith("agent-done")]) == 3
    dead = [entry for entry in left if entry.session_id.startswith("agent-dead")]
    assert len([entry for entry in dead if entry.is_active]) == 3
    world.registry.sweep()
    assert all(not e.is_active for e in world.registry.list() if "dead" in e.session_id)
