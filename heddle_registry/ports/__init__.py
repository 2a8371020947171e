"""The two things the registry needs from outside: somewhere to keep records, and a host.

An embedder may bring its own; ``heddle_registry.testing`` has suites that each must pass.
"""

# ruff: noqa: PIE790 - a body that is only a docstring is no body to a Protocol
from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import LivenessFile, Observation, Owner, Subject
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Decision, Facts, Keys, Loaded, NeedFacts
    from heddle_registry.ports.findings import Check
    from heddle_registry.ports.process import ProcessInfo
    from heddle_registry.ports.query import Look, Query
else:
    Protocol = object  # building one takes longer than all the records here

T = TypeVar("T")


class Host(Protocol):
    """The machine that the caller runs on. No method writes; none blocks for long."""

    def now(self) -> Instant:
        """Read the wall clock and the clock that stands still while the host sleeps."""
        ...

    def random_bytes(self, count: int) -> bytes:
        """Return bytes nobody can guess."""
        ...

    def environment(self) -> Mapping[str, str]:
        """Return this process's variables."""
        ...

    def cwd(self) -> str:
        """Return the working directory."""
        ...

    def home(self) -> str:
        """Return the user's home directory."""
        ...

    def own_pid(self) -> int:
        """Return the caller's pid."""
        ...

    def owner_for(self, pid: int) -> Owner | None:
        """Return the process ``pid`` as an owner; None if there is none, or only a zombie."""
        ...

    def observe(self, subject: Subject) -> Observation:
        """Look at the subject's process and namespaces; ``liveness`` is the store's to add."""
        ...

    def ancestors(self) -> Sequence[ProcessInfo]:
        """Return the caller's living ancestors, nearest first, itself not among them."""
        ...

    def processes(
        self, is_wanted: Callable[[Sequence[str]], bool] | None = None
    ) -> Sequence[ProcessInfo]:
        """Return all processes that can be seen.

        With ``is_wanted``, only those whose arguments it takes, and their ancestors: the others
        are not looked at any further, which is many times cheaper.
        """
        ...


class LivenessLock(Protocol):
    """A lock that is held as long as any process keeps its descriptor open."""

    @property
    def file(self) -> LivenessFile:
        """Device and inode, as a claim records them."""
        ...

    def fileno(self) -> int:
        """Return the descriptor, for a child to inherit."""
        ...

    def release(self) -> None:
        """Close this process's descriptor. Idempotent."""
        ...

    def discard(self) -> None:
        """Release, and remove the file: the session it was made for never came to be."""
        ...


class Place(Protocol):
    """A waiter's place in the line for one branch."""

    @property
    def ticket(self) -> str:
        """Its name in `Loaded.line`."""
        ...

    def wait(self, timeout_s: float, subject: Subject | None) -> None:
        """Sleep until woken, until ``subject`` may have died, or for ``timeout_s`` seconds.

        May return early for no reason; the caller asks again.
        """
        ...

    def leave(self) -> None:
        """Give the place up. Idempotent."""
        ...


class Store(Protocol):
    """Where records are kept. Safe for several OS threads; see each store for forks."""

    def transact(
        self,
        keys: Keys,
        decide: Callable[[Loaded, Instant, Facts], Decision[T] | NeedFacts],
        facts: Facts,
    ) -> Decision[T] | NeedFacts:
        """Load, decide, and make all effects durable or none, under the store's exclusion.

        ``decide`` is pure and may be called more than once. `NeedFacts` comes back with nothing
        written; the caller gathers and calls again. A refusal is not raised here: it comes back
        in the decision, after its effects.

        :raises LockTimeout: the exclusion stayed with another.
        :raises StoreUnavailable: nothing was changed.
        :raises OutcomeUnknown: a change is visible and may not be durable.
        """
        ...

    def peek(self, keys: Keys) -> tuple[Loaded, Instant]:
        """Load what ``keys`` name without the exclusion: one consistent moment, perhaps past.

        A refusal decided on it is as good as one under the exclusion; a grant is not.
        """
        ...

    def load(self, session_id: str) -> AgentEntry | None:
        """Return one entry; None if there is none, or it is stale. As `look`, but quicker.

        :raises RegistryError: it is there and cannot be read.
        """
        ...

    def look(self, query: Query) -> Look:
        """Answer without the exclusion. Changes nothing, needs no write permission."""
        ...

    def hold_liveness(self, session_id: str, *, inheritable: bool = False) -> LivenessLock | None:
        """Make and take the session's liveness lock; None where the store has no such thing.

        An ``inheritable`` one survives a fork and is held by whoever keeps its descriptor;
        another is closed in every forked child.
        """
        ...

    def observe(self, host: Host, subject: Subject, *, details: bool = False) -> Observation:
        """Return the host's observation with the state of the liveness lock added.

        With ``details`` also who has the lock open, for people: that asks every process.
        """
        ...

    def tidy(self, *, dry_run: bool = False) -> tuple[str, ...]:
        """Remove what writers left behind and no record needs; return what went, or would go."""
        ...

    def examine(self, host: Host) -> Sequence[Check]:
        """Return what is unsafe about the store, and what is as it should be. Changes nothing."""
        ...

    def join_line(self, thread: str, deadline_s: float) -> AbstractContextManager[Place]:
        """Queue up for a branch, for at most ``deadline_s`` seconds."""
        ...
