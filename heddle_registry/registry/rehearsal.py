"""Attaching recorded situations to a copy of the registry: what would be, and what rules change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.record import Record
from heddle_registry.core.transaction import Decision, Keys, PutClaim, PutEntry
from heddle_registry.ports.query import Query
from heddle_registry.registry import AgentRegistry
from heddle_registry.registry.attaching import attach_situation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heddle_registry.core.attach import AttachDecision, AttachRule
    from heddle_registry.core.transaction import Effect
    from heddle_registry.plugins import Plugins
    from heddle_registry.registry.attaching import AttachWish
    from heddle_registry.surroundings import Situation


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Rehearsed(Record):
    """One case under two sets of rules, each in a registry of its own."""

    after: AttachDecision
    before: AttachDecision
    changed: bool
    """Another entry, or the same one by another rule."""


def rehearse(
    registry: AgentRegistry,
    situations: Sequence[Situation],
    plugins: Plugins,
    wish: AttachWish,
    *,
    before: Sequence[AttachRule],
    after: Sequence[AttachRule],
) -> list[Rehearsed]:
    """Attach the situations one after the other to two copies of the registry.

    What an earlier case makes, later ones find. Changes nothing outside of memory.
    """
    old = _in_copy(registry, situations, plugins, wish, before)
    new = _in_copy(registry, situations, plugins, wish, after)
    names_old, names_new = _names(old), _names(new)
    return [
        Rehearsed(
            after=now,
            before=then,
            changed=(then.rule, names_old[then.entry.session_id])
            != (now.rule, names_new[now.entry.session_id]),
        )
        for then, now in zip(old, new, strict=True)
    ]


def _in_copy(
    registry: AgentRegistry,
    situations: Sequence[Situation],
    plugins: Plugins,
    wish: AttachWish,
    rules: Sequence[AttachRule],
) -> list[AttachDecision]:
    from heddle_registry.opening import memory_store

    look = registry.look(Query(active_only=True))
    store = memory_store(registry.host)
    effects: list[Effect] = [PutEntry(entry) for entry in look.entries]
    effects += [PutClaim(claim) for claim in look.claims.values()]
    store.transact(Keys(), lambda *_: Decision[None](effects=tuple(effects)), {})
    copy = AgentRegistry(store=store, host=registry.host)
    return [
        attach_situation(copy, situation, plugins, wish, rules=rules) for situation in situations
    ]


def _names(decisions: Sequence[AttachDecision]) -> dict[str, str]:
    # A new entry's id is random; in both copies it is the entry of one and the same case.
    names: dict[str, str] = {}
    for case, decision in enumerate(decisions):
        session_id = decision.entry.session_id
        names.setdefault(session_id, f"case {case}" if decision.created else session_id)
    return names
