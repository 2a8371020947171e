"""Why is a branch as it is: who has it, by what evidence, and what would free it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.claim import Claim, ClaimState
from heddle_registry.core.evidence import Evidence, Verdict, VerdictKind
from heddle_registry.core.limits import check_thread
from heddle_registry.core.record import Record
from heddle_registry.core.standing import (
    holder_sentence,
    is_orphan,
    presence_frees,
    presence_sentence,
)
from heddle_registry.core.transaction import Keys
from heddle_registry.errors import RegistryError

if TYPE_CHECKING:
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.standing import Standing
    from heddle_registry.registry import AgentRegistry

_UNREADABLE = Verdict(VerdictKind.UNKNOWN, (Evidence("unreadable", "its claim cannot be read"),))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class BranchStory(Record):
    """How a branch stands. ``state`` is free, held, expired, occupied or blocked.

    ``entry`` is the holder, or the first who blocks without a claim; ``others`` are the further
    Active entries there, each with its verdict. ``sentences`` tell it to people.
    """

    thread: str
    state: str
    entry: AgentEntry | None
    verdict: Verdict | None
    claim: Claim | None
    others: tuple[tuple[AgentEntry, Verdict], ...]
    frees_when: str
    sentences: tuple[str, ...]
    standing: Standing | None = None
    """How its claim stands; None where there never was one, or it cannot be read."""
    error: RegistryError | None = None
    """Of a branch whose claim cannot be read."""


def why_branch(registry: AgentRegistry, thread: str) -> BranchStory:
    """Return who has ``thread``, by what evidence, and what would free it. Changes nothing."""
    check_thread(thread)
    loaded, now = registry.store.peek(Keys(threads=(thread,)))
    active = [
        entry for entry in loaded.entries.values() if entry.thread == thread and entry.is_active
    ]
    damage = [found.error for found in loaded.damage if found.concerns(thread)]
    try:
        claim = loaded.claim_on(thread, now)
    except RegistryError as error:
        others = tuple((entry, registry.verdict_on(entry, None, now)) for entry in active)
        return BranchStory(
            thread=thread,
            state="blocked",
            entry=None,
            verdict=_UNREADABLE,
            claim=None,
            others=others,
            frees_when=error.hint,
            sentences=(error.message,),
            error=error,
        )
    standing = registry.standing_of(claim, loaded.entries.values(), now)
    if _may_be_held_by_another(standing):
        # Asks every process who has the lock open.
        standing = registry.standing_of(claim, loaded.entries.values(), now, details=True)
    holder_id = claim.holder_id
    others = tuple(
        (entry, registry.verdict_on(entry, None, now))
        for entry in sorted(active, key=lambda entry: entry.started_at.sort_key)
        if entry.session_id != holder_id
    )
    shown_claim = claim if claim.fence else None
    shown_standing = standing if claim.fence else None
    if standing.state is ClaimState.NONE:
        blocking = [
            (entry, verdict)
            for entry, verdict in others
            if not verdict.is_dead and not is_orphan(entry, claim)
        ]
        if damage and not blocking:
            return BranchStory(
                thread=thread,
                state="blocked",
                entry=None,
                verdict=None,
                claim=shown_claim,
                others=others,
                frees_when=damage[0].hint,
                sentences=tuple(error.message for error in damage),
                standing=shown_standing,
                error=damage[0],
            )
        if blocking:
            entry, verdict = blocking[0]
            return BranchStory(
                thread=thread,
                state="occupied",
                entry=entry,
                verdict=verdict,
                claim=shown_claim,
                others=tuple(pair for pair in others if pair[0] is not entry),
                frees_when=presence_frees(entry, verdict),
                sentences=(presence_sentence(entry, verdict),),
                standing=shown_standing,
            )
        sentences = ["nobody holds it"]
        if claim.past:
            past = claim.past[0]
            sentences.append(f"{past.session_id} was the last: {past.story()}")
        return BranchStory(
            thread=thread,
            state="free",
            entry=None,
            verdict=None,
            claim=shown_claim,
            others=others,
            frees_when="",
            sentences=tuple(sentences),
            standing=shown_standing,
        )
    unread = loaded.damage_of_holder(claim) if standing.entry is None else None
    if standing.state is ClaimState.LOST and unread is not None:
        # Nobody ended the holder's entry: it cannot be read, and that is what is to be mended.
        return BranchStory(
            thread=thread,
            state="blocked",
            entry=None,
            verdict=standing.verdict,
            claim=claim,
            others=others,
            frees_when=unread.hint,
            sentences=(f"{holder_id} holds its claim", unread.message),
            standing=standing,
            error=unread,
        )
    state = "blocked" if standing.state is ClaimState.LOST else standing.state.value
    frees_when = standing.frees_when()
    if standing.state is ClaimState.EXPIRED:
        frees_when = "Its TTL has passed: the next to reserve it gets it"
    return BranchStory(
        thread=thread,
        state=state,
        entry=standing.entry,
        verdict=standing.verdict,
        claim=claim,
        others=others,
        frees_when=frees_when,
        sentences=(holder_sentence(standing), *_runner_sentences(registry, standing)),
        standing=standing,
    )


def _may_be_held_by_another(standing: Standing) -> bool:
    # A command may outlive its runner, and what it started may outlive the command.
    codes = {evidence.code for evidence in standing.verdict.evidence}
    extension = standing.entry.extension if standing.entry is not None else None
    by_run = extension is not None and extension.runner_pid is not None
    return "lock_held" in codes and (by_run or "process" not in codes)


def _runner_sentences(registry: AgentRegistry, standing: Standing) -> tuple[str, ...]:
    # `run` records its own pid beside its command's: either may outlive the other.
    entry = standing.entry
    extension = entry.extension if entry is not None else None
    runner = extension.runner_pid if extension is not None else None
    holder = standing.claim.holder
    if runner is None or holder is None or holder.owner is None:
        return ()
    if any(evidence.code == "other_namespace" for evidence in standing.verdict.evidence):
        return ()
    pids = {
        int(pid)
        for evidence in standing.verdict.evidence
        if evidence.code == "lock_pids"
        for pid in evidence.detail.removeprefix("open in process ").split(", ")
    }
    if runner in pids or (not pids and registry.host.owner_for(runner) is not None):
        return ()
    living = sorted(pids) or [holder.owner.pid]
    which = "process" if len(living) == 1 else "processes"
    verb = "lives" if len(living) == 1 else "live"
    names = ", ".join(map(str, living))
    return (f"its runner (process {runner}) is gone, and {which} {names} of its command {verb}",)
