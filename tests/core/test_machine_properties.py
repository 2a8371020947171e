"""Any order of steps of any agents, against a plain dictionary of who should have what.

The exploration proves promises; this compares answers. The dictionary knows fences, owners, TTLs
and folders, and none of the core's records.
"""

from __future__ import annotations

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from heddle_registry.adapters.memory import MemoryStore
from heddle_registry.core.edit import decide_attach, decide_delete, decide_status
from heddle_registry.core.entry import AgentEntry, EntryExtension
from heddle_registry.core.lifecycle import AgentStatus, EntryEvent
from heddle_registry.core.release import (
    Bearer,
    HandOverRequest,
    decide_hand_over,
    decide_release,
)
from heddle_registry.core.renew import decide_renew, judge_fence
from heddle_registry.core.reserve import Reserved, ReserveRequest, decide_reserve
from heddle_registry.core.standing import Witness, stand
from heddle_registry.core.sweep import decide_sweep
from heddle_registry.core.token import hash_token
from heddle_registry.core.transaction import Keys, NeedFacts, PutEntry, RemoveEntry, fact_key
from heddle_registry.ports.query import Query
from heddle_registry.testing.fake_host import FakeHost

AGENTS = st.integers(0, 2)
BRANCHES = st.sampled_from(["one", "two"])
FOLDERS = st.sampled_from([None, "/w", "/w", "/v"])
KINDS = st.sampled_from(["owner", "ttl", "both"])
TTL_S = 100.0


@attrs.define
class Grant:
    """What the dictionary knows of one grant, held or over."""

    session_id: str
    branch: str
    fence: int
    pid: int | None
    ttl_s: float | None
    path: str | None
    renewed_s: float
    lost: bool = False


class Agents(RuleBasedStateMachine):
    @initialize(kinds=st.tuples(KINDS, KINDS), path=FOLDERS)
    def begin(self, kinds, path):
        self.host = FakeHost()
        self.store = MemoryStore(self.host)
        self.pids = {agent: self.host.spawn([f"agent-{agent}"]) for agent in range(3)}
        self.dead: set[int] = set()
        self.awake_s = 0.0
        self.fences = {"one": 0, "two": 0}
        self.holders: dict[str, Grant] = {}
        self.present: dict[str, tuple[str, int]] = {}
        self.grants: list[Grant] = []
        self.ids = 0
        self.reserve(0, "one", kinds[0], path, force=False)
        self.reserve(1, "two", kinds[1], None, force=False)

    # -- the dictionary's view

    def is_over(self, grant: Grant) -> bool:
        return grant.ttl_s is not None and self.awake_s - grant.renewed_s >= grant.ttl_s

    def state_of(self, branch: str) -> str:
        grant = self.holders.get(branch)
        if grant is None:
            return "none"
        is_dead = grant.pid in self.dead
        if grant.lost:
            process_over = grant.pid is None or is_dead
            ttl_over = grant.ttl_s is None or self.is_over(grant)
            return "none" if process_over and ttl_over else "lost"
        if self.is_over(grant):
            return "expired"
        return "none" if is_dead else "held"

    def folder_taken(self, path: str | None, branch: str) -> bool:
        return path is not None and any(
            grant.path == path and other != branch and self.state_of(other) in ("held", "lost")
            for other, grant in self.holders.items()
        )

    def living_on(self, branch: str) -> set[int]:
        return {
            pid for where, pid in self.present.values() if where == branch and pid not in self.dead
        }

    # -- the core's view

    def transact(self, keys, decide):
        facts = {}
        for _ in range(4):
            outcome = self.store.transact(keys, decide, facts)
            if not isinstance(outcome, NeedFacts):
                return outcome
            for subject in outcome.subjects:
                facts[fact_key(subject)] = self.store.observe(self.host, subject)
        raise AssertionError("it asks for facts again and again")

    def new_id(self) -> str:
        self.ids += 1
        return f"agent-{self.ids}"

    def entry(self, session_id: str, branch: str, pid: int | None) -> AgentEntry:
        return AgentEntry(
            session_id=session_id,
            thread=branch,
            base_state="b",
            started_at=self.host.now().at,
            status=AgentStatus.ACTIVE,
            pid=pid,
            boot_id=None if pid is None else self.host.boot_id,
        )

    def granted(self, session_id, branch, fence, pid, ttl_s, path):
        assert fence > self.fences[branch]
        self.fences[branch] = fence
        grant = Grant(session_id, branch, fence, pid, ttl_s, path, self.awake_s)
        self.holders[branch] = grant
        self.grants.append(grant)

    # -- what agents do

    @rule(agent=AGENTS, branch=BRANCHES, kind=KINDS, path=FOLDERS)
    def ask(self, agent, branch, kind, path):
        self.reserve(agent, branch, kind, path, force=False)

    @rule(agent=AGENTS, branch=BRANCHES, kind=KINDS, path=FOLDERS)
    def take_by_force(self, agent, branch, kind, path):
        self.reserve(agent, branch, kind, path, force=True)

    def reserve(self, agent, branch, kind, path, force):
        pid = None if kind == "ttl" else self.pids[agent]
        ttl_s = None if kind == "owner" else TTL_S
        session_id = self.new_id()
        request = ReserveRequest(
            thread=branch,
            entry=self.entry(session_id, branch, pid),
            token=hash_token(session_id, b"s"),
            owner=None if pid is None else self.host.owner_for(pid),
            ttl_s=ttl_s,
            path=path,
            force_reason="r" if force else None,
        )
        decision = self.transact(
            Keys(threads=(branch,), path=path, fresh_ids=(session_id,), stale=True),
            lambda loaded, now, facts: decide_reserve(request, loaded, now, facts),
        )
        state = self.state_of(branch)
        others = self.living_on(branch) - {pid}
        may = (force or (state in ("none", "expired") and not others)) and not self.folder_taken(
            path, branch
        )
        assert isinstance(decision.answer, Reserved) is may, (state, others, decision)
        if not may:
            assert decision.effects == ()
            return
        assert decision.answer.fence == self.fences[branch] + 1
        self.granted(session_id, branch, decision.answer.fence, pid, ttl_s, path)
        self.forget_dead_presences(branch)

    def forget_dead_presences(self, branch):
        self.present = {
            i: (where, pid)
            for i, (where, pid) in self.present.items()
            if where != branch or pid not in self.dead
        }

    @precondition(lambda self: self.grants)
    @rule(pick=st.integers(0, 9), right=st.booleans())
    def renew(self, pick, right):
        grant = self.grants[-1 - pick % len(self.grants)]
        token = grant.session_id if right else "guess"
        decision = self.transact(
            Keys(sessions=(grant.session_id,)),
            lambda loaded, now, facts: decide_renew(grant.session_id, token, loaded, now, facts),
        )
        state = self.state_of(grant.branch)
        may = (
            right
            and self.holders.get(grant.branch) is grant
            and grant.pid not in self.dead
            and (
                state == "held"
                or (state == "expired" and not self.folder_taken(grant.path, grant.branch))
            )
        )
        assert (decision.refusal is None) is may, (state, grant, decision)
        if may:
            assert decision.answer.fence == grant.fence
            grant.renewed_s = self.awake_s
        elif right:
            self.told_of_its_death(grant)

    def told_of_its_death(self, grant):
        """Whoever bears the claim of a dead owner is told so, and that ends it."""
        if self.holders.get(grant.branch) is grant and grant.pid in self.dead and not grant.lost:
            del self.holders[grant.branch]

    @precondition(lambda self: self.grants)
    @rule(pick=st.integers(0, 9), right=st.booleans(), event=st.sampled_from(EntryEvent))
    def release(self, pick, right, event):
        grant = self.grants[-1 - pick % len(self.grants)]
        if self.holders.get(grant.branch) is not grant:
            return
        bearer = Bearer(token=grant.session_id if right else None)
        decision = self.transact(
            Keys(sessions=(grant.session_id,)),
            lambda loaded, now, facts: decide_release(grant.session_id, event, bearer, loaded, now),
        )
        is_lost = self.state_of(grant.branch) == "lost"
        if not grant.lost or is_lost:
            assert (decision.refusal is None) is (right and not is_lost)
        if right and decision.effects and (event is not EntryEvent.PROGRESS or is_lost):
            del self.holders[grant.branch]

    @precondition(lambda self: self.holders)
    @rule(branch=BRANCHES, heir=AGENTS, by_ttl=st.booleans())
    def hand_over(self, branch, heir, by_ttl):
        grant = self.holders.get(branch)
        if grant is None:
            return
        pid = None if by_ttl else self.pids[heir]
        request = HandOverRequest(
            session_id=grant.session_id,
            bearer=grant.session_id,
            new_id=self.new_id(),
            token=hash_token(f"agent-{self.ids}", b"s"),
            owner=None if pid is None else self.host.owner_for(pid),
            ttl_s=TTL_S if by_ttl else None,
        )
        decision = self.transact(
            Keys(sessions=(grant.session_id,), fresh_ids=(request.new_id,)),
            lambda loaded, now, facts: decide_hand_over(request, loaded, now, facts),
        )
        may = self.state_of(branch) == "held"
        assert (decision.refusal is None) is may
        if may:
            self.granted(
                request.new_id, branch, decision.answer.fence, pid, request.ttl_s, grant.path
            )
        else:
            self.told_of_its_death(grant)

    @rule(agent=AGENTS, branch=BRANCHES)
    def attach(self, agent, branch):
        session_id, pid = self.new_id(), self.pids[agent]
        wish = self.entry(session_id, branch, pid)
        wish = attrs.evolve(wish, extension=EntryExtension(owner=self.host.owner_for(pid)))
        self.transact(
            Keys(fresh_ids=(session_id,)), lambda loaded, now, facts: decide_attach(wish, loaded)
        )
        self.present[session_id] = (branch, pid)

    @rule(expired=st.booleans())
    def collect(self, expired):
        ids = tuple({*self.present, *(grant.session_id for grant in self.holders.values())})
        decision = self.transact(
            Keys(sessions=ids, all_active=True, all_stale=True),
            lambda loaded, now, facts: decide_sweep(ids, loaded, now, facts, end_expired=expired),
        )
        due = {i for i, (_, pid) in self.present.items() if pid in self.dead}
        for branch, grant in list(self.holders.items()):
            state = self.state_of(branch)
            is_dead = grant.pid in self.dead
            if state == "none" or (state == "expired" and (expired or is_dead)):
                del self.holders[branch]
                due |= set() if grant.lost else {grant.session_id}
        for branch in ("one", "two"):
            self.forget_dead_presences(branch)
        assert set(decision.answer.reaped) == due

    @precondition(lambda self: self.present or self.holders)
    @rule(pick=st.integers(0, 9), door=st.sampled_from(["status", "delete"]))
    def end_by_a_door(self, pick, door):
        ids = [*self.present, *(g.session_id for g in self.holders.values() if not g.lost)]
        if not ids:
            return
        session_id = ids[pick % len(ids)]

        def decide(loaded, now, facts):
            if door == "delete":
                return decide_delete(session_id, loaded, now)
            return decide_status(session_id, AgentStatus.COMPLETE, loaded, now)

        assert self.transact(Keys(sessions=(session_id,)), decide).refusal is None
        self.present.pop(session_id, None)
        self.holders = {b: g for b, g in self.holders.items() if g.session_id != session_id}

    # -- what befalls them

    # One rule for all: Hypothesis leaves rules out at random, and these alone lead nowhere.
    @rule(what=st.sampled_from(["death", "1", "60", "101", "101", "clock", "sleep"]), agent=AGENTS)
    def something_befalls_them(self, what, agent):
        if what == "death":
            self.host.kill(self.pids[agent])
            self.dead.add(self.pids[agent])
            self.pids[agent] = self.host.spawn([f"agent-{agent}"])
        elif what == "clock":
            self.host.step_wall(-86_400 if agent else 3_600)
        elif what == "sleep":
            self.host.suspend(3_600)
        else:
            self.host.advance(int(what))
            self.awake_s += int(what)

    @precondition(lambda self: self.holders)
    @rule(branch=BRANCHES, removes=st.booleans())
    def a_stranger_ends_the_holders_entry(self, branch, removes):
        grant = self.holders.get(branch)
        if grant is None or grant.lost:
            return

        def decide(loaded, now, facts):
            from heddle_registry.core.transaction import Decision

            entry = loaded.entries[grant.session_id]
            gone = attrs.evolve(
                entry, status=AgentStatus.ABANDONED, completed_at=now.at, extension=None
            )
            effect = RemoveEntry(grant.session_id) if removes else PutEntry(gone)
            return Decision(effects=(effect,))

        self.transact(Keys(sessions=(grant.session_id,)), decide)
        grant.lost = True

    # -- what must hold at any time

    @invariant()
    def fences_are_good_for_whom_the_dictionary_says(self):
        for branch in self.fences:
            loaded, now = self.store.peek(Keys(threads=(branch,)))
            claim = loaded.claim_on(branch, now)
            facts = {}
            if claim.holder is not None:
                subject = claim.holder.subject(claim.fence)
                facts[fact_key(subject)] = self.store.observe(self.host, subject)
            standing = stand(claim, loaded.entries, Witness(facts), now)
            state = self.state_of(branch)
            assert standing.state.value == state
            grant = self.holders.get(branch)
            good = state == "held" or (state == "expired" and grant.pid not in self.dead)
            for fence in range(max(1, self.fences[branch] - 2), self.fences[branch] + 2):
                valid = judge_fence(standing, fence, loaded.entries).valid
                assert valid is (good and fence == self.fences[branch])

    @invariant()
    def every_entry_has_an_end_exactly_when_it_has_ended(self):
        for entry in self.store.look(Query(include_stale=True)).entries:
            assert entry.is_active is (entry.completed_at is None)


def test_any_order_of_steps_answers_as_the_plain_dictionary_does():
    run_state_machine_as_test(
        Agents,
        settings=settings(
            max_examples=300,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
