"""Every step that agents and strangers can take on a branch, by the real decisions."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.entry import AgentEntry, EntryExtension
from heddle_registry.core.lifecycle import AgentStatus, EntryEvent
from heddle_registry.core.release import (
    Bearer,
    HandOverRequest,
)
from heddle_registry.core.reserve import LiveOwner, Reserved, ReserveRequest
from heddle_registry.core.selection import select
from heddle_registry.core.selection_maps import RecordMaps
from heddle_registry.core.transaction import (
    Keys,
    NeedFacts,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from tests.core.exploration_checks import (
    Broken,
    Decisions,
    check_belief,
    check_effect,
    check_refusal,
)
from tests.core.exploration_records import (
    BRANCH,
    FACTS,
    NOW,
    STATUS,
    TTL_S,
    make_entry,
    make_records,
    owner_of,
    shape_of,
    token_hash,
)
from tests.core.exploration_shapes import NOBODY, Beside, Branch, Presence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_ORPHANS = 1
"""A crash is taken from every state in which no debris of an earlier one still lies about."""


class Steps:
    """Every step that the agents and strangers of a branch can take from a shape."""

    def __init__(
        self,
        agents: int,
        *,
        paths: tuple[int, ...] = (0, 1),
        modes: tuple[str, ...] = ("owner", "ttl", "both"),
        max_orphans: int = MAX_ORPHANS,
        max_beside: int = 2,
        decisions: Decisions | None = None,
    ) -> None:
        self.agents = agents
        self.paths = paths
        self.modes = modes
        self.max_orphans = max_orphans
        self.max_beside = max_beside
        self.decide = decisions or Decisions()

    def of(
        self,
        branch: Branch,
        beside: Beside | None,
        actors: Sequence[int],
        *,
        crossing: bool = False,
    ) -> Iterator[tuple[str, Branch]]:
        """Yield what each step of ``actors`` and of strangers is called and leads to.

        :param crossing: only the steps that look at a neighbour's folder.
        """
        for agent in actors:
            yield from self._reserves(branch, beside, agent, crossing=crossing)
            if branch.holder is not None and branch.holder.bearer == agent:
                yield from self._renews(branch, beside, agent)
        if branch.holder is not None and branch.holder.bearer == NOBODY:
            yield from self._renews(branch, beside, NOBODY)
        if crossing:
            return
        if branch.holder is not None:
            yield from self._releases(branch, branch.holder.bearer)
        for agent in actors:
            if branch.holder is not None and branch.holder.bearer == agent:
                yield from self._hands_over(branch, agent, actors)
            if (
                len(branch.present) + len(branch.orphans) < self.max_beside
                and Presence(agent) not in branch.present
            ):
                yield from self._attaches(branch, agent)
        yield from self._doors(branch)
        yield from self._sweeps(branch)
        yield from self._strangers(branch)

    def _run(self, label, branch, beside, keys, decide, *, told=None, purpose="", more=()):
        """Decide over real records, check what is written, yield the shape after each prefix.

        ``told`` maps the decision to what is known of "h" and "n" afterwards, by the one who
        was answered; ``purpose`` is ``force``, ``give up`` or ``reap`` where that changes rules.
        """
        entries, claims = make_records(branch, beside, more)
        loaded = select(keys, RecordMaps(entries=entries, claims=claims), NOW)
        decision = decide(loaded)
        if isinstance(decision, NeedFacts):
            raise Broken("facts were asked for twice")
        refused = decision.refusal is not None or isinstance(decision.answer, LiveOwner)
        if refused:
            check_refusal(branch, decision)
        holder = branch.holder
        known = {"h": (holder.bearer, holder.believes, holder.done)} if holder else {}
        entries, claims = dict(entries), dict(claims)
        last = len(decision.effects)
        for at, effect in enumerate(decision.effects, start=1):
            check_effect(branch, effect, entries, claims, purpose)
            _apply(effect, entries, claims)
            if at == last:
                break
            after = dict(known)
            if purpose == "give up" and holder is not None:
                after["h"] = (holder.bearer, False, holder.done)
            shape = shape_of(entries, claims, after)
            check_belief(branch, shape, claims, beside, purpose)
            if len(shape.orphans) <= self.max_orphans and len(shape.orphans) + len(
                shape.present
            ) <= max(self.max_beside, len(branch.orphans) + len(branch.present)):
                yield f"{label}, crash after {at} of {last} writes", shape
        answered = told(decision) if told is not None else {}
        if not decision.effects and all(known.get(i) == answered[i] for i in answered):
            return
        after = {**known, **answered}
        shape = shape_of(entries, claims, after)
        check_belief(branch, shape, claims, beside, purpose)
        if shape != branch:
            yield label, shape

    # Each of these is one kind of step.

    def _reserves(self, branch, beside, agent, *, crossing) -> Iterator:
        paths = (beside.claim.path,) if crossing else self.paths
        asker = next((f"p{at}" for at, p in enumerate(branch.present) if p.pid == agent), None)
        bears = branch.holder is not None and branch.holder.bearer == agent
        # A step that a neighbour lets through leads where it would lead without one.
        for mode in self.modes[:1] if crossing else self.modes:
            for path in paths:
                for force in (False, True):
                    request = make_request(agent, mode, path, force, bears, asker)
                    keys = Keys(
                        sessions=(asker,) if asker else (),
                        threads=(BRANCH,),
                        path=request.path,
                        fresh_ids=("n",),
                        stale=True,
                    )

                    def told(decision, agent=agent, branch=branch):
                        answer = decision.answer
                        if not isinstance(answer, Reserved):
                            return {}
                        if answer.is_new:
                            return {"n": (agent, True, False)}
                        return {"h": (agent, branch.claim.ttl != "over", branch.holder.done)}

                    name = "forces" if force else "reserves"
                    yield from self._run(
                        f"agent {agent} {name} by {mode}, folder {path}"
                        + ("" if beside is None else ", a claim beside"),
                        branch,
                        beside,
                        keys,
                        lambda loaded, r=request: self.decide.reserve(r, loaded, NOW, FACTS),
                        told=told,
                        purpose="force" if force else "reap",
                    )

    def _renews(self, branch, beside, agent) -> Iterator:
        def told(decision):
            accepted = decision.refusal is None
            if accepted and branch.holder.done:
                raise Broken("a fence that is over was renewed")
            return {"h": (agent, accepted and agent != NOBODY, branch.holder.done)}

        yield from self._run(
            ("a child of its bearer" if agent == NOBODY else f"agent {agent}")
            + " renews"
            + ("" if beside is None else ", a claim beside"),
            branch,
            beside,
            Keys(sessions=("h",)),
            lambda loaded: self.decide.renew("h", "token of h", loaded, NOW, FACTS),
            told=told,
        )

    def _releases(self, branch, agent) -> Iterator:
        for event in (EntryEvent.COMPLETE, EntryEvent.MERGE, EntryEvent.ABANDON):
            yield from self._run(
                f"the bearer releases as {event.value}",
                branch,
                None,
                Keys(sessions=("h",)),
                lambda loaded, e=event: self.decide.release(
                    "h", e, Bearer(token="token of h"), loaded, NOW
                ),
                told=lambda decision: {
                    "h": (agent, branch.holder.believes, branch.holder.done)
                    if decision.refusal is not None
                    else (agent, False, True)
                },
                purpose="give up",
            )

    def _hands_over(self, branch, agent, actors) -> Iterator:
        heirs = [other for other in actors if other != agent]
        for heir, mode in [*((heir, "owner") for heir in heirs), (agent, "ttl")]:
            request = HandOverRequest(
                session_id="h",
                bearer="token of h",
                new_id="n",
                token=token_hash("n"),
                owner=owner_of(heir) if mode == "owner" else None,
                ttl_s=None if mode == "owner" else TTL_S,
            )
            yield from self._run(
                f"agent {agent} hands over to {heir if mode == 'owner' else 'a TTL'}",
                branch,
                None,
                Keys(sessions=("h",), fresh_ids=("n",)),
                lambda loaded, r=request: self.decide.hand_over(r, loaded, NOW, FACTS),
                told=lambda decision, heir=heir: (
                    {"h": (agent, branch.holder.believes and decision.refusal is None,
                           branch.holder.done)}
                    if decision.refusal is not None
                    else {"n": (heir, True, False)}
                ),
                purpose="give up",
            )  # fmt: skip

    def _attaches(self, branch, agent) -> Iterator:
        entry = make_entry("n", agent, is_presence=True)
        yield from self._run(
            f"agent {agent} attaches",
            branch,
            None,
            Keys(fresh_ids=("n",)),
            lambda loaded: self.decide.attach(entry, loaded),
        )

    def _doors(self, branch) -> Iterator:
        """Yield what the library's doors do to any entry, without a token."""
        entries, _ = make_records(branch)
        for session_id in entries:
            statuses = list(STATUS.values()) if session_id == "h" else [AgentStatus.COMPLETE]
            purpose = "give up" if session_id == "h" else ""
            for status in statuses:
                yield from self._run(
                    f"{session_id} is set to {status.value}",
                    branch,
                    None,
                    Keys(sessions=(session_id,)),
                    lambda loaded, i=session_id, s=status: self.decide.status(i, s, loaded, NOW),
                    told=lambda decision, i=session_id: (
                        {"h": (branch.holder.bearer, False, True)}
                        if i == "h" and decision.effects
                        else {}
                    ),
                    purpose=purpose,
                )
            yield from self._run(
                f"{session_id} is deleted",
                branch,
                None,
                Keys(sessions=(session_id,)),
                lambda loaded, i=session_id: self.decide.delete(i, loaded, NOW),
                purpose="delete",
            )

    def _sweeps(self, branch) -> Iterator:
        entries, _ = make_records(branch)
        named = tuple(entries) + (("h",) if branch.holder and "h" not in entries else ())
        for end_expired in (False, True):
            yield from self._run(
                "gc --expired" if end_expired else "gc",
                branch,
                None,
                Keys(sessions=named),
                lambda loaded, e=end_expired: self.decide.sweep(
                    named, loaded, NOW, FACTS, end_expired=e
                ),
                purpose="reap",
            )

    def _strangers(self, branch) -> Iterator:
        """Yield what a program that knows no claims may do to any entry: our table is dropped."""
        entries, claims = make_records(branch)
        holder = branch.holder
        known = {"h": (holder.bearer, holder.believes, holder.done)} if holder else {}
        for session_id, entry in entries.items():
            stripped = attrs.evolve(entry, extension=None)
            changes = {"rewrites": stripped, "removes": None}
            if entry.is_active:
                changes["reaps"] = attrs.evolve(
                    stripped, status=AgentStatus.ABANDONED, completed_at=NOW.at
                )
            for name, changed in changes.items():
                after, seen = dict(entries), dict(known)
                if changed is None:
                    del after[session_id]
                else:
                    after[session_id] = changed
                if session_id == "h" and name != "rewrites":
                    seen["h"] = (holder.bearer, holder.believes, True)
                shape = shape_of(after, claims, seen)
                if shape != branch:
                    yield f"a stranger {name} {session_id}", shape


@cache
def make_request(
    agent: int, mode: str, path: int, force: bool, bears: bool, asker: str | None
) -> ReserveRequest:
    return ReserveRequest(
        thread=BRANCH,
        entry=_new_entry(agent),
        token=token_hash("n"),
        bearer="token of h" if bears else None,
        owner=owner_of(agent) if mode != "ttl" else None,
        recorded_owner=owner_of(agent),
        ttl_s=None if mode == "owner" else TTL_S,
        path=f"/{path}" if path else None,
        asker=asker,
        force_reason="because" if force else None,
    )


@cache
def _new_entry(agent: int) -> AgentEntry:
    entry = make_entry("n", agent, mark=False)
    resumed = EntryExtension(continues="x-gone")
    return attrs.evolve(entry, started_at=NOW.at, extension=resumed)


def _apply(effect, entries: dict, claims: dict) -> None:
    match effect:
        case PutEntry(entry):
            entries[entry.session_id] = entry
        case PutClaim(claim):
            claims[claim.thread] = claim
        case RemoveEntry(session_id):
            entries.pop(session_id, None)
