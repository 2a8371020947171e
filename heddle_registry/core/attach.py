"""Where does this process belong? Facts in, decision out: an entry found, filled in or made.

The rules are in `attach_rules`, their order in `attach_order`; here a ruling becomes effects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry.core.attach_rules import (
    ATTACH_RULES,
    CREATE,
    CREATE_RULE,
    AttachAction,
    AttachFacts,
    AttachRule,
    Ruling,
    Scene,
    rule_on,
)
from heddle_registry.core.claim import ClaimState
from heddle_registry.core.entry import AgentEntry, check_entry
from heddle_registry.core.record import Record
from heddle_registry.core.standing import Witness, entry_verdict, is_orphan, stand
from heddle_registry.core.transaction import Decision, IdTaken, NeedFacts, PutEntry
from heddle_registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heddle_registry.core.claim import Claim
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Facts, Loaded

__all__ = [
    "ATTACH_RULES",
    "AttachAction",
    "AttachDecision",
    "AttachFacts",
    "AttachRule",
    "decide_attach",
    "is_made_by_attach",
]

_FILLED = (
    "native_actor_key",
    "native_instance_key",
    "client_instance_id",
    "heddle_session_id",
    "harness",
    "provider",
    "model",
    "thinking_level",
    "probe_source",
    "probe_confidence",
)
"""What the asker says of itself and an entry takes over, where it says anything."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AttachDecision(Record):
    """Where the asker belongs, and why.

    ``entry`` is as it is now, or will be written. ``present`` are the other living entries on its
    branch, ``held_by`` the one among them that holds a valid claim there.
    """

    action: AttachAction
    rule: str
    reason: str
    precedence: tuple[str, ...]
    entry: AgentEntry
    present: tuple[AgentEntry, ...] = ()
    held_by: AgentEntry | None = None

    @property
    def created(self) -> bool:
        """Whether the entry is new."""
        return self.action is AttachAction.CREATE


def is_made_by_attach(entry: AgentEntry, claim: Claim | None = None) -> bool:
    """Return whether attaching made the entry, so that its actor's end is the entry's end.

    One that a reservation made has a fence, and ends with its claim.
    """
    holder = claim.holder if claim is not None else None
    if entry.fence is not None or (holder is not None and holder.session_id == entry.session_id):
        return False
    rule, lines = entry.winning_attach_rule, entry.attach_precedence
    made = (f"{CREATE_RULE}:matched", f"{rule}:{CREATE}:matched")
    return rule is not None and bool(lines) and lines[-1] in made


def decide_attach(
    facts: AttachFacts,
    new_entry: AgentEntry,
    rules: Sequence[AttachRule],
    loaded: Loaded,
    now: Instant,
    known: Facts,
    told: AttachDecision | None = None,
) -> Decision[AttachDecision | IdTaken] | NeedFacts:
    """Find the asker's entry, fill it in, or write ``new_entry``.

    :param new_entry: id, start and base of the entry that is made if none is found
    :param told: an earlier decision, whose reason stands where this one comes out the same
    """
    if new_entry.session_id in loaded.used_ids:
        return Decision(answer=IdTaken(new_entry.session_id))
    witness = Witness(known)
    living, alive = _living(loaded, witness, now)
    missing = witness.missing()
    if missing is not None:
        return missing
    scene = Scene(facts=facts, living=living, seen_alive=alive, claims=loaded.claims)
    ruling = rule_on(scene, rules)
    found = ruling.step.entry
    try:
        if found is None:
            action, entry = AttachAction.CREATE, _created(new_entry, facts, ruling, loaded)
        else:
            action, entry = _filled(found, facts, ruling, loaded)
        reason = ruling.step.reason or ruling.rule.reason or f"the rule {ruling.rule.name} says so"
        if told is not None and (told.action, told.rule) == (action, ruling.rule.name):
            reason = told.reason
        if action is not AttachAction.ATTACH:
            entry = _traced(entry, ruling, reason, is_new=action is AttachAction.CREATE)
        effects = () if entry == found else (PutEntry(check_entry(entry)),)
    except RegistryError as error:
        return Decision(refusal=error)
    present = tuple(
        e for e in living if e.thread == entry.thread and e.session_id != entry.session_id
    )
    decision = AttachDecision(
        action=action,
        rule=ruling.rule.name,
        reason=reason,
        precedence=ruling.precedence,
        entry=entry,
        present=present,
        held_by=_holder(entry, loaded, witness, now),
    )
    return Decision(answer=decision, effects=effects)


def _living(
    loaded: Loaded, witness: Witness, now: Instant
) -> tuple[tuple[AgentEntry, ...], frozenset[str]]:
    living, alive = [], set()
    for entry in loaded.entries.values():
        claim = loaded.claims.get(entry.thread)
        if not entry.is_active or (claim is not None and is_orphan(entry, claim)):
            continue
        verdict = entry_verdict(entry, claim, witness, now)
        if verdict.is_dead:
            continue
        living.append(entry)
        if verdict.is_alive:
            alive.add(entry.session_id)
    living.sort(key=lambda entry: (entry.started_at.sort_key, entry.session_id), reverse=True)
    return tuple(living), frozenset(alive)


def _created(entry: AgentEntry, facts: AttachFacts, ruling: Ruling, loaded: Loaded) -> AgentEntry:
    parent_key = facts.native_parent_actor_key
    adopted = ruling.child_of
    if adopted is not None and parent_key in (None, adopted.native_parent_actor_key):
        # Whoever comes by an adopted entry is a child of the actor that adopted it.
        parent_key = adopted.native_actor_key or parent_key
    owner = facts.owner
    new = attrs.evolve(
        entry,
        thread=facts.thread,
        path=facts.path,
        native_parent_actor_key=parent_key,
        pid=owner.pid if owner is not None else None,
        boot_id=(owner.boot_id or None) if owner is not None else None,
        **{name: getattr(facts, name) for name in _FILLED},
    ).extended(
        owner=owner,
        continues=facts.continues,
        usage_sources=(facts.transcript,) if facts.transcript is not None else (),
    )
    if not parent_key:
        return new
    from heddle_registry.core.tree import ancestor_nodes, entries_by_actor

    parent = entries_by_actor(loaded.entries.values()).get(parent_key)
    if parent is None:
        return new
    return new.extended(ancestors=ancestor_nodes(parent, loaded.entries))


def _filled(
    entry: AgentEntry, facts: AttachFacts, ruling: Ruling, loaded: Loaded
) -> tuple[AttachAction, AgentEntry]:
    is_unnamed = facts.native_actor_key is None and entry.native_actor_key is not None
    if ruling.step.joins or is_unnamed:
        return AttachAction.ATTACH, entry
    before = (entry.native_actor_key, entry.native_instance_key)
    changes: dict[str, Any] = {
        name: getattr(facts, name) for name in _FILLED if getattr(facts, name) is not None
    }
    if entry.native_actor_key == facts.native_actor_key and entry.probe_confidence is not None:
        # Its hook knew it better than a command does, and was there first.
        for name in ("probe_source", "probe_confidence"):
            changes.pop(name, None)
    if entry.native_parent_actor_key is None and facts.native_parent_actor_key is not None:
        changes["native_parent_actor_key"] = facts.native_parent_actor_key
    if entry.path is None:
        changes["path"] = facts.path
    filled = attrs.evolve(entry, **changes)
    extension = filled.extension
    sources = extension.usage_sources if extension is not None else ()
    if facts.transcript is not None and facts.transcript not in sources:
        filled = filled.extended(usage_sources=(*sources, facts.transcript))
    claim = loaded.claims.get(entry.thread)
    holds = claim is not None and claim.holder is not None
    if facts.owner is not None and entry.pid is None and entry.fence is None and not holds:
        # Its process was not to be seen when the entry was made.
        filled = attrs.evolve(filled, pid=facts.owner.pid, boot_id=facts.owner.boot_id or None)
        filled = filled.extended(owner=facts.owner)
    is_adopted = (filled.native_actor_key, filled.native_instance_key) != before
    return AttachAction.ADOPT if is_adopted else AttachAction.ATTACH, filled


def _traced(entry: AgentEntry, ruling: Ruling, reason: str, *, is_new: bool) -> AgentEntry:
    if not is_new and is_made_by_attach(entry):
        return entry  # the trace says who made it, and with that, who may end it
    return attrs.evolve(
        entry,
        # A reservation's entry keeps what it is for.
        attach_reason=reason if is_new else entry.attach_reason or reason,
        attach_precedence=ruling.precedence,
        winning_attach_rule=ruling.rule.name,
    )


def _holder(entry: AgentEntry, loaded: Loaded, witness: Witness, now: Instant) -> AgentEntry | None:
    claim = loaded.claims.get(entry.thread)
    if claim is None:
        return None
    standing = stand(claim, loaded.entries, witness, now)
    is_anothers = standing.state is ClaimState.HELD and standing.entry is not None
    if not is_anothers or standing.entry is None:
        return None
    return standing.entry if standing.entry.session_id != entry.session_id else None
