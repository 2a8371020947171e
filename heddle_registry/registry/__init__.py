"""The registry: gathers facts, lets the core decide, has the store make it so."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import attrs

from heddle_registry.core.claim import ClaimState
from heddle_registry.core.lifecycle import AgentStatus, EntryEvent
from heddle_registry.core.limits import MAX_ID_TRIES, check_session_id, check_thread, check_ttl
from heddle_registry.core.session_id import RANDOM_BYTES, encode_session_id
from heddle_registry.core.token import SALT_BYTES, hash_token, token_matches
from heddle_registry.core.transaction import Decision, Facts, Keys, Loaded, NeedFacts
from heddle_registry.errors import UsageError
from heddle_registry.forking import prepare_forks
from heddle_registry.registry.entries import no_free_id, status_named
from heddle_registry.registry.looking import canonical_folder
from heddle_registry.registry.reserving import ReserveDoors
from heddle_registry.registry.sweeping import SweepDoors
from heddle_registry.registry.transactions import Watched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heddle_registry.core.attach import AttachDecision, AttachFacts, AttachRule
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.renew import FenceAnswer, Renewed
    from heddle_registry.core.reserve import Reserved
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.ports import Host, Store
    from heddle_registry.registry.reservation import AsyncReservation, Reservation

__all__ = ["AgentRegistry", "generate_agent_id"]

_MOST_SUBJECTS: Final = 16
"""Of one heartbeat: the holder, and those of other claims on its folder."""


def generate_agent_id() -> str:
    """Return a new session id: ``agent-`` and 96 random bits."""
    return encode_session_id(os.urandom(RANDOM_BYTES))


class AgentRegistry(ReserveDoors, SweepDoors):
    """Which agents are in flight on one repository, and who may write to which branch.

    ``AgentRegistry(heddle_dir)`` uses files, `open` finds them; ``store`` and ``host`` replace
    either for embedders. Safe for several OS threads. After a fork, parent and child may both go
    on using it; claims held by a ``with`` block stay with the process that entered it.

    Look-ups answer None for an unknown id, changes raise `UnknownEntry`. Everything here may
    block for the store's lock, at most ``lock_timeout_s`` seconds where that is given.
    """

    def __init__(
        self,
        heddle_dir: str | os.PathLike[str] | None = None,
        *,
        store: Store | None = None,
        host: Host | None = None,
        lock_timeout_s: float | None = None,
    ) -> None:
        from heddle_registry import opening

        self.host = host if host is not None else opening.local_host()
        if store is None:
            if heddle_dir is None:
                raise UsageError(
                    "AgentRegistry needs a heddle_dir or a store",
                    "AgentRegistry.open() finds the registry of the working directory",
                )
            store = opening.directory_store(heddle_dir, self.host, lock_timeout_s)
        self.store = store
        self._watched = {}
        prepare_forks()

    @classmethod
    def open(
        cls,
        start: str | os.PathLike[str] | None = None,
        *,
        heddle_dir: str | os.PathLike[str] | None = None,
        lock_timeout_s: float | None = None,
    ) -> Self:
        """Return the registry that the folder ``start`` (default: the working one) belongs to.

        :raises UsageError: there is neither a ``.heddle`` upward nor a git repository.
        """
        from heddle_registry import opening

        found = opening.find_heddle_dir(
            os.fspath(start) if start is not None else None,
            explicit=os.fspath(heddle_dir) if heddle_dir is not None else None,
        )
        return cls(found, lock_timeout_s=lock_timeout_s)

    def reserve(
        self,
        thread: str,
        *,
        ttl_s: float | None = None,
        wait_s: float = 0.0,
        path: str | os.PathLike[str] | None = None,
        task: str | None = None,
        base_state: str | None = None,
        force_reason: str | None = None,
    ) -> Reservation:
        """Return a context manager that holds ``thread`` while its body runs.

        It owns the branch by this process and a liveness lock; with ``ttl_s`` the claim also
        ends that many seconds after the last renewal, and an OS thread renews it. Entering
        raises `Held` if another has the branch after ``wait_s`` seconds. Leaving releases:
        complete, or abandoned where the body raised. In a forked child, leaving does nothing.
        """
        from heddle_registry.registry.reservation import Reservation

        return Reservation(
            self,
            thread,
            ttl_s=ttl_s,
            wait_s=wait_s,
            path=canonical_folder(path) if path is not None else None,
            task=task,
            base_state=base_state,
            force_reason=force_reason,
        )

    def areserve(
        self,
        thread: str,
        *,
        ttl_s: float | None = None,
        wait_s: float = 0.0,
        path: str | os.PathLike[str] | None = None,
        task: str | None = None,
        base_state: str | None = None,
        force_reason: str | None = None,
    ) -> AsyncReservation:
        """Return the same as `reserve` for ``async with``; nothing blocks the event loop."""
        from heddle_registry.registry.reservation import AsyncReservation

        return AsyncReservation(
            self.reserve(
                thread,
                ttl_s=ttl_s,
                wait_s=wait_s,
                path=path,
                task=task,
                base_state=base_state,
                force_reason=force_reason,
            )
        )

    def heartbeat(self, session_id: str, token: str | None = None) -> Renewed:
        """Renew the claim that ``session_id`` holds; without one, note a sign of life.

        :raises ClaimLost: the token is refused, or the claim is gone; says who took it, and why.
        :raises UnknownEntry: there is no such entry.
        :raises IllegalTransition: the entry has ended and never held a claim.
        """
        from heddle_registry.core.renew import decide_renew

        check_session_id(session_id)
        keys = Keys(sessions=(session_id,))
        watched = self._watched.get(session_id)

        def decide(loaded: Loaded, now: Instant, facts: Facts) -> Decision[Renewed] | NeedFacts:
            decision = decide_renew(session_id, token, loaded, now, facts)
            if isinstance(decision, NeedFacts) and token is not None:
                shown = hash_token(token, self.host.random_bytes(SALT_BYTES))
                # What is missing now comes to what was known to be asked for.
                known = (*watched.subjects, *decision.subjects) if watched else decision.subjects
                self._watch(Watched(session_id, shown, known[-_MOST_SUBJECTS:]))
            return decision

        facts: Facts = {}
        if watched is not None and token_matches(token, watched.token):
            self._gather(watched.subjects, facts)
        else:
            self._peek(keys, decide, facts, rounds=1)
        return self._transact(keys, decide, facts)

    def release(
        self,
        session_id: str,
        status: AgentStatus | str = AgentStatus.COMPLETE,
        *,
        token: str | None = None,
        ask_token: bool = True,
    ) -> AgentEntry:
        """End an entry, and its claim with it. While it holds a claim, the token is asked for.

        :raises ClaimLost: the token is refused, or the claim is gone.
        :raises IllegalTransition: the entry's status does not allow it.
        :raises UnknownEntry: there is no such entry.
        """
        from heddle_registry.core.release import Bearer, decide_release

        check_session_id(session_id)
        events = {
            AgentStatus.COMPLETE: EntryEvent.COMPLETE,
            AgentStatus.MERGED: EntryEvent.MERGE,
            AgentStatus.ABANDONED: EntryEvent.ABANDON,
        }
        event = events.get(status_named(status))
        if event is None:
            raise UsageError("an entry can be released as complete, merged or abandoned")
        bearer = Bearer(token=token) if ask_token else None
        return self._transact(
            Keys(sessions=(session_id,)),
            lambda loaded, now, _facts: decide_release(session_id, event, bearer, loaded, now),
        )

    def hand_over(
        self,
        session_id: str,
        token: str | None,
        *,
        to_pid: int | None = None,
        to_ttl_s: float | None = None,
    ) -> Reserved:
        """Give the claim to another process, or to a TTL; returns its new entry and token.

        :raises ClaimLost: the token is refused, or the claim is not held.
        :raises UsageError: neither or both are given, or the process does not run.
        """
        from heddle_registry.core.release import HandOverRequest, decide_hand_over
        from heddle_registry.core.reserve import Reserved

        check_session_id(session_id)
        if (to_pid is None) == (to_ttl_s is None):
            raise UsageError("name either a process or a TTL to hand over to")
        owner = self.owner_for(to_pid) if to_pid is not None else None
        ttl_s = check_ttl(to_ttl_s) if to_ttl_s is not None else None
        for _ in range(MAX_ID_TRIES):
            new_token = self.new_token()
            request = HandOverRequest(
                session_id=session_id,
                bearer=token,
                new_id=self._new_id(),
                token=hash_token(new_token, self.host.random_bytes(SALT_BYTES)),
                owner=owner,
                ttl_s=ttl_s,
            )
            answer = self._transact(
                Keys(sessions=(session_id,), fresh_ids=(request.new_id,)),
                partial(decide_hand_over, request),
            )
            if isinstance(answer, Reserved):
                return attrs.evolve(answer, token=new_token)
        raise no_free_id()

    def attach(
        self,
        facts: AttachFacts,
        base_state: str | None = None,
        *,
        rules: Sequence[AttachRule] | None = None,
        dry_run: bool = False,
    ) -> AttachDecision:
        """Find, fill in or make the entry of the actor that ``facts`` describe. Idempotent.

        Presence, never a claim: where others are on the branch, it works all the same and says so.

        :param base_state: what a new entry's work starts from
        :param rules: the built-in ones when left out; the last of them must always decide
        :param dry_run: write nothing
        :raises UsageError: ``facts`` cannot be written down.
        """
        from heddle_registry.registry.attaching import Attacher

        return Attacher(self.store, self.host).attach(
            facts, base_state, rules=rules, dry_run=dry_run
        )

    def check(
        self, thread: str, fence: int | None = None, *, token: str | None = None
    ) -> FenceAnswer:
        """Return whether ``fence`` still holds on ``thread``. Changes nothing, takes no lock.

        A ``token`` must be the holder's as well; without a fence it is judged alone.

        :raises UsageError: neither is given.
        :raises RegistryError: the claim, or its holder's entry, cannot be read.
        """
        from heddle_registry.core.renew import judge_fence, judge_token, other_claim_on_folder

        check_thread(thread)
        if fence is None and token is None:
            raise UsageError("check needs a fence or a token")
        loaded, now = self.store.peek(Keys(threads=(thread,)))
        claim = loaded.claim_on(thread, now)
        unread = loaded.damage_of_holder(claim)
        if unread is not None:
            # Unreadable is not gone: to say "lost" would stop a holder for want of a descriptor.
            raise unread
        standing = self.standing_of(claim, loaded.entries.values(), now)
        refused = judge_token(claim, token) if token is not None else None
        if refused is not None:
            return refused
        taken_by = None
        if standing.state is ClaimState.EXPIRED and claim.path is not None:
            around, now = self.store.peek(Keys(threads=(thread,), path=claim.path))
            unread = around.folder_error(claim.path)
            if unread is not None:
                raise unread
            taken_by = self._with_facts(
                lambda witness: other_claim_on_folder(claim, around, witness, now)
            )
        asked = claim.fence if fence is None else fence
        return judge_fence(standing, asked, loaded.entries, taken_by)
