"""Standing in line for a branch: fair, and without polling for what can be waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.claim import read_ttl
from heddle_registry.core.reserve import LiveOwner, Reserved
from heddle_registry.core.timestamp import NS_PER_S
from heddle_registry.core.transaction import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import Subject
    from heddle_registry.core.reserve import ReserveOutcome
    from heddle_registry.ports import LivenessLock
    from heddle_registry.registry.attempt import Terms
    from heddle_registry.registry.reserving import ReserveDoors

LOOK_EVERY_S = 2.0
"""A program that knows no claims wakes nobody when it ends an entry; this look notices it."""


def reserve_in_line(
    registry: ReserveDoors,
    thread: str,
    build: Callable[[str], AgentEntry],
    terms: Terms,
    wait_s: float,
) -> tuple[ReserveOutcome, LivenessLock | None]:
    """Reserve, waiting in line for at most ``wait_s`` seconds of awake time.

    Whoever ends the claim wakes the first in line; the holder's death, and the end of its TTL,
    are waited for as such. The line is left however this ends.
    """
    outcome, liveness = registry.attempt(thread, build, terms)
    if not wait_s > 0 or isinstance(outcome, Reserved):
        return outcome, liveness
    started = registry.host.now()
    with registry.store.join_line(thread, wait_s) as place:
        asked = attrs.evolve(terms, ticket=place.ticket)
        while True:
            outcome, liveness = registry.attempt(thread, build, asked)
            if isinstance(outcome, Reserved):
                return outcome, liveness
            elapsed = (registry.host.now().awake_ns - started.awake_ns) / NS_PER_S
            left = wait_s - elapsed
            if left <= 0:
                return outcome, liveness
            subject, ttl_left_s = _awaited(registry, thread, outcome)
            place.wait(min(left, LOOK_EVERY_S, ttl_left_s), subject)


def _awaited(
    registry: ReserveDoors, thread: str, outcome: LiveOwner
) -> tuple[Subject | None, float]:
    # Whose death would free the branch, and in how many seconds its TTL passes. Neither is
    # waited for where it has come already and the branch is kept by something else.
    loaded, now = registry.store.peek(Keys(threads=(thread,)))
    claim = loaded.claims.get(thread)
    holder = claim.holder if claim is not None else None
    left_s = LOOK_EVERY_S
    if holder is not None:
        ttl = read_ttl(holder, now)
        blocked_by = outcome.entry.session_id if outcome.entry is not None else None
        # Over by now, but not when it was asked: the answer is another already.
        is_news = outcome.state == "held" and blocked_by == holder.session_id
        if ttl is not None and (is_news or not ttl.has_passed):
            left_s = max(ttl.left_s, 0.01)
    if outcome.verdict is None or not outcome.verdict.is_alive:
        return None, left_s
    if outcome.entry is None:
        return (
            holder.subject(claim.fence) if holder is not None and claim is not None else None
        ), left_s
    if holder is not None and claim is not None and holder.session_id == outcome.entry.session_id:
        return holder.subject(claim.fence), left_s
    return outcome.entry.subject(), left_s
