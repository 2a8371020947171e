"""Facts are gathered outside the exclusion, belong to one owner, and run out after three rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from heddle_registry import LiveOwner, Reserved
from heddle_registry.core.evidence import Observation, ProcessState, Subject
from heddle_registry.core.transaction import Decision, Keys, PutClaim, PutEntry
from heddle_registry.registry import AgentRegistry
from tests.registry.world import World

if TYPE_CHECKING:
    from pathlib import Path


class Shifting:
    """Before each look another process takes the branch over, and dies."""

    def __init__(self, world: World, times: int) -> None:
        self.world = world
        self.times = times
        self.looks = 0

    def observe(self, subject: Subject) -> Observation:
        self.looks += 1
        if self.looks <= self.times:
            self._replace_holder()
        return self.world.host.observe(subject)

    def __getattr__(self, name: str) -> object:
        return getattr(self.world.host, name)

    def _replace_holder(self) -> None:
        loaded, now = self.world.store.peek(Keys(threads=("main",)))
        claim = loaded.claims["main"]
        assert claim.holder is not None
        pid = self.world.host.spawn([f"agent-{self.looks}"])
        owner = self.world.host.owner_for(pid)
        entry = self.world.entry(f"agent-{self.looks}", pid=pid, boot_id="boot-1")
        entry = entry.extended(owner=owner, fence=claim.fence + 1)
        holder = attrs.evolve(claim.holder, session_id=entry.session_id, owner=owner)
        taken = claim.granted(attrs.evolve(holder, renewed_at=now), claim.fence + 1, None)
        effects = (PutEntry(entry), PutClaim(taken))
        self.world.store.transact(Keys(), lambda *_: Decision(effects=effects), {})
        self.world.host.kill(pid)


@pytest.mark.parametrize(("times", "granted"), [(0, True), (2, True), (100, False)])
def test_a_branch_that_changes_hands_during_every_look_is_refused_not_guessed(
    world: World, times: int, granted: bool
) -> None:
    pid = world.host.spawn(["first"])
    first = world.reserve(pid=pid)
    world.host.kill(pid)
    host = Shifting(world, times)
    registry = AgentRegistry(store=world.store, host=host)  # type: ignore[arg-type]
    outcome = registry.try_reserve_thread("main", world.building())
    assert isinstance(outcome, Reserved if granted else LiveOwner)
    assert host.looks < 20
    if isinstance(outcome, Reserved):
        assert outcome.fence == first.fence + 1 + min(times, host.looks)


def test_what_was_seen_of_one_owner_is_not_held_against_the_next(world: World) -> None:
    dead = world.host.spawn(["first"])
    world.reserve(pid=dead)
    subject = world.store.peek(Keys(threads=("main",)))[0].claims["main"].holder
    assert subject is not None
    world.host.kill(dead)
    seen = world.host.observe(subject.subject(1))
    assert seen.process is ProcessState.MISSING
    lives = world.host.spawn(["second"])
    world.reserve(pid=lives)
    refused = world.refused()
    assert refused.verdict is not None
    assert refused.verdict.is_alive


class Ordered:
    """Notes in which order the store is asked and the host looks."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        for name, owner in (("peek", world.store), ("transact", world.store)):
            self._noted(monkeypatch, owner, name)
        self._noted(monkeypatch, world.host, "observe")

    def _noted(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        real = getattr(owner, name)

        def noted(*given: object, **named: object) -> object:
            self.done.append(name)
            return real(*given, **named)

        monkeypatch.setattr(owner, name, noted)

    def of(self, world: World, held: Reserved) -> list[str]:
        self.done.clear()
        world.registry.heartbeat(held.entry.session_id, held.token)
        return list(self.done)


def test_a_heartbeat_of_a_holder_known_here_looks_at_it_before_the_lock_and_asks_the_store_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = world.reserve(pid=world.host.spawn(["agent"]))
    order = Ordered(world, monkeypatch)
    assert order.of(world, held) == ["observe", "transact"]
    world.registry = AgentRegistry(store=world.store, host=world.host)
    assert order.of(world, held) == ["peek", "observe", "transact"]
    assert order.of(world, held) == ["observe", "transact"]


def test_what_a_heartbeat_was_to_look_at_is_a_hint_and_proves_nothing_of_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = world.reserve(pid=world.host.spawn(["agent"]))
    session_id, hint = held.entry.session_id, world.registry._watched
    dead = world.host.spawn(["another"])
    owner = world.host.owner_for(dead)
    world.host.kill(dead)
    whom = tuple(attrs.evolve(known, owner=owner) for known in hint[session_id].subjects)
    hint[session_id] = hint[session_id]._replace(subjects=whom)
    order = Ordered(world, monkeypatch)
    assert order.of(world, held) == ["observe", "transact", "observe", "transact"]
    assert order.of(world, held) == ["observe", "observe", "transact"], "it knows better now"


def test_a_heartbeat_looks_at_all_whom_it_needs_before_it_takes_the_lock_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("directory", tmp_path)
    folder = str(tmp_path / "tree")
    ended = world.host.spawn(["another"])
    world.reserve("two", path=folder, pid=ended)
    world.host.kill(ended)
    held = world.reserve(path=folder, pid=world.host.spawn(["agent"]))
    order = Ordered(world, monkeypatch)
    order.of(world, held)
    for _ in range(3):
        assert order.of(world, held).count("transact") == 1


def test_a_registry_remembers_whom_to_look_at_for_a_bounded_number_of_holders(
    world: World,
) -> None:
    pid = world.host.spawn(["agent"])
    held = [world.reserve(f"branch-{number}", pid=pid) for number in range(300)]
    assert 0 < len(world.registry._watched) <= 256
    for one in (held[0], held[-1]):
        assert world.registry.heartbeat(one.entry.session_id, one.token).fence == one.fence
