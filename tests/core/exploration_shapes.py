"""What the exploration takes for one state: the shape of everything on one branch.

No records yet: these are the things that decisions can tell apart, and what befalls a branch
without anybody's decision.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

DEAD = -1
NOBODY = -2
SOMEONE = 7
"""A living process on the other branch; which one cannot matter here."""


class ClaimShape(NamedTuple):
    """A claim file. ``ttl`` is ``none``, ``runs`` or ``over``; ``path`` 0 names no folder."""

    held: bool = False
    owner: int = NOBODY
    ttl: str = "none"
    path: int = 0
    lost: bool = False


class HolderShape(NamedTuple):
    """The entry that the claim names, and what its bearer knows.

    ``file`` is a status or ``missing``; ``mark`` says whether our table is in it. ``done``: this
    fence must never be accepted again.
    """

    file: str
    pid: int
    mark: bool
    bearer: int
    believes: bool
    done: bool
    stale: bool = False


class Orphan(NamedTuple):
    """An Active entry with a fence that the claim does not name: the debris of a crash."""

    pid: int
    newer: bool
    ttl: str = "none"


class Presence(NamedTuple):
    """An Active entry that never had a claim, or whose table a stranger dropped."""

    pid: int


class Branch(NamedTuple):
    """Everything on one branch. ``claim`` None: there is no claim file yet."""

    claim: ClaimShape | None = None
    holder: HolderShape | None = None
    orphans: tuple[Orphan, ...] = ()
    present: tuple[Presence, ...] = ()


class Beside(NamedTuple):
    """What this branch can see of a claim on another one: the claim and its holder."""

    claim: ClaimShape
    holder: HolderShape


EMPTY = Branch()


def settled(holder: HolderShape) -> HolderShape:
    """Forget who bears a spent fence once nobody believes in it."""
    if holder.done and not holder.believes:
        return holder._replace(bearer=NOBODY)
    return holder


def relabel(branch: Branch, names: dict[int, int]) -> Branch:
    def of(label: int) -> int:
        return names.get(label, label)

    claim, holder = branch.claim, branch.holder
    if claim is not None and claim.held:
        claim = claim._replace(owner=of(claim.owner))
        holder = holder._replace(pid=of(holder.pid), bearer=of(holder.bearer))
    return Branch(
        claim,
        holder,
        tuple(sorted({orphan._replace(pid=of(orphan.pid)) for orphan in branch.orphans})),
        tuple(sorted({Presence(of(presence.pid)) for presence in branch.present})),
    )


def signature(branch: Branch, agent: int):
    """Return all that tells one agent from another on this branch."""
    claim, holder = branch.claim, branch.holder
    held = claim is not None and claim.held
    return (
        held and claim.owner == agent,
        held and holder.pid == agent,
        held and holder.bearer == agent,
        tuple(orphan[1:] for orphan in branch.orphans if orphan.pid == agent),
        Presence(agent) in branch.present,
    )


def dies(branch: Branch, agent: int) -> Branch:
    claim, holder = branch.claim, branch.holder
    if holder is not None:
        if claim.owner == agent:
            holder = holder._replace(done=True, believes=False)
        if holder.bearer == agent:
            holder = holder._replace(bearer=NOBODY, believes=False)
        holder = settled(holder)
    return relabel(branch._replace(holder=holder), {agent: DEAD})


def ttl_passes(branch: Branch) -> Branch:
    claim, holder = branch.claim, branch.holder
    if claim is not None and claim.ttl == "runs":
        claim, holder = claim._replace(ttl="over"), settled(holder._replace(believes=False))
    orphans = tuple(
        sorted({o._replace(ttl="over") if o.ttl == "runs" else o for o in branch.orphans})
    )
    return branch._replace(claim=claim, holder=holder, orphans=orphans)


def week_passes(branch: Branch) -> Branch:
    branch = ttl_passes(branch)
    holder = branch.holder
    if holder is not None and holder.file not in ("active", "missing"):
        branch = branch._replace(holder=holder._replace(stale=True))
    return branch


@cache
def seen_from_beside(branch: Branch) -> Beside | None:
    """Return what other branches can see of this one; None where its claim names no folder."""
    claim, holder = branch.claim, branch.holder
    if claim is None or not claim.path:
        return None

    def of(label: int) -> int:
        return SOMEONE if label >= 0 else label

    # Who bears it and whether the fence is spent is nothing that the neighbour's steps look at.
    return Beside(
        claim._replace(owner=of(claim.owner)),
        holder._replace(pid=of(holder.pid), bearer=NOBODY, done=False),
    )


def may_write(claim: ClaimShape | None, holder: HolderShape | None) -> bool:
    """Return whether the holder's claim is valid, or whether it believes so."""
    if claim is None or not claim.held:
        return False
    is_valid = (
        holder.file == "active" and not claim.lost and claim.ttl != "over" and claim.owner != DEAD
    )
    return is_valid or holder.believes


def share_a_folder(branch: Branch, beside: Beside) -> bool:
    """Return whether holders on two branches may write to one folder: never reachable."""
    return (
        may_write(branch.claim, branch.holder)
        and branch.claim.path == beside.claim.path
        and may_write(beside.claim, beside.holder)
    )
