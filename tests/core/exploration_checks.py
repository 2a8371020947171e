"""The promises: what may be written in one step, and what must hold in a state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry.core.edit import decide_attach, decide_delete, decide_status
from heddle_registry.core.entry import AgentEntry, entry_problems
from heddle_registry.core.lifecycle import TRANSITIONS, AgentStatus
from heddle_registry.core.release import (
    HandOverRequest,
    decide_hand_over,
    decide_release,
)
from heddle_registry.core.renew import decide_renew, judge_fence
from heddle_registry.core.reserve import Reserved, decide_reserve
from heddle_registry.core.selection import select
from heddle_registry.core.selection_maps import RecordMaps
from heddle_registry.core.standing import Witness, stand
from heddle_registry.core.sweep import decide_sweep
from heddle_registry.core.transaction import (
    Decision,
    Keys,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from tests.core.exploration_records import (
    BRANCH,
    FACTS,
    FENCE,
    NOW,
    TTL_S,
    label_of,
    make_entry,
    make_records,
    token_hash,
)
from tests.core.exploration_shapes import DEAD, NOBODY, Branch, share_a_folder

if TYPE_CHECKING:
    from collections.abc import Callable


class Broken(Exception):
    """An invariant does not hold after a step."""


@attrs.frozen(kw_only=True)
class Decisions:
    """The real decisions. A self-test replaces one by a wrong one."""

    reserve: Callable[..., Any] = decide_reserve
    renew: Callable[..., Any] = decide_renew
    fence: Callable[..., Any] = judge_fence
    release: Callable[..., Any] = decide_release
    hand_over: Callable[..., Any] = decide_hand_over
    sweep: Callable[..., Any] = decide_sweep
    attach: Callable[..., Any] = decide_attach
    status: Callable[..., Any] = decide_status
    delete: Callable[..., Any] = decide_delete


def check_refusal(branch: Branch, decision: Decision) -> None:
    """A refusal writes nothing but what it says: that the claim was lost, or its owner is dead."""
    claim, holder = branch.claim, branch.holder
    for effect in decision.effects:
        is_lost = holder is not None and (holder.file != "active" or claim.lost)
        is_dead = holder is not None and claim.owner == DEAD
        ends_the_dead = is_dead and (
            isinstance(effect, PutEntry) and effect.entry.status is AgentStatus.ABANDONED
        )
        if not (isinstance(effect, PutClaim) and (is_lost or is_dead)) and not ends_the_dead:
            raise Broken(f"a refused request wrote {type(effect).__name__}")


def check_effect(branch, effect, entries, claims, purpose) -> None:
    if isinstance(effect, PutClaim):
        if effect.claim.thread != BRANCH:
            raise Broken("a step wrote another branch's claim")
        before = claims.get(BRANCH)
        old = (before.fence, before.holder) if before is not None else (0, None)
        new = effect.claim
        if new.fence < old[0]:
            raise Broken(f"the fence went back from {old[0]} to {new.fence}")
        changes_hands = new.holder is not None and (
            old[1] is None or old[1].session_id != new.holder.session_id
        )
        if changes_hands and new.fence <= old[0]:
            raise Broken(f"fence {new.fence} was granted twice")
        return
    if isinstance(effect, RemoveEntry):
        entry = entries.get(effect.session_id)
        if purpose != "delete" and entry is not None and entry.is_active:
            raise Broken("an Active entry was pruned")
        for claim in claims.values():
            if claim.holder is not None and claim.holder.session_id == effect.session_id:
                raise Broken("an entry was removed before the claim that names it had ended")
        return
    if not isinstance(effect, PutEntry):
        return
    entry, before = effect.entry, entries.get(effect.entry.session_id)
    problems = entry_problems(entry)
    if problems:
        raise Broken(f"an entry was written that may not be: {problems}")
    if before is None:
        if entry.status is not AgentStatus.ACTIVE:
            raise Broken("a new entry began ended")
        return
    if entry.status not in TRANSITIONS[before.status].values():
        raise Broken(f"an entry went from {before.status.value} to {entry.status.value}")
    if before.completed_at is not None and entry.completed_at != before.completed_at:
        raise Broken("completed_at moved")
    if before.is_active and entry.status is AgentStatus.ABANDONED and purpose in ("reap", "force"):
        check_reaped(branch, before, purpose)


def check_reaped(branch: Branch, entry: AgentEntry, purpose: str) -> None:
    if entry.session_id == "h":
        dead = branch.claim.owner == DEAD
        taken = purpose == "force" or branch.claim.ttl == "over"
        if not dead and not taken:
            raise Broken("a living holder was reaped")
        return
    label = label_of(entry.pid)
    is_debris = entry.fence is not None and branch.claim is not None
    if (
        label >= 0
        and not is_debris
        and not (
            branch.claim is None
            and entry.fence is not None
            and (purpose == "force" or entry.extension.ttl_s is not None)
        )
    ):
        raise Broken("a living agent's entry was reaped")


def check_belief(branch, shape, claims, beside, purpose) -> None:
    old = branch.holder
    claim = claims.get(BRANCH)
    still = claim is not None and claim.holder is not None and claim.holder.session_id == "h"
    if (
        old is not None
        and old.believes
        and not still
        and purpose not in ("force", "give up", "delete")
    ):
        raise Broken("a branch was taken from a living agent that believes it may write")
    if beside is not None and share_a_folder(shape, beside):
        raise Broken("two agents may write to one folder")


def probe(decide: Decisions, branch: Branch) -> None:
    """Check what must hold in a shape: whose token and fence are good, whose are not.

    Beside those on the branch stand three earlier holders, their entries gone, ended with
    our mark, and ended without it.
    """
    ghosts = ("x-gone", "x-marked", "x-bare") if branch.claim is not None else ()
    entries, claims = map(dict, make_records(branch, None, ghosts))
    if ghosts:
        fence = FENCE - 1 if branch.claim.held else FENCE
        entries["x-marked"] = make_entry("x-marked", NOBODY, "complete", fence)
        entries["x-bare"] = make_entry("x-bare", 0, "abandoned", mark=False)
    records = RecordMaps(entries=entries, claims=claims)
    holder, claim = branch.holder, branch.claim
    spent = [*ghosts, *(f"o{at}" for at, orphan in enumerate(branch.orphans)
                        if claim is not None and not orphan.newer)]  # fmt: skip
    if holder is not None and holder.done:
        spent.append("h")
    for session_id in spent:
        _probe_token(decide, session_id, f"token of {session_id}", records, good=False)
    if holder is not None:
        _probe_token(decide, "h", "token of somebody else", records, good=False)
        if not holder.done:
            _probe_token(decide, "h", "token of h", records, good=True)
    loaded = select(Keys(threads=(BRANCH,)), records, NOW)
    standing = stand(loaded.claim_on(BRANCH, NOW), loaded.entries, Witness(FACTS), NOW)
    good = holder is not None and not holder.done
    for fence in (FENCE - 1, FENCE, FENCE + 1):
        answer = decide.fence(standing, fence, loaded.entries)
        if claim is not None and answer.valid and (not good or fence != FENCE):
            raise Broken("a fence that is over, or was never given, is called good")
        if claim is not None and fence == FENCE and good and not answer.valid:
            raise Broken("a good fence is refused")


def _probe_token(decide: Decisions, session_id, token, records, *, good) -> None:
    loaded = select(Keys(sessions=(session_id,), fresh_ids=("n",)), records, NOW)
    decision = decide.renew(session_id, token, loaded, NOW, FACTS)
    if (decision.refusal is None) is not good:
        raise Broken(
            "a good token was refused"
            if good
            else f"a spent or wrong token of {session_id!r} renewed"
        )
    request = HandOverRequest(
        session_id=session_id, bearer=token, new_id="n", token=token_hash("n"), ttl_s=TTL_S
    )
    handed = decide.hand_over(request, loaded, NOW, FACTS)
    if not good and isinstance(handed.answer, Reserved):
        raise Broken(f"a spent or wrong token of {session_id!r} handed the branch over")
