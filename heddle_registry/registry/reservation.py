"""Holding a branch for the length of a ``with`` block."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.record import Record
from heddle_registry.core.reserve import LiveOwner
from heddle_registry.errors import ClaimLost, RegistryError, UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from types import TracebackType

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.reserve import Reserved
    from heddle_registry.ports import LivenessLock
    from heddle_registry.registry import AgentRegistry

RENEWALS_PER_TTL = 3
"""Two renewals may fail before the TTL passes."""


class HeldClaim:
    """A claim that a ``with`` block holds. Safe to use from any OS thread of the process."""

    def __init__(self, registry: AgentRegistry, reserved: Reserved) -> None:
        self._registry = registry
        self._reserved = reserved
        self._lost: RegistryError | None = None
        self.lost = threading.Event()
        """Set as soon as a renewal or `check` finds the claim gone."""

    @property
    def entry(self) -> AgentEntry:
        """The entry that holds the branch, as it was when it was made."""
        return self._reserved.entry

    @property
    def thread(self) -> str:
        """The branch."""
        return self._reserved.entry.thread

    @property
    def session_id(self) -> str:
        """The holder's session id."""
        return self._reserved.entry.session_id

    @property
    def fence(self) -> int:
        """The number to send along with every write to whatever checks fences."""
        return self._reserved.fence

    @property
    def token(self) -> str:
        """The secret that renews and releases the claim."""
        return self._reserved.token or ""

    @property
    def present(self) -> tuple[AgentEntry, ...]:
        """Entries that live on the branch beside this one."""
        return self._reserved.present

    def check(self) -> None:
        """Look whether the claim still stands. Takes no lock, a fraction of a millisecond.

        :raises ClaimLost: it does not; says who took it, when and why.
        """
        if self._lost is not None:
            raise self._lost
        answer = self._registry.check(self.thread, self.fence)
        if not answer.valid:
            raise self.mark_lost(ClaimLost(self.thread, by=answer.holder or "", why=answer.why))

    def renew(self) -> None:
        """Renew the claim now. A ``with`` block with a TTL does so by itself.

        :raises ClaimLost: it is gone.
        """
        try:
            self._registry.heartbeat(self.session_id, self.token)
        except ClaimLost as error:
            raise self.mark_lost(error) from None

    def mark_lost(self, error: RegistryError) -> RegistryError:
        """Note the loss, so that `check` says the same from now on; returns ``error``."""
        if self._lost is None:
            self._lost = error
            self.lost.set()
        return self._lost

    def child_env(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return ``environ`` (default: this process's) with what the command line's verbs read.

        The token is among it: give it only to processes that may renew and release the claim.
        """
        env = dict(os.environ if environ is None else environ)
        env.update(
            HEDDLE_THREAD=self.thread,
            HEDDLE_AGENT_SESSION_ID=self.session_id,
            HEDDLE_AGENT_TOKEN=self.token,
            HEDDLE_AGENT_FENCE=str(self.fence),
        )
        heddle_dir = getattr(self._registry.store, "heddle_dir", None)
        if heddle_dir is not None:
            env["HEDDLE_DIR"] = heddle_dir
        return env


class Reservation:
    """What `AgentRegistry.reserve` returns: enter it to hold the branch. Can be entered once.

    A forked child that leaves the block releases nothing: the claim is its parent's.
    """

    def __init__(
        self,
        registry: AgentRegistry,
        thread: str,
        *,
        ttl_s: float | None,
        wait_s: float,
        path: str | None,
        task: str | None,
        base_state: str | None,
        force_reason: str | None,
    ) -> None:
        self._registry = registry
        self._thread = thread
        self._wait_s = wait_s
        self._path = path
        self._task = task
        self._base_state = base_state
        self._ttl_s = ttl_s
        self._force_reason = force_reason
        self._claim: HeldClaim | None = None
        self._liveness: LivenessLock | None = None
        self._pid = 0
        self._stop = threading.Event()
        self._renewer: threading.Thread | None = None

    def __enter__(self) -> HeldClaim:
        from heddle_registry.registry.attempt import Terms, held_error
        from heddle_registry.registry.scripting import build_entry

        registry = self._registry
        if self._pid:
            raise UsageError(
                f"this reservation of {self._thread!r} was entered before",
                "Call reserve() for each with block",
            )
        self._pid = os.getpid()
        terms = Terms(
            owner=registry.owner_for(registry.host.own_pid()),
            ttl_s=self._ttl_s,
            path=self._path,
            force_reason=self._force_reason,
            hold_liveness=True,
        )
        build = build_entry(
            registry,
            self._thread,
            path=self._path,
            task=self._task,
            base_state=self._base_state,
        )
        outcome, self._liveness = registry.reserve_on_terms(
            self._thread, build, terms, wait_s=self._wait_s
        )
        if isinstance(outcome, LiveOwner):
            raise held_error(self._thread, outcome)
        self._claim = HeldClaim(registry, outcome)
        if self._ttl_s is not None:
            self._renewer = threading.Thread(
                target=self._renew_until_left,
                args=(self._claim, self._ttl_s / RENEWALS_PER_TTL),
                name=f"renew {self._thread}",
                daemon=True,
            )
            try:
                self._renewer.start()
            except RuntimeError as error:  # no thread to be had: nobody would renew it
                self._renewer = None
                self.__exit__(type(error), error, None)
                raise
        return self._claim

    def _renew_until_left(self, claim: HeldClaim, every_s: float) -> None:
        # A store that cannot be reached now may be at the next try; only a refusal is final.
        while not self._stop.wait(every_s):
            try:
                claim.renew()
            except ClaimLost:
                return
            except RegistryError as error:
                if error.exit_code == ClaimLost.exit_code:
                    return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        claim = self._claim
        if claim is None or os.getpid() != self._pid:
            return
        self._stop.set()
        if self._renewer is not None:
            self._renewer.join()
        status = AgentStatus.COMPLETE if kind is None else AgentStatus.ABANDONED
        try:
            self._registry.release(claim.session_id, status, token=claim.token)
        except RegistryError as refused:
            # The body's own exception says more than a release that came too late.
            if kind is None:
                raise
            if error is not None:
                error.add_note(f"heddle_registry: releasing {self._thread!r} failed: {refused}")
        finally:
            if self._liveness is not None:
                self._liveness.release()


@attrs.frozen(eq=False, repr=False)
class AsyncReservation(Record):
    """The same for ``async with``: entering and leaving run in a worker thread.

    Cancelled while it waits, it gives back a branch that it may just have been granted.
    """

    _inner: Reservation

    async def __aenter__(self) -> HeldClaim:
        import asyncio

        entering = asyncio.ensure_future(asyncio.to_thread(self._inner.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError as cancelled:
            entering.add_done_callback(self._give_back(cancelled))
            raise

    def _give_back(self, cancelled: BaseException):  # type: ignore[no-untyped-def]  # noqa: ANN202

        def give_back(entered: asyncio.Future[HeldClaim]) -> None:
            if not entered.cancelled() and entered.exception() is None:
                threading.Thread(
                    target=self._inner.__exit__,
                    args=(type(cancelled), cancelled, None),
                    name="give back a branch",
                ).start()

        return give_back

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import asyncio

        await asyncio.shield(asyncio.to_thread(self._inner.__exit__, kind, error, trace))
