"""One attempt at a branch: the terms, the new entry, the decision, and its liveness lock."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.entry import check_entry
from heddle_registry.core.evidence import Subject
from heddle_registry.core.lifecycle import AgentStatus, EntryEvent
from heddle_registry.core.limits import (
    DEFAULT_TTL_S,
    MAX_ID_TRIES,
    check_session_id,
    check_thread,
    check_ttl,
)
from heddle_registry.core.record import Record
from heddle_registry.core.reserve import (
    LiveOwner,
    Reserved,
    ReserveOutcome,
    ReserveRequest,
    decide_reserve,
    foresee_reserve,
)
from heddle_registry.core.token import SALT_BYTES, hash_token
from heddle_registry.core.transaction import Facts, IdTaken, Keys
from heddle_registry.errors import Held, OutcomeUnknown, RegistryError, UsageError
from heddle_registry.registry.entries import no_free_id, normalised
from heddle_registry.registry.looking import canonical_folder
from heddle_registry.registry.transactions import Transactions, Watched

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import Owner
    from heddle_registry.ports import Host, LivenessLock, Store


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Terms(Record):
    """On what terms a branch is asked for; see `ReserveRequest` for the fields they share."""

    owner: Owner | None = None
    recorded_owner: Owner | None = None
    ttl_s: float | None = None
    path: str | None = None
    asker: str | None = None
    force_reason: str | None = None
    bearer: str | None = attrs.field(default=None, repr=False)
    runner_pid: int | None = None
    hold_liveness: bool = False
    inheritable: bool = False
    """The liveness lock is for a child process to inherit."""
    ticket: str | None = None


class Asker(Transactions):
    """Asks for branches, of one store and on one host."""

    def __init__(self, store: Store, host: Host) -> None:
        self.store = store
        self.host = host
        self.holder: Watched | None = None
        """Whom a heartbeat of what was granted will look at; None where that is nobody."""

    def attempt(
        self,
        thread: str,
        build: Callable[[str], AgentEntry],
        terms: Terms,
        *,
        owner_from_entry: bool = False,
    ) -> tuple[ReserveOutcome, LivenessLock | None]:
        """Ask once, without waiting; with ``owner_from_entry`` on the terms that the entry says.

        Returns the outcome and, where the terms ask for one, the liveness lock now held.
        """
        check_thread(thread)
        for _ in range(MAX_ID_TRIES):
            entry = self._built(thread, build)
            asked = self._terms_of(entry, terms) if owner_from_entry else terms
            token = entry.reservation_token or self.new_token()
            request = ReserveRequest(
                thread=thread,
                entry=_for_owner(entry, asked),
                token=hash_token(token, self.host.random_bytes(SALT_BYTES)),
                bearer=asked.bearer,
                owner=asked.owner,
                recorded_owner=asked.recorded_owner,
                ttl_s=check_ttl(asked.ttl_s) if asked.ttl_s is not None else None,
                path=asked.path,
                asker=asked.asker,
                force_reason=asked.force_reason,
                ticket=asked.ticket,
                runner_pid=asked.runner_pid,
            )
            keys = Keys(
                threads=(thread,),
                path=asked.path,
                sessions=(asked.asker,) if asked.asker is not None else (),
                fresh_ids=(entry.session_id,),
                line_of=thread,
            )
            # Most refusals are clear without the lock, and then nothing at all is written.
            facts: Facts = {}
            early = self._peek(keys, partial(foresee_reserve, request), facts)
            if early.refusal is not None:
                raise early.refusal
            if isinstance(early.answer, LiveOwner):
                return early.answer, None
            if isinstance(early.answer, IdTaken):
                continue  # before its liveness lock, which is another's, is touched
            liveness = None
            if asked.hold_liveness:
                liveness = self.store.hold_liveness(entry.session_id, inheritable=asked.inheritable)
            if liveness is not None:
                request = attrs.evolve(request, liveness=liveness.file)
            try:
                # What is stale is removed by the way, once there is something to write.
                answer = self._transact(
                    attrs.evolve(keys, stale=True), partial(decide_reserve, request), facts
                )
            except BaseException as error:
                if isinstance(error, OutcomeUnknown) or not isinstance(error, Exception):
                    self._give_back(entry.session_id, token)
                if liveness is not None:
                    liveness.discard()
                raise
            if isinstance(answer, Reserved):
                if not answer.is_new and liveness is not None:
                    liveness.discard()
                    liveness = None
                if answer.is_new and request.owner is not None:
                    whom = Subject(
                        session_id=answer.entry.session_id,
                        fence=answer.fence,
                        owner=request.owner,
                        boot_id=request.owner.boot_id,
                        liveness=request.liveness,
                    )
                    self.holder = Watched(answer.entry.session_id, request.token, (whom,))
                shown = answer if answer.token else attrs.evolve(answer, token=token)
                return shown, liveness
            if liveness is not None:
                liveness.discard()
            if isinstance(answer, LiveOwner):
                return answer, None
        raise no_free_id()

    def _give_back(self, session_id: str, token: str) -> None:
        # The claim may stand, and its token was shown to nobody: as long as this process lives,
        # nobody could use the branch or free it.
        from heddle_registry.core.release import Bearer, decide_release

        with suppress(RegistryError):
            self._transact(
                Keys(sessions=(session_id,)),
                lambda loaded, now, _facts: decide_release(
                    session_id, EntryEvent.ABANDON, Bearer(token=token), loaded, now
                ),
            )

    def _built(self, thread: str, build: Callable[[str], AgentEntry]) -> AgentEntry:
        entry = normalised(build(self._new_id()))
        check_session_id(entry.session_id)
        if entry.thread != thread:
            raise UsageError(f"build() made an entry for {entry.thread!r}, not for {thread!r}")
        if entry.status is not AgentStatus.ACTIVE or entry.completed_at is not None:
            raise UsageError("build() must return an Active entry without completed_at")
        return check_entry(entry)

    def _terms_of(self, entry: AgentEntry, terms: Terms) -> Terms:
        path = canonical_folder(entry.path) if entry.path is not None else None
        if entry.pid is None:
            return attrs.evolve(terms, ttl_s=DEFAULT_TTL_S, path=path)
        return attrs.evolve(terms, owner=self.owner_for(entry.pid), path=path)


def held_error(thread: str, outcome: LiveOwner) -> Held:
    """Return the error that says what a `LiveOwner` says."""
    return Held(
        thread,
        holder=outcome.entry,
        verdict=outcome.verdict,
        why=outcome.why,
        frees_when=outcome.frees_when,
        state=outcome.state,
    )


def _for_owner(entry: AgentEntry, terms: Terms) -> AgentEntry:
    owner = terms.owner or terms.recorded_owner
    if owner is None:
        return attrs.evolve(entry, pid=None, boot_id=None)
    return attrs.evolve(entry, pid=owner.pid, boot_id=owner.boot_id or None)
