"""From facts about a process to a verdict: alive, dead or unknown, and by what evidence.

A missing fact never makes anyone dead. Only proof does: a liveness lock that is free, a reboot of
the same host, a pid that is gone, a zombie, or started at another tick.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping


class VerdictKind(StrEnum):
    """What liveness says."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@attrs.frozen(eq=False, repr=False)
class Evidence(Record):
    """One reason of a verdict: a stable ``code`` for programs, a ``detail`` for people."""

    code: str
    detail: str


@attrs.frozen(eq=False, repr=False)
class Verdict(Record):
    """A judgement and its evidence, the deciding reason first."""

    kind: VerdictKind
    evidence: tuple[Evidence, ...] = ()

    @property
    def is_dead(self) -> bool:
        """Whether death is proven."""
        return self.kind is VerdictKind.DEAD

    @property
    def is_alive(self) -> bool:
        """Whether life is proven."""
        return self.kind is VerdictKind.ALIVE


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Owner(Record):
    """The process whose life a record depends on, as it was seen when the record was made.

    ``host`` is a hash that tells machines apart (empty when unknown), ``pid_ns`` and ``time_ns``
    name its namespaces (empty where the system has none), ``start_ticks`` is its start in the
    kernel's monotonic ticks (microseconds where the system counts so; None when it could not be
    read), ``command`` its name for people.
    """

    pid: int
    boot_id: str = ""
    host: str = ""
    pid_ns: str = ""
    time_ns: str = ""
    start_ticks: int | None = None
    command: str = ""
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)

    def is_same_process(self, other: Owner | None) -> bool:
        """Return whether both name one process. Without start ticks nobody can tell: False."""
        return (
            other is not None
            and self.start_ticks is not None
            and (self.pid, self.start_ticks, self.boot_id, self.pid_ns)
            == (other.pid, other.start_ticks, other.boot_id, other.pid_ns)
        )


class LivenessFact(StrEnum):
    """What a look at a liveness lock showed, where it showed anything."""

    HELD = "held"
    FREE = "free"


class ProcessState(StrEnum):
    """What the process table says of a pid."""

    MISSING = "missing"
    ZOMBIE = "zombie"
    RUNNING = "running"
    HIDDEN = "hidden"
    """Something has the pid, but its start cannot be read (hidepid, another user)."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LivenessFile(Record):
    """Which liveness lock belongs to a claim: the file's device and inode when it was made."""

    device: int
    inode: int
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Subject(Record):
    """Whom to look at. Everything a host needs to gather an `Observation`.

    ``owner`` is None for an entry that records none; then ``pid`` and ``boot_id``, the original's
    two fields, are all there is.
    """

    session_id: str
    fence: int | None = None
    owner: Owner | None = None
    pid: int | None = None
    boot_id: str = ""
    liveness: LivenessFile | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Observation(Record):
    """What the observer saw, and where it stands.

    ``boot_id``, ``host``, ``pid_ns`` and ``time_ns`` are the observer's own; ``in_inner_pid_ns``
    says that it sees only a part of the host's processes. ``runner_gone`` and ``descriptor_pids``
    are for people: who has the liveness file open.
    """

    boot_id: str
    host: str = ""
    pid_ns: str = ""
    time_ns: str = ""
    in_inner_pid_ns: bool = False
    liveness: LivenessFact | None = None
    process: ProcessState | None = None
    start_ticks: int | None = None
    descriptor_pids: tuple[int, ...] = ()


def _process_evidence(owner: Owner, seen: Observation) -> tuple[VerdictKind, Evidence] | None:
    # None: the process table proves nothing.
    name = f"process {owner.pid}" + (f" ({owner.command})" if owner.command else "")
    if seen.process is ProcessState.MISSING:
        return VerdictKind.DEAD, Evidence("exited", f"{name} is gone")
    if seen.process is ProcessState.ZOMBIE:
        return VerdictKind.DEAD, Evidence("zombie", f"{name} has ended and waits to be reaped")
    if seen.process is ProcessState.RUNNING and None not in (owner.start_ticks, seen.start_ticks):
        if owner.start_ticks != seen.start_ticks:
            return VerdictKind.DEAD, Evidence(
                "pid_reused", f"pid {owner.pid} now belongs to a process that started later"
            )
        return VerdictKind.ALIVE, Evidence("process", f"{name} runs")
    return None


def judge(subject: Subject, seen: Observation | None) -> Verdict:
    """Return the verdict on ``subject``. The first row that applies decides.

    The order is that of the design's evidence table but for one step: a liveness lock that is
    free proves nothing while the recorded process itself is seen alive, since a command may close
    every descriptor that it inherits (docs/explanation/liveness.md).

    :param seen: None when nobody could look; the verdict is then unknown.
    """
    if seen is None:
        return Verdict(VerdictKind.UNKNOWN, (Evidence("not_observed", "nobody could look"),))
    if subject.liveness is not None and seen.liveness is LivenessFact.HELD:
        return _held_verdict(subject, seen)
    if subject.owner is None:
        return _judge_without_owner(subject, seen)
    owner = subject.owner
    visible = _is_visible(owner, seen)
    process = _process_evidence(owner, seen) if visible else None
    if process is not None and process[0] is VerdictKind.ALIVE:
        return Verdict(VerdictKind.ALIVE, (process[1],))
    if _is_free(subject, owner.boot_id, seen):
        evidence = [Evidence("lock_free", "its liveness lock is free")]
        if process is not None:
            evidence.append(process[1])
        return Verdict(VerdictKind.DEAD, tuple(evidence))
    if not (owner.boot_id and seen.boot_id):
        return Verdict(
            VerdictKind.UNKNOWN,
            (Evidence("no_boot_id", f"nothing tells whether pid {owner.pid} is of this boot"),),
        )
    if owner.boot_id != seen.boot_id:
        if owner.host and owner.host == seen.host:
            return Verdict(
                VerdictKind.DEAD, (Evidence("rebooted", "this host was started again since"),)
            )
        return Verdict(
            VerdictKind.UNKNOWN,
            (Evidence("other_host", "it runs on another host, which cannot be looked at"),),
        )
    if not visible:
        return Verdict(
            VerdictKind.UNKNOWN,
            (Evidence("other_namespace", f"pid {owner.pid} belongs to another namespace"),),
        )
    if process is not None:
        return Verdict(process[0], (process[1],))
    return Verdict(
        VerdictKind.UNKNOWN,
        (Evidence("no_start_time", f"pid {owner.pid} exists, but its start cannot be read"),),
    )


def _is_free(subject: Subject, boot_id: str, seen: Observation) -> bool:
    # A lock is free for every kernel but the one that holds it, so the boot must be known.
    return (
        subject.liveness is not None
        and seen.liveness is LivenessFact.FREE
        and bool(boot_id)
        and boot_id == seen.boot_id
    )


def _is_visible(owner: Owner, seen: Observation) -> bool:
    # The time namespace shifts start ticks, the pid namespace the pids themselves. Two boot ids
    # that are not known are not equal.
    return bool(owner.boot_id) and (owner.boot_id, owner.pid_ns, owner.time_ns) == (
        seen.boot_id,
        seen.pid_ns,
        seen.time_ns,
    )


def _held_verdict(subject: Subject, seen: Observation) -> Verdict:
    evidence = [Evidence("lock_held", "its liveness lock is held")]
    owner = subject.owner
    if owner is not None and _is_visible(owner, seen):
        process = _process_evidence(owner, seen)
        if process is not None:
            evidence.append(process[1])
    if seen.descriptor_pids:
        pids = ", ".join(map(str, seen.descriptor_pids))
        evidence.append(Evidence("lock_pids", f"open in process {pids}"))
    return Verdict(VerdictKind.ALIVE, tuple(evidence))


def _judge_without_owner(subject: Subject, seen: Observation) -> Verdict:
    # As the original judges `(pid, boot_id)`, with two exceptions: a zombie is dead, and "no such
    # process" means nothing to an observer who sees only a part of them.
    if _is_free(subject, subject.boot_id, seen):
        return Verdict(VerdictKind.DEAD, (Evidence("lock_free", "its liveness lock is free"),))
    if subject.pid is None:
        return Verdict(VerdictKind.UNKNOWN, (Evidence("no_pid", "it recorded no process"),))
    if subject.boot_id and seen.boot_id and subject.boot_id != seen.boot_id:
        return Verdict(
            VerdictKind.DEAD, (Evidence("rebooted", "it was recorded under another boot id"),)
        )
    if seen.process is ProcessState.MISSING:
        if seen.in_inner_pid_ns:
            return Verdict(
                VerdictKind.UNKNOWN,
                (Evidence("inner_namespace", f"pid {subject.pid} is not to be seen from here"),),
            )
        return Verdict(VerdictKind.DEAD, (Evidence("exited", f"process {subject.pid} is gone"),))
    if seen.process is ProcessState.ZOMBIE:
        return Verdict(
            VerdictKind.DEAD,
            (Evidence("zombie", f"process {subject.pid} has ended and waits to be reaped"),),
        )
    if seen.process in (ProcessState.RUNNING, ProcessState.HIDDEN):
        return Verdict(
            VerdictKind.ALIVE,
            (Evidence("pid_exists", f"a process {subject.pid} exists; its start is unrecorded"),),
        )
    return Verdict(
        VerdictKind.UNKNOWN, (Evidence("not_observed", f"pid {subject.pid} was not looked at"),)
    )


TTL_RUNNING: Final = "ttl_running"
WALL_CLOCK: Final = "wall_clock"
EXPIRED: Final = "expired"
