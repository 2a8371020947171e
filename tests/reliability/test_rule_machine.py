"""Any order of any operations, on every store, against a plain dictionary and against each other.

Three worlds take each step: memory, the folder with its index, the folder without. Their hosts
have one seed, so that ids, tokens and salts are the same, and the answers must be, word for word.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from heddle_registry import AgentEntry, AgentStatus, Reserved
from heddle_registry.core.entry import ContextQueryEntry
from heddle_registry.core.transaction import Keys
from heddle_registry.errors import RegistryError
from heddle_registry.ports.query import Query
from tests.registry.world import World
from tests.reliability.boundaries import AT, forget
from tests.reliability.io_faults import no_waiting_for_the_disk

if TYPE_CHECKING:
    from collections.abc import Callable

BRANCHES = ("one", "two", "feature/ü")
TTL_S = 100.0
STATUSES = ("active", "complete", "merged", "abandoned")
LEADS = {
    "active": {"active", "complete", "merged", "abandoned"},
    "complete": {"complete", "merged"},
    "merged": {"merged"},
    "abandoned": {"abandoned"},
}


@attrs.define
class Grant:
    """What the dictionary knows of one grant."""

    session_id: str
    token: str
    branch: str
    fence: int
    pid: int | None
    ttl_s: float | None
    renewed_s: float
    is_over: bool = False


class Machine(RuleBasedStateMachine):
    """The dictionary: the newest grant of each branch, the status of each entry."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        place = memory if os.access(memory, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=place, prefix="heddle-test-"))
        self.worlds: list[World] = []
        for name in ("memory", "directory", "scanned"):
            (self.folder / name).mkdir()
            world = World("memory" if name == "memory" else "directory", self.folder / name)
            if name == "scanned":
                world.store._index.is_off = True
            self.worlds.append(world)
        self.now_s = 0.0
        self.newest: dict[str, Grant] = {}
        self.grants: list[Grant] = []
        self.status: dict[str, str] = {}
        self.alive: dict[str, int | None] = {}
        self.dead: set[int] = set()
        self.number = 0

    def teardown(self) -> None:
        for world in self.worlds[1:]:
            forget(world.folder)
        shutil.rmtree(self.folder)

    def all_say(self, ask: Callable[[World], Any]) -> Any:
        """Do the same in each world; the answers must be equal, errors too."""
        answers = []
        for world in self.worlds:
            try:
                answers.append(ask(world))
            except RegistryError as error:
                answers.append((type(error), str(error).replace(str(world.folder), "")))
        assert answers[0] == answers[1], "memory and folder disagree"
        assert answers[1] == answers[2], "the folder with and without its index disagree"
        return answers[0]

    # -- what the dictionary expects -----------------------------------------------------------

    def is_held(self, grant: Grant | None) -> bool:
        return grant is not None and not self.is_gone(grant) and not self.has_expired(grant)

    def is_gone(self, grant: Grant) -> bool:
        return grant.is_over or (grant.pid in self.dead and not self.has_expired(grant))

    def has_expired(self, grant: Grant) -> bool:
        return grant.ttl_s is not None and self.now_s >= grant.renewed_s + grant.ttl_s

    def is_occupied(self, branch: str) -> bool:
        return any(
            self.status[name] == "active" and pid not in self.dead
            for name, pid in self.alive.items()
            if name in self.status and name.startswith(f"agent-there-{BRANCHES.index(branch)}-")
        )

    def took(self, answer: Any, branch: str, pid: int | None, ttl_s: float | None) -> None:
        before = self.newest.get(branch)
        assert answer.fence > (before.fence if before is not None else 0)
        if before is not None:
            before.is_over = True
            if self.status.get(before.session_id) == "active":
                self.status[before.session_id] = "abandoned"
        grant = Grant(
            answer.entry.session_id, answer.token, branch, answer.fence, pid, ttl_s, self.now_s
        )
        self.newest[branch] = grant
        self.grants.append(grant)
        self.status[grant.session_id] = "active"

    # -- steps ---------------------------------------------------------------------------------

    @rule(branch=st.sampled_from(BRANCHES), owned=st.booleans(), timed=st.booleans())
    def reserve(self, branch: str, owned: bool, timed: bool) -> None:
        pids = [world.host.spawn(["owner"]) for world in self.worlds] if owned else [None] * 3
        ttl_s = TTL_S if timed or not owned else None
        by_world = dict(zip(map(id, self.worlds), pids, strict=True))

        def ask(world: World) -> Any:
            pid = by_world[id(world)]
            owner = world.registry.owner_for(pid) if pid is not None else None
            return world.on_terms(branch, owner=owner, ttl_s=ttl_s)

        answer = self.all_say(ask)
        expected = not self.is_held(self.newest.get(branch)) and not self.is_occupied(branch)
        assert isinstance(answer, Reserved) == expected, (answer, self.newest.get(branch))
        if isinstance(answer, Reserved):
            self.took(answer, branch, pids[0], ttl_s)

    @rule(branch=st.sampled_from(BRANCHES))
    def force(self, branch: str) -> None:
        answer = self.all_say(
            lambda world: world.on_terms(branch, ttl_s=TTL_S, force_reason="because")
        )
        assert isinstance(answer, Reserved)
        self.took(answer, branch, None, TTL_S)
        for name in list(self.alive):
            if name.startswith(f"agent-there-{BRANCHES.index(branch)}-"):
                self.forget_unless_alive(name)

    def forget_unless_alive(self, name: str) -> None:
        stored = self.worlds[0].registry.load(name)
        if stored is not None and self.status.get(name) == "active":
            pid = self.alive[name]
            is_alive = pid is not None and pid not in self.dead
            assert not is_alive or stored.status is AgentStatus.ACTIVE, "force ended the living"
            self.status[name] = stored.status.value

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), right=st.booleans())
    def heartbeat(self, data: st.DataObject, right: bool) -> None:
        grant = data.draw(st.sampled_from(self.grants))
        token = grant.token if right else "guess"
        answer = self.all_say(lambda world: world.registry.heartbeat(grant.session_id, token))
        accepted = not isinstance(answer, tuple)
        newest = self.newest[grant.branch] is grant
        expected = right and newest and not grant.is_over and grant.pid not in self.dead
        if self.status.get(grant.session_id) is not None:
            assert accepted == expected, (answer, grant)
        if accepted:
            grant.renewed_s = self.now_s

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), status=st.sampled_from(STATUSES[1:]))
    def release(self, data: st.DataObject, status: str) -> None:
        grant = data.draw(st.sampled_from(self.grants))
        answer = self.all_say(
            lambda world: world.registry.release(grant.session_id, status, token=grant.token)
        )
        if isinstance(answer, AgentEntry):
            assert status in LEADS[self.status[grant.session_id]]
            self.status[grant.session_id] = status
            grant.is_over = True

    @precondition(lambda self: self.grants)
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(self.grants))
        answer = self.all_say(
            lambda world: world.registry.hand_over(grant.session_id, grant.token, to_ttl_s=TTL_S)
        )
        assert isinstance(answer, Reserved) == (
            self.newest[grant.branch] is grant and self.is_held(grant)
        )
        if isinstance(answer, Reserved):
            self.status[grant.session_id] = "complete"
            self.took(answer, grant.branch, None, TTL_S)
            assert self.status[grant.session_id] == "complete"

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), off=st.integers(-1, 1))
    def check(self, data: st.DataObject, off: int) -> None:
        grant = data.draw(st.sampled_from(self.grants))
        fence = max(0, grant.fence + off)
        answer = self.all_say(lambda world: world.registry.check(grant.branch, fence))
        newest = self.newest[grant.branch]
        good = fence == newest.fence and not newest.is_over and newest.pid not in self.dead
        assert answer.valid == good

    @rule(branch=st.sampled_from(BRANCHES), owned=st.booleans())
    def arrive(self, branch: str, owned: bool) -> None:
        self.number += 1
        name = f"agent-there-{BRANCHES.index(branch)}-{self.number}"
        pids = [world.host.spawn(["there"]) if owned else None for world in self.worlds]
        for world, pid in zip(self.worlds, pids, strict=True):
            fields = {"pid": pid} if pid is not None else {}
            world.present(name, branch, native_actor_key=f"x:{self.number % 4}", **fields)
        self.status[name], self.alive[name] = "active", pids[0]

    @precondition(lambda self: self.status)
    @rule(data=st.data(), status=st.sampled_from(STATUSES))
    def update_status(self, data: st.DataObject, status: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.status)))
        answer = self.all_say(lambda world: world.registry.update_status(name, status))
        stored = self.status[name]
        assert isinstance(answer, AgentEntry) == (status in LEADS[stored]), (stored, status)
        if isinstance(answer, AgentEntry):
            self.status[name] = status
            self.end_claim_of(name)

    def end_claim_of(self, name: str) -> None:
        for grant in self.grants:
            if grant.session_id == name and self.status.get(name) != "active":
                grant.is_over = True

    @precondition(lambda self: self.status)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.status)))
        self.all_say(lambda world: world.registry.delete(name))
        del self.status[name]
        self.end_claim_of(name)

    @precondition(lambda self: self.status)
    @rule(data=st.data(), model=st.text(max_size=5))
    def update_entry(self, data: st.DataObject, model: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.status)))

        def change(entry: AgentEntry) -> AgentEntry:
            return attrs.evolve(entry, model=model)

        answer = self.all_say(lambda world: world.registry.update_entry(name, change))
        if self.status[name] != "active":
            assert isinstance(answer, tuple)

    @precondition(lambda self: self.status)
    @rule(data=st.data(), count=st.sampled_from([1, 120]))
    def log_query(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.status)))
        for number in range(1 if count == 1 else 3):
            query = ContextQueryEntry(path=f"p{number}", scope="s", queried_at=AT)
            self.all_say(lambda world, query=query: world.registry.log_context_query(name, query))

    @rule(seconds=st.sampled_from([1.0, 60.0, 101.0, 8 * 86_400.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        for world in self.worlds:
            world.host.advance(seconds)

    @rule(seconds=st.sampled_from([-500.0, 500.0]))
    def step_the_clock(self, seconds: float) -> None:
        for world in self.worlds:
            world.host.step_wall(seconds)

    @precondition(lambda self: self.living())
    @rule(data=st.data(), zombie=st.booleans())
    def kill(self, data: st.DataObject, zombie: bool) -> None:
        pid = data.draw(st.sampled_from(self.living()))
        for world in self.worlds:
            world.host.kill(pid, zombie=zombie)
        self.dead.add(pid)

    def living(self) -> list[int]:
        pids = {grant.pid for grant in self.grants} | set(self.alive.values())
        return sorted(pid for pid in pids if pid is not None and pid not in self.dead)

    @rule(prune=st.booleans(), end_expired=st.booleans())
    def sweep(self, prune: bool, end_expired: bool) -> None:
        swept = self.all_say(
            lambda world: attrs.evolve(
                found := world.registry.sweep(prune=prune, end_expired=end_expired),
                reaped=tuple(sorted(found.reaped)),
                pruned=tuple(sorted(found.pruned)),
                kept=tuple(sorted(found.kept)),
            )
        )
        for name in swept.reaped:
            assert self.is_reapable(name, end_expired), name
            self.status[name] = "abandoned"
            self.end_claim_of(name)
        for name in swept.pruned:
            assert self.status.pop(name) != "active"

    def is_reapable(self, name: str, end_expired: bool) -> bool:
        if name in self.alive:
            return self.alive[name] in self.dead
        [grant] = [grant for grant in self.grants if grant.session_id == name]
        return grant.pid in self.dead or (end_expired and self.has_expired(grant))

    # -- always --------------------------------------------------------------------------------

    @invariant()
    def the_stores_hold_the_same(self) -> None:
        def held(world: World) -> Any:
            look = world.store.look(Query(include_stale=True))
            loaded = world.store.peek(Keys(threads=BRANCHES))[0]
            assert look.problems == ()
            return look.entries, dict(loaded.claims)

        entries, claims = self.all_say(held)
        stored = {entry.session_id: entry.status.value for entry in entries}
        # A reserve prunes what is stale and abandons the dead on its way.
        for name, status in self.status.items():
            if name in stored and stored[name] != status:
                assert (status, stored[name]) == ("active", "abandoned"), (name, stored[name])
                assert self.is_reapable(name, end_expired=True), name
            if name not in stored:
                assert status != "active"
        self.status = {name: stored[name] for name in self.status if name in stored}
        for name in list(self.status):
            self.end_claim_of(name)
        for branch, claim in claims.items():
            newest = self.newest.get(branch)
            if newest is not None:
                assert claim.fence == newest.fence

    @invariant()
    def look_ups_answer_alike(self) -> None:
        key = f"x:{self.number % 4}"
        self.all_say(lambda world: world.registry.find_active_by_native_actor_key(key))
        self.all_say(lambda world: world.registry.list())


def _run(examples: int, steps: int) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        # Shrinking thirty steps on a disk takes minutes; the steps of a failure are printed.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    with no_waiting_for_the_disk():
        run_state_machine_as_test(Machine, settings=chosen)


def test_every_store_answers_as_the_plain_dictionary_does() -> None:
    _run(40, 30)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_every_store_answers_so_for_much_longer() -> None:
    _run(1_000, 60)
