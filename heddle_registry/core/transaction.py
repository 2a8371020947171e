"""What a decision is given and what it answers: keys, loaded records, facts and effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import attrs

from heddle_registry.core.claim import Claim, claim_of_entry
from heddle_registry.core.record import Record
from heddle_registry.core.token import hash_token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heddle_registry.core.entry import AgentEntry, ContextQueryEntry
    from heddle_registry.core.evidence import Observation, Subject
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.errors import RegistryError

T = TypeVar("T")

FactKey = tuple[str, tuple[int, int | None, str, str] | None, int | None]
"""Session id, the owner's identity, fence: a fact about one cannot be mistaken for another's."""


def fact_key(subject: Subject) -> FactKey:
    """Return the key under which facts about ``subject`` are kept."""
    owner = subject.owner
    identity: tuple[int, int | None, str, str] | None = None
    if owner is not None:
        identity = (owner.pid, owner.start_ticks, owner.boot_id, owner.pid_ns)
    elif subject.pid is not None:
        identity = (subject.pid, None, subject.boot_id, "")
    return (subject.session_id, identity, subject.fence)


LOOKUP_FIELDS: Final = (
    "native_actor_key",
    "native_parent_actor_key",
    "native_instance_key",
    "client_instance_id",
    "heddle_session_id",
    "path",
)
"""What `Keys.lookups` may look for. A path is canonical; one in an entry need not be."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Keys(Record):
    """What a decision needs loaded, in the terms of the records.

    Loading a session also loads the claim of its thread, and the claim that names it as holder
    or past holder where its entry is missing; loading a claim also loads its holder's entry.
    """

    sessions: tuple[str, ...] = ()
    spares_unreadable: bool = False
    """A session whose entry cannot be read is named in `Loaded.unreadable`, not refused."""
    threads: tuple[str, ...] = ()
    """Each with its claim and every Active entry on it."""
    path: str | None = None
    """Claims that name this canonical folder."""
    actors: tuple[str, ...] = ()
    """Native actor keys: the newest Active entry of each."""
    lookups: tuple[tuple[str, str], ...] = ()
    """Pairs of a field and its value, see `LOOKUP_FIELDS`: every Active entry that has it."""
    fresh_ids: tuple[str, ...] = ()
    """Ids that must be unused: `Loaded.used_ids` tells."""
    all_active: bool = False
    all_held: bool = False
    """Every claim that names a holder, whatever became of the holder's entry."""
    stale: bool = False
    """Ended entries past their seven days that no claim names as holder, at most 16."""
    all_stale: bool = False
    line_of: str | None = None
    """The thread whose waiters are asked for."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Damage(Record):
    """A record that could not be read, as far as it concerns what was loaded.

    ``subject`` is whom its readable lines name as owner; None where they name nobody.
    """

    path: str
    error: RegistryError
    thread: str | None = None
    session_id: str | None = None
    subject: Subject | None = None
    may_be_any: bool = False
    """Nothing of it could be read, for want of permission: it may belong to any thread."""

    def concerns(self, thread: str) -> bool:
        """Return whether a decision on ``thread`` would need the record."""
        return self.may_be_any or self.thread == thread


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Loaded(Record):
    """The records that the keys named, as they stand under the store's exclusion."""

    entries: Mapping[str, AgentEntry] = attrs.field(factory=dict)
    claims: Mapping[str, Claim] = attrs.field(factory=dict)
    """By thread. A thread that was asked for and has no claim file is missing here."""
    damaged_claims: Mapping[str, RegistryError] = attrs.field(factory=dict)
    """By thread: the claim is there and cannot be read."""
    fences: Mapping[str, int] = attrs.field(factory=dict)
    """By thread without a claim file: the greatest fence that any entry there remembers."""
    damage: tuple[Damage, ...] = ()
    unreadable: frozenset[str] = frozenset()
    """Sessions that were asked for and whose entry cannot be read; no more is known of them."""
    unread_folders: Mapping[str, RegistryError] = attrs.field(factory=dict)
    """By folder that mattered: a claim that names it, or may, is there and cannot be read."""
    used_ids: frozenset[str] = frozenset()
    stale_ids: tuple[str, ...] = ()
    line: tuple[str, ...] = ()
    """Tickets of living waiters, first come first."""

    def folder_error(self, path: str | None) -> RegistryError | None:
        """Return why nobody can say whose folder ``path`` is; None where that can be said."""
        return self.unread_folders.get(path or "")

    def damage_of_holder(self, claim: Claim) -> RegistryError | None:
        """Return why the entry of the claim's holder cannot be read; None where it can.

        Without its entry a claim looks like one whose holder another program removed.
        """
        for damage in self.damage:
            if damage.session_id is not None and damage.session_id == claim.holder_id:
                return damage.error
        return None

    def claim_on(self, thread: str, now: Instant) -> Claim:
        """Return the claim on ``thread``; a missing file is stood in for by the entries' copies.

        The holder is the Active entry with the greatest fence; the claim's own fence is not below
        one that an ended entry remembers, so that no fence is ever given twice.

        :raises RegistryError: the claim is there and cannot be read; its thread is refused.
        """
        error = self.damaged_claims.get(thread)
        if error is not None:
            raise error
        claim = self.claims.get(thread)
        if claim is not None:
            return claim
        copies = [
            entry
            for entry in self.entries.values()
            if entry.thread == thread and entry.is_active and entry.fence is not None
        ]
        remembered = self.fences.get(thread, 0)
        if not copies:
            return Claim(thread=thread, fence=remembered)
        stand_in = claim_of_entry(max(copies, key=lambda entry: entry.fence or 0), now)
        return attrs.evolve(stand_in, fence=max(stand_in.fence, remembered))


class PutEntry(NamedTuple):
    """Write this entry."""

    entry: AgentEntry


class PutClaim(NamedTuple):
    """Write this claim."""

    claim: Claim


class RemoveEntry(NamedTuple):
    """Remove the entry's file."""

    session_id: str


class KeepQueries(NamedTuple):
    """Append context queries that no longer fit into the entry to its side file."""

    session_id: str
    queries: tuple[ContextQueryEntry, ...]


Effect = PutEntry | PutClaim | RemoveEntry | KeepQueries


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Decision(Record, Generic[T]):
    """What to write, in this order, each durable before the next; then what to answer.

    The first ``commits`` effects (None: all) are made or none of them is; those behind only tidy
    up, and where one fails, the next writer does it. ``refusal`` is raised after the effects,
    instead of answering. ``freed`` are threads whose first waiter should be woken.
    """

    answer: T | None = None
    effects: tuple[Effect, ...] = ()
    commits: int | None = None
    refusal: RegistryError | None = None
    freed: tuple[str, ...] = ()


@attrs.frozen(eq=False, repr=False)
class IdTaken(Record):
    """The new entry's id is in use; build another and ask again."""

    session_id: str


class NeedFacts(NamedTuple):
    """Look at these, outside the exclusion, then ask again."""

    subjects: tuple[Subject, ...]


Facts = dict[FactKey, "Observation | None"]
"""What was seen. A key with None: nobody could look, and the verdict is unknown."""


class UnknownFacts(dict[FactKey, "Observation | None"]):
    """Facts after the last round of looking: whatever is still missing stays unknown."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: FactKey) -> None:
        return None


def sealed(decision: Decision[T] | NeedFacts, salt: bytes) -> Decision[T] | NeedFacts:
    """Return the decision with every clear-text token that it would write replaced by its hash.

    The original leaves tokens in clear text; our next write of such an entry ends that.
    """
    if isinstance(decision, NeedFacts) or not any(
        isinstance(effect, PutEntry) and effect.entry.reservation_token is not None
        for effect in decision.effects
    ):
        return decision
    effects = tuple(
        PutEntry(_sealed_entry(effect.entry, salt)) if isinstance(effect, PutEntry) else effect
        for effect in decision.effects
    )
    return attrs.evolve(decision, effects=effects)


def _sealed_entry(entry: AgentEntry, salt: bytes) -> AgentEntry:
    token = entry.reservation_token
    if token is None:
        return entry
    kept = entry.extension.token if entry.extension is not None else None
    hidden = attrs.evolve(entry, reservation_token=None)
    return hidden.extended(token=kept or hash_token(token, salt))
