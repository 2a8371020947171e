"""Whether a recorded history of one branch could have come from one claim, used one at a time.

A history is a list of calls with the moments before and after each. Fences order the grants, so
most of it is checked in one pass (`faults_of`); a search over all orders (`has_an_order`) knows
nothing of that pass and is there to disagree with it. A failing history is drawn by `drawn`: who
held what when.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEVER = math.inf
KINDS = ("reserve", "renew", "release", "check")


@attrs.frozen(kw_only=True)
class Call:
    """One call on one branch; ``ended`` is infinite where its process died in it.

    ``ok`` None means that nobody knows. ``ttl_s`` infinite: only death or release ends the grant.
    """

    kind: str
    who: str
    branch: str
    began: float
    ended: float = NEVER
    ok: bool | None = None
    fence: int = 0
    ttl_s: float = NEVER
    dies_with: str = ""
    """The process whose death ends the grant; empty where none does."""


@attrs.frozen
class Fault:
    """What cannot be, and the calls that show it."""

    what: str
    calls: tuple[Call, ...]


class Grants:
    """The grants of one branch by fence, and until when each was surely, or perhaps, held."""

    def __init__(self, calls: Sequence[Call], deaths: dict[str, float]) -> None:
        self.deaths = deaths
        self.by_fence: dict[int, Call] = {}
        self.doubles: list[tuple[Call, Call]] = []
        for call in calls:
            if call.kind != "reserve" or not call.ok:
                continue
            if call.fence in self.by_fence:
                self.doubles.append((self.by_fence[call.fence], call))
            self.by_fence[call.fence] = call
        self.renewals = [c for c in calls if c.kind == "renew" and c.ok]
        self.releases = [c for c in calls if c.kind == "release" and c.ok is not False]

    def surely_until(self, grant: Call) -> float:
        """Before that moment nobody else can have been granted it."""
        lapse = grant.began + grant.ttl_s
        for renewal in self.renewals:
            if renewal.fence == grant.fence:
                lapse = max(lapse, renewal.began + grant.ttl_s)
        ends = [lapse, self.deaths.get(grant.dies_with, NEVER)]
        ends += [call.began for call in self.releases if call.fence == grant.fence]
        return min(ends)


def faults_of(calls: Sequence[Call], deaths: dict[str, float]) -> list[Fault]:
    """Return everything about one branch's history that no claim could have done."""
    grants = Grants(calls, deaths)
    faults = [Fault("one fence, two holders", pair) for pair in grants.doubles]
    ordered = [grants.by_fence[fence] for fence in sorted(grants.by_fence)]
    for first, second in itertools.pairwise(ordered):
        if second.ended < first.began:
            faults.append(Fault("a fence fell", (first, second)))
        if second.ended < grants.surely_until(first):
            faults.append(Fault("granted while another held it", (first, second)))
    for call in calls:
        later = [grant for grant in ordered if grant.fence > call.fence]
        if call.kind in ("renew", "check") and call.ok and later and later[0].ended < call.began:
            faults.append(Fault(f"{call.kind} of a fence that was taken", (later[0], call)))
        grant = grants.by_fence.get(call.fence)
        if (
            call.kind in ("renew", "check")
            and call.ok is False
            and grant is not None
            and grant.ended < call.began
            and call.ended < grants.surely_until(grant)
        ):
            faults.append(Fault(f"{call.kind} refused to its holder", (grant, call)))
        if call.kind == "reserve" and call.ok is False and not _may_be_held(call, calls, grants):
            faults.append(Fault("refused, though nobody can have held it", (call,)))
    return faults


def _may_be_held(refused: Call, calls: Sequence[Call], grants: Grants) -> bool:
    for call in calls:
        if call.kind != "reserve" or call.ok is False or call is refused:
            continue
        if call.began > refused.ended:
            continue
        ends = [c.ended for c in grants.releases if c.fence == call.fence and c.ok]
        if call.ok is None or not ends or min(ends) >= refused.began:
            return True
    return False


@attrs.frozen
class _State:
    fence: int = 0
    holder: Call | None = None
    renewed: float = 0.0


def has_an_order(
    calls: Sequence[Call], deaths: dict[str, float], *, limit: int = 200_000
) -> bool | None:
    """Search for an order of the calls that a single claim could have had; None: gave up.

    Wing and Gong's search: of the calls that began before any open one ended, one comes first.
    """
    todo = tuple(sorted(calls, key=lambda call: call.began))
    seen: set[tuple[frozenset[int], _State]] = set()
    stack: list[tuple[frozenset[int], _State]] = [(frozenset(range(len(todo))), _State())]
    while stack:
        left, state = stack.pop()
        if not any(todo[at].ended < NEVER for at in left):
            return True
        if (left, state) in seen:
            continue
        seen.add((left, state))
        if len(seen) > limit:
            return None
        first_end = min(todo[at].ended for at in left)
        for at in left:
            if todo[at].began <= first_end:
                after = _step(state, todo[at], deaths)
                if after is not None:
                    stack.append((left - {at}, after))
    return False


def _over(state: _State, by: float, deaths: dict[str, float]) -> bool:
    # Whether the holder may have lost it by then without a call of its own.
    holder = state.holder
    if holder is None:
        return True
    return by >= state.renewed + holder.ttl_s or by >= deaths.get(holder.dies_with, NEVER)


def _step(state: _State, call: Call, deaths: dict[str, float]) -> _State | None:
    holder = state.holder
    if call.kind == "reserve":
        if call.ok is False:
            return state if holder is not None else None
        if not _over(state, call.ended, deaths) or (call.ok and call.fence <= state.fence):
            return None
        return _State(call.fence if call.ok else state.fence, call, call.began)
    mine = holder is not None and holder.fence == call.fence
    if call.kind == "release":
        if call.ok is False:
            return state if not mine or _over(state, call.ended, deaths) else None
        return _State(state.fence) if mine else (None if call.ok else state)
    if call.ok is False:
        return state if not mine or _over(state, call.ended, deaths) else None
    if not mine:
        return None if call.ok else state
    return _State(state.fence, holder, call.began) if call.kind == "renew" else state


def drawn(calls: Iterable[Call], deaths: dict[str, float], faults: Iterable[Fault]) -> str:
    """Return a history as text: one line a call, in order, with a bar for when it ran."""
    ordered = sorted(calls, key=lambda call: call.began)
    if not ordered:
        return "nothing happened"
    start = ordered[0].began
    moments = [c.began for c in ordered] + [c.ended for c in ordered if c.ended < NEVER]
    span = max(max(moments) - start, 1e-9)
    wrong = {call for fault in faults for call in fault.calls}
    lines = [f"{'who':<14}{'call':<9}{'fence':>6} {'answer':<8}{'from s':>9}{'to s':>9}  when"]
    for call in ordered:
        left = int(60 * (call.began - start) / span)
        right = 60 if call.ended == NEVER else int(60 * (call.ended - start) / span)
        bar = " " * left + "=" * max(1, right - left)
        answer = {True: "yes", False: "no", None: "?"}[call.ok]
        to = f"{call.ended - start:9.3f}" if call.ended < NEVER else "        -"
        mark = "  <-- here" if call in wrong else ""
        lines.append(
            f"{call.who:<14}{call.kind:<9}{call.fence or '-':>6} {answer:<8}"
            f"{call.began - start:9.3f}{to}  |{bar:<61}|{mark}"
        )
    lines += [f"{who} died at {at - start:.3f}" for who, at in sorted(deaths.items())]
    lines += [f"WRONG: {fault.what}" for fault in faults]
    return "\n".join(lines)
