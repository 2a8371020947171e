"""Running a command under a claim: the main job."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.record import Record
from heddle_registry.core.reserve import LiveOwner
from heddle_registry.errors import ClaimLost, RegistryError
from heddle_registry.registry.attempt import Terms, held_error
from heddle_registry.registry.reservation import HeldClaim
from heddle_registry.registry.scripting import build_entry, find_asker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from heddle_registry.adapters.child import Child
    from heddle_registry.core.reserve import Reserved
    from heddle_registry.ports import LivenessLock
    from heddle_registry.registry import AgentRegistry

LOOK_EVERY_S = 10.0
"""How often a runner looks whether its claim was taken by force."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RunRequest(Record):
    """What `run` was asked for. ``path`` is the folder the claim names, None for none."""

    thread: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    path: str | None = None
    task: str | None = None
    base_state: str | None = None
    force_reason: str | None = None
    wait_s: float = 0.0


def run_command(registry: AgentRegistry, request: RunRequest, say: Callable[[str], None]) -> int:
    """Claim the branch, run the command while it is held, and return the command's status.

    While this process lives, the end of the command releases the claim: complete for status 0,
    else abandoned. Without this process, the claim stands as long as anything of the command
    keeps the liveness lock open. Main OS thread only: it forks and waits for signals.

    :param say: told, once each, what the user should know while the command goes on.
    :raises Held: somebody else has the branch; the command was not started.
    :raises CannotExecute: the command could not be started; the branch was given back.
    :raises RegistryError: the registry refused; the command was not started.
    """
    from heddle_registry.adapters.child import CannotExecute, Child, SignalRelay

    child = Child(request.argv)
    try:
        # Until the branch is ours, an interrupt ends the waiting as it would end anything.
        reserved, liveness = _claim_for(registry, request, child)
    except BaseException:
        child.cancel()
        raise
    claim = HeldClaim(registry, reserved)
    with SignalRelay() as signals:
        try:
            child.go(
                claim.child_env(request.environment),
                liveness.fileno() if liveness is not None else None,
            )
        except CannotExecute:
            _give_back(registry, claim, liveness, AgentStatus.ABANDONED, say)
            raise
        for entry in reserved.present:
            say(f"{entry.session_id} is on {request.thread!r} as well, without a claim")
        status: int | None = None
        while status is None:
            status = signals.wait(child.pid, LOOK_EVERY_S)
            if status is None:
                _look_for_loss(claim, say)
        _name_survivors(registry, liveness, say)
        ended_as = AgentStatus.COMPLETE if status == 0 else AgentStatus.ABANDONED
        _give_back(registry, claim, liveness, ended_as, say)
    return status


def _claim_for(
    registry: AgentRegistry, request: RunRequest, child: Child
) -> tuple[Reserved, LivenessLock | None]:
    from heddle_registry.adapters.location import find_worktree

    # The command is still our own fork; it will be known by the name of what it becomes.
    owner = attrs.evolve(
        registry.owner_for(child.pid), command=os.path.basename(request.argv[0])[:32]
    )
    asker = find_asker(registry)
    folder = registry.host.cwd()
    worktree = find_worktree(folder)
    terms = Terms(
        owner=owner,
        path=request.path,
        asker=asker.session_id if asker is not None else None,
        force_reason=request.force_reason,
        runner_pid=registry.host.own_pid(),
        hold_liveness=True,
        inheritable=True,
    )
    build = build_entry(
        registry,
        request.thread,
        path=request.path or os.path.realpath(worktree.root if worktree else folder),
        task=request.task,
        base_state=request.base_state,
    )
    outcome, liveness = registry.reserve_on_terms(
        request.thread, build, terms, wait_s=request.wait_s
    )
    if isinstance(outcome, LiveOwner):
        raise held_error(request.thread, outcome)
    return outcome, liveness


def _look_for_loss(claim: HeldClaim, say: Callable[[str], None]) -> None:
    if claim.lost.is_set():
        return
    try:
        claim.check()
    except ClaimLost as lost:
        say(f"{lost.message}. The command goes on, but must not write to the branch")
    except RegistryError:
        return  # the store cannot be read now; the next look or the release will tell


def _name_survivors(
    registry: AgentRegistry, liveness: LivenessLock | None, say: Callable[[str], None]
) -> None:
    if liveness is None:
        return
    from heddle_registry.adapters.liveness_file import liveness_holders

    own = registry.host.own_pid()
    pids = [
        pid for pid in liveness_holders(liveness.file.device, liveness.file.inode) if pid != own
    ]
    if pids:
        names = ", ".join(map(str, pids))
        say(f"the command has ended, but process {names} of it lives on without the claim")


def _give_back(
    registry: AgentRegistry,
    claim: HeldClaim,
    liveness: LivenessLock | None,
    status: AgentStatus,
    say: Callable[[str], None],
) -> None:
    try:
        registry.release(claim.session_id, status, token=claim.token)
    except RegistryError as error:
        if not claim.lost.is_set():
            say(str(error))
    if liveness is not None:
        liveness.discard()
