"""How a claim or an entry stands right now, from the records and what is known of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs

from heddle_registry.core.claim import (
    Claim,
    ClaimState,
    TtlReading,
    claim_state,
    read_ttl,
    with_ttl,
)
from heddle_registry.core.evidence import Evidence, Verdict, VerdictKind, judge
from heddle_registry.core.transaction import NeedFacts, fact_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import Subject
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Facts

_NOTHING_TO_SEE = Verdict(
    VerdictKind.UNKNOWN, (Evidence("no_process", "it recorded no process to look at"),)
)


class Witness:
    """Answers with verdicts from facts, and remembers which facts were missing.

    A decision runs to its end with unknown in their place; `missing` then tells what to gather.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._missing: dict[object, Subject] = {}

    def verdict(self, subject: Subject) -> Verdict:
        """Return what is known of ``subject``; unknown where nobody has looked yet."""
        if subject.owner is None and subject.pid is None and subject.liveness is None:
            return _NOTHING_TO_SEE
        key = fact_key(subject)
        if key not in self._facts:
            self._missing[key] = subject
            return judge(subject, None)
        return judge(subject, self._facts[key])

    def missing(self) -> NeedFacts | None:
        """Return what must be gathered before the decision counts; None when nothing."""
        return NeedFacts(tuple(self._missing.values())) if self._missing else None


class Standing(NamedTuple):
    """A claim as it stands: its state, the holder's entry, and why."""

    claim: Claim
    state: ClaimState
    entry: AgentEntry | None
    verdict: Verdict
    ttl: TtlReading | None

    @property
    def is_valid(self) -> bool:
        """Whether the holder may write and nobody else."""
        return self.state is ClaimState.HELD

    @property
    def excludes_others(self) -> bool:
        """Whether nobody else may be granted it: held, or lost by one who may still write."""
        return self.state in (ClaimState.HELD, ClaimState.LOST)

    def frees_when(self) -> str:
        """Return what would free the branch, as a sentence for people; empty where it is free."""
        if not self.excludes_others:
            return ""
        holder = self.claim.holder
        if holder is None:
            return ""
        ways: list[str] = []
        if holder.owner is not None:
            command = f" ({holder.owner.command})" if holder.owner.command else ""
            ways.append(f"process {holder.owner.pid}{command} ends")
        elif holder.liveness is not None:
            ways.append("its process ends")
        if self.ttl is not None and not self.ttl.has_passed:
            ways.append(f"its TTL passes in {max(1, round(self.ttl.left_s))} s")
        if self.state is ClaimState.LOST:
            both = " and ".join(ways) or "it is taken by force"
            return f"It frees when {both}"
        return "It frees when " + " or ".join(["it is released", *ways])


def stand(
    claim: Claim, entries: Mapping[str, AgentEntry], witness: Witness, now: Instant
) -> Standing:
    """Return how ``claim`` stands at ``now``."""
    holder = claim.holder
    if holder is None:
        return Standing(
            claim=claim, state=ClaimState.NONE, entry=None, verdict=_NOTHING_TO_SEE, ttl=None
        )
    entry = entries.get(holder.session_id)
    ttl = read_ttl(holder, now)
    verdict = witness.verdict(holder.subject(claim.fence))
    return Standing(
        claim=claim,
        state=claim_state(claim, entry, verdict, now),
        entry=entry,
        verdict=with_ttl(verdict, ttl),
        ttl=ttl,
    )


def is_orphan(entry: AgentEntry, claim: Claim) -> bool:
    """Return whether an Active entry bears the fence of a reservation that never was or is over.

    The claim is the commit: an entry that a crash left without it, or whose end it cut short,
    blocks nobody and is abandoned by the next writer.
    """
    if entry.fence is None or not entry.is_active:
        return False
    return claim.holder is None or claim.holder.session_id != entry.session_id


def entry_verdict(
    entry: AgentEntry, claim: Claim | None, witness: Witness, now: Instant
) -> Verdict:
    """Return the verdict on an entry: by its claim where it holds one, else by itself.

    An ended entry is dead, as in the original.
    """
    if not entry.is_active:
        return Verdict(VerdictKind.DEAD, (Evidence("ended", f"the entry is {entry.status.value}"),))
    if claim is not None and claim.holder is not None:
        holder = claim.holder
        if holder.session_id == entry.session_id:
            return with_ttl(witness.verdict(holder.subject(claim.fence)), read_ttl(holder, now))
    return witness.verdict(entry.subject())


def with_heartbeat(entry: AgentEntry, claim: Claim | None) -> AgentEntry:
    """Return ``entry`` with the claim's renewal as its heartbeat, where that is newer.

    A heartbeat writes the claim alone; the entry gets it at its next write.
    """
    if claim is None or claim.holder is None or claim.holder.session_id != entry.session_id:
        return entry
    renewed_at = claim.holder.renewed_at.at
    if renewed_at.text == claim.holder.granted_at.text:
        return entry
    if entry.heartbeat_at is not None and entry.heartbeat_at >= renewed_at:
        return entry
    return attrs.evolve(entry, heartbeat_at=renewed_at)


def _named(entry: AgentEntry) -> str:
    who = f" ({entry.harness})" if entry.harness else ""
    return f"{entry.session_id}{who}"


def holder_sentence(standing: Standing) -> str:
    """Return who holds a claim and by what evidence, for people."""
    holder = standing.claim.holder
    if holder is None:
        return "nobody holds it"
    name = _named(standing.entry) if standing.entry is not None else holder.session_id
    details = "; ".join(evidence.detail for evidence in standing.verdict.evidence)
    if standing.state is ClaimState.LOST:
        return f"another program ended the entry of {name}, which may still write: {details}"
    return f"{name} holds it since {holder.granted_at}: {details}"


def presence_sentence(entry: AgentEntry, verdict: Verdict) -> str:
    """Return who is present on a branch without a claim, and by what evidence."""
    details = "; ".join(evidence.detail for evidence in verdict.evidence)
    return f"{_named(entry)} is there since {entry.started_at}, without a claim: {details}"


def presence_frees(entry: AgentEntry, verdict: Verdict) -> str:
    """Return what would free a branch from somebody who is present, for people."""
    if verdict.kind is VerdictKind.ALIVE and entry.pid is not None:
        return f"It frees when process {entry.pid} or the session ends"
    return (
        f"Nobody can tell whether it lives; `release {entry.session_id} --status abandoned` "
        "ends it, or reserve with --force --reason TEXT"
    )
