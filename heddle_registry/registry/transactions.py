"""Gathering facts, letting the core decide, having the store make it so."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from heddle_registry.core.session_id import RANDOM_BYTES, encode_session_id
from heddle_registry.core.standing import Standing, Witness, entry_verdict, stand
from heddle_registry.core.token import SALT_BYTES, TOKEN_BYTES
from heddle_registry.core.transaction import (
    Decision,
    Facts,
    Keys,
    NeedFacts,
    UnknownFacts,
    fact_key,
    sealed,
)
from heddle_registry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import Owner, Subject, Verdict
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.token import TokenHash
    from heddle_registry.core.transaction import Loaded
    from heddle_registry.ports import Host, Store

T = TypeVar("T")
Looks = dict[tuple["Owner | None", "int | None", "str | None"], "Verdict"]
"""What was found of processes within one question, by the owner or the pid that is recorded."""
_ROUNDS_OF_FACTS = 3


class Watched(NamedTuple):
    """Whom a session's next heartbeat will look at, and the token that it will show."""

    session_id: str
    token: TokenHash | None
    subjects: tuple[Subject, ...]


class _Onlooker(Witness):
    # The witness of a look. Nobody waits for it, so it goes and sees at once what it is asked;
    # a decision under the exclusion must not.
    def __init__(self, facts: Facts, see: Callable[[Subject], None]) -> None:
        super().__init__(facts)
        self._see = see

    def verdict(self, subject: Subject) -> Verdict:
        has_process = subject.owner is not None or subject.pid is not None
        if (has_process or subject.liveness is not None) and fact_key(subject) not in self._facts:
            self._see(subject)
        return super().verdict(subject)


class Transactions:
    """What every door of the registry stands on: a store, a host, and the rounds of facts."""

    store: Store
    host: Host

    def verdict_on(
        self, entry: AgentEntry, claim: Claim | None, now: Instant, *, looks: Looks | None = None
    ) -> Verdict:
        """Return the verdict on an entry whose claim, if it has one, is at hand.

        ``looks``, given to several calls that answer one question, has every process looked at
        once: the children of one harness share it.
        """

        def look() -> Verdict:
            return self._with_facts(lambda witness: entry_verdict(entry, claim, witness, now))

        # Of whoever holds a claim there is more to see than its process.
        is_holder = claim is not None and claim.holder_id == entry.session_id
        if looks is None or is_holder or not entry.is_active:
            return look()
        whom = (entry.owner, entry.pid, entry.boot_id)
        verdict = looks.get(whom)
        if verdict is None:
            verdict = looks[whom] = look()
        return verdict

    def standing_of(
        self,
        claim: Claim,
        entries: Iterable[AgentEntry],
        now: Instant,
        *,
        details: bool = False,
    ) -> Standing:
        """Return how a claim stands, its holder's entry being among ``entries`` if it exists.

        ``details`` adds who has its liveness lock open, which asks every process.
        """
        by_id = {entry.session_id: entry for entry in entries}
        return self._with_facts(lambda witness: stand(claim, by_id, witness, now), details=details)

    def _with_facts(
        self,
        judge_all: Callable[[Witness], T],
        *,
        details: bool = False,
    ) -> T:
        facts: Facts = {}

        def see(subject: Subject) -> None:
            self._gather((subject,), facts, details=details)

        return judge_all(_Onlooker(facts, see))

    def _gather(self, subjects: Iterable[Subject], facts: Facts, *, details: bool = False) -> None:
        for subject in subjects:
            facts[fact_key(subject)] = self.store.observe(self.host, subject, details=details)

    def _peek(
        self,
        keys: Keys,
        decide: Callable[[Loaded, Instant, Facts], Decision[T] | NeedFacts],
        facts: Facts,
        rounds: int = _ROUNDS_OF_FACTS,
    ) -> Decision[T]:
        # Decides without the lock, to gather facts before it is taken; the answer binds nobody.
        # After the last round there is none: what was gathered is for the decision under the lock.
        loaded, now = self.store.peek(keys)
        for _ in range(rounds):
            decision = decide(loaded, now, facts)
            if not isinstance(decision, NeedFacts):
                return decision
            self._gather(decision.subjects, facts)
        return Decision()

    def _transact(
        self,
        keys: Keys,
        decide: Callable[[Loaded, Instant, Facts], Decision[T] | NeedFacts],
        facts: Facts | None = None,
    ) -> T:
        salt = self.host.random_bytes(SALT_BYTES)
        known: Facts = dict(facts or {})
        rounds = 0
        while True:
            outcome = self.store.transact(
                keys,
                lambda loaded, now, seen: sealed(decide(loaded, now, seen), salt),
                known if rounds < _ROUNDS_OF_FACTS else UnknownFacts(known),
            )
            if not isinstance(outcome, NeedFacts):
                break
            self._gather(outcome.subjects, known)
            rounds += 1
        if outcome.refusal is not None:
            raise outcome.refusal
        return outcome.answer  # type: ignore[return-value]  # None only where T allows it

    def _new_id(self) -> str:
        return encode_session_id(self.host.random_bytes(RANDOM_BYTES))

    def owner_for(self, pid: int) -> Owner:
        """Return the running process ``pid`` as an owner.

        :raises UsageError: no such process runs.
        """
        owner = self.host.owner_for(pid) if 0 < pid < 2**31 else None
        if owner is None:
            raise UsageError(
                f"process {pid} does not run, so it cannot own a branch",
                "Name a process that lives as long as the work, or use a TTL",
            )
        return owner

    def new_token(self) -> str:
        """Return a token nobody can guess."""
        return self.host.random_bytes(TOKEN_BYTES).hex()
