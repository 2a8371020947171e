"""Who spent what: entries and the actors of transcripts as one account, grouped and as a tree.

Rule 1: everybody's own numbers are its own; a sub-agent's are never in its parent's, and what two
entries share (a resumed session has one transcript) is divided by time, never counted twice.
Rule 2: what is unknown is None. A sum says of how many actors nothing is known, and is a lower
bound as soon as one of them is an agent.
Rule 3: this module reads nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.core.entry import AgentUsageSummary
from heddle_registry.core.record import Record
from heddle_registry.core.usage import UsageTotals, sum_totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from heddle_registry.core.entry import AgentEntry

_U32: Final = 2**32 - 1
_TOLD_IN_ENTRY: Final = ("input_tokens", "output_tokens", "tool_calls")
_TOLD_IN_EXTENSION: Final = ("cache_creation_tokens", "cache_read_tokens")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Spending(Record):
    """What one actor, or a group of them, spent. ``totals`` None: nothing is known at all."""

    totals: UsageTotals | None = None
    untold: frozenset[str] = frozenset()
    """Fields of ``totals`` about which nobody told anything: they are unknown, not 0."""
    unknown: int = 0
    """How many actors are in it of which nothing is known."""
    unknown_agents: int = 0
    """Those of them that surely spent something: a script's reservation need not have."""

    @property
    def weight(self) -> int:
        """All tokens; -1 where nothing is known, so that the unknown comes last."""
        return -1 if self.totals is None else self.totals.total_tokens


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ActorSpending(Record):
    """One actor's own spending: an entry, an actor that only a transcript names, or both."""

    entry: AgentEntry | None = None
    actor: str | None = None
    parent: str | None = None
    harness: str | None = None
    thread: str | None = None
    """The entry's; of an actor without an entry that of the nearest one above it."""
    sources: tuple[str, ...] = ()
    own: Spending = Spending()
    by_model: Mapping[str | None, UsageTotals] = attrs.field(factory=dict)
    is_recorded: bool = False
    """The numbers are those that the entry keeps; no transcript was there to count."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of its models, the one with the most tokens first."""
        spent = sorted(self.by_model.items(), key=lambda item: -item[1].total_tokens)
        return tuple(model for model, _ in spent if model is not None)

    @property
    def model(self) -> str | None:
        """The model with the most tokens, else the one that the entry names."""
        if self.models:
            return self.models[0]
        return self.entry.model if self.entry is not None else None


def unknown_of(entry: AgentEntry) -> Spending:
    """Return the spending of an entry of which nothing is known."""
    is_agent = entry.native_actor_key is not None or entry.winning_attach_rule is not None
    return Spending(unknown=1, unknown_agents=int(is_agent))


def recorded(entry: AgentEntry) -> Spending | None:
    """Return what an entry itself says of its usage; None where it says nothing.

    A lower bound, its cost an estimate: an entry does not say whether what was counted for it was
    all, nor whose price it was. What another program left out is ``untold``.
    """
    told = {name: getattr(entry.usage_summary, name) for name in _TOLD_IN_ENTRY}
    for name in _TOLD_IN_EXTENSION:
        told[name] = getattr(entry.extension, name, None)
    cost, reasoning = entry.usage_summary.cost_micros_usd, entry.usage_summary.reasoning_tokens
    if cost is None and reasoning is None and all(value is None for value in told.values()):
        return None
    untold = frozenset(name for name, value in told.items() if value is None)
    return Spending(
        totals=UsageTotals(
            **{name: value or 0 for name, value in told.items()},
            reasoning_tokens=reasoning,
            known_cost_micros_usd=cost or 0,
            estimated_cost_micros_usd=cost or 0,
            unpriced_requests=0 if cost is not None else 1,
            lower_bound=True,
        ),
        untold=untold,
    )


def summary_of(totals: UsageTotals, kept: AgentUsageSummary) -> AgentUsageSummary:
    """Return the original's summary with these totals; keys that nobody here knows stay."""
    return AgentUsageSummary(
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        reasoning_tokens=totals.reasoning_tokens,
        tool_calls=min(totals.tool_calls, _U32),
        cost_micros_usd=totals.cost_micros_usd,
        unknown=kept.unknown,
    )


def with_usage(entry: AgentEntry, totals: UsageTotals) -> AgentEntry:
    """Return the entry with these totals as its own; itself where it says so already."""
    summary = summary_of(totals, entry.usage_summary)
    caches = {name: getattr(totals, name) for name in _TOLD_IN_EXTENSION}
    extension = entry.extension
    if all(getattr(extension, name, 0) == value for name, value in caches.items()):
        return (
            entry if summary == entry.usage_summary else attrs.evolve(entry, usage_summary=summary)
        )
    return attrs.evolve(entry.extended(**caches), usage_summary=summary)


def add_up(spendings: Iterable[Spending]) -> Spending:
    """Add up. A sum with an agent of which nothing is known is a lower bound."""
    every = list(spendings)
    known = [(one, one.totals) for one in every if one.totals is not None]
    unknown = sum(one.unknown for one in every)
    agents = sum(one.unknown_agents for one in every)
    if not known:
        return Spending(unknown=unknown, unknown_agents=agents)
    totals = sum_totals(its for _, its in known)
    if not totals.lower_bound and (agents or any(one.untold for one, _ in known)):
        totals = attrs.evolve(totals, lower_bound=True)
    return Spending(
        totals=totals,
        untold=frozenset.intersection(*(one.untold for one, _ in known)),
        unknown=unknown,
        unknown_agents=agents,
    )


def whole(actors: Iterable[ActorSpending]) -> Spending:
    """Return what all of them spent together; nobody spends 0."""
    found = add_up(one.own for one in actors)
    if found.totals is None and not found.unknown:
        return Spending(totals=UsageTotals())
    return found


def by_entry(actors: Sequence[ActorSpending]) -> list[ActorSpending]:
    """Return the actors, the largest first, those of whom nothing is known last."""
    return sorted(actors, key=lambda one: -one.own.weight)


def grouped(
    actors: Iterable[ActorSpending], name: Callable[[ActorSpending], str | None]
) -> list[tuple[str | None, Spending]]:
    """Return the spending of each group, the largest first."""
    groups: dict[str | None, list[Spending]] = {}
    for one in actors:
        groups.setdefault(name(one), []).append(one.own)
    return _largest_first({key: add_up(members) for key, members in groups.items()})


def by_model(actors: Iterable[ActorSpending]) -> list[tuple[str | None, Spending]]:
    """Return the spending on each model; None is a model that nobody names."""
    groups: dict[str | None, list[Spending]] = {}
    for one in actors:
        if not one.by_model:
            groups.setdefault(one.model, []).append(one.own)
        for model, totals in one.by_model.items():
            groups.setdefault(model, []).append(Spending(totals=totals))
    return _largest_first({key: add_up(members) for key, members in groups.items()})


def _largest_first(groups: Mapping[str | None, Spending]) -> list[tuple[str | None, Spending]]:
    return sorted(groups.items(), key=lambda item: (-item[1].weight, item[0] or ""))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TreeRow(Record):
    """One actor in the tree: parents come before their children."""

    actor: ActorSpending
    depth: int
    above: ActorSpending | None
    is_orphan: bool
    """It names a parent that is nowhere to be found."""
    subtree: Spending
    """Its own and everybody's below it."""


def tree(
    actors: Sequence[ActorSpending], chosen: Mapping[str, AgentEntry] | None = None
) -> list[TreeRow]:
    """Return the actors under their human root, depth first, the largest subtree first.

    ``chosen`` is the entry that stands for an actor key that several have (see
    `heddle_registry.core.tree.entries_by_actor`). A cycle of parents is cut.
    """
    by_key: dict[str, int] = {}
    for place, one in enumerate(actors):
        if one.actor is None:
            continue
        best = (chosen or {}).get(one.actor)
        if one.actor not in by_key or (best is not None and one.entry is best):
            by_key[one.actor] = place
    above = [by_key.get(one.parent) if one.parent is not None else None for one in actors]
    _cut_cycles(above)
    below: dict[int | None, list[int]] = {}
    for place, parent in enumerate(above):
        below.setdefault(parent, []).append(place)
    parents_first, left = [], list(below.get(None, []))
    while left:  # without recursion: a chain of thousands is a tree too
        place = left.pop()
        parents_first.append(place)
        left += below.get(place, [])
    sums: dict[int, Spending] = {}
    for place in reversed(parents_first):
        sums[place] = add_up([actors[place].own, *(sums[one] for one in below.get(place, []))])
    rows: list[TreeRow] = []
    stack = [(place, 0) for place in _smallest_first(below.get(None, []), sums)]
    while stack:
        place, depth = stack.pop()
        parent, one = above[place], actors[place]
        rows.append(
            TreeRow(
                actor=one,
                depth=depth,
                above=None if parent is None else actors[parent],
                is_orphan=one.parent is not None and parent is None,
                subtree=sums[place],
            )
        )
        stack += [(child, depth + 1) for child in _smallest_first(below.get(place, []), sums)]
    return rows


def _smallest_first(places: Iterable[int], sums: Mapping[int, Spending]) -> list[int]:
    return sorted(places, key=lambda place: (sums[place].weight, -place))


def _cut_cycles(above: list[int | None]) -> None:
    is_safe = [False] * len(above)
    for start in range(len(above)):
        path: list[int] = []
        on_path: set[int] = set()
        at: int | None = start
        while at is not None and not is_safe[at]:
            if at in on_path:
                above[at] = None
                break
            on_path.add(at)
            path.append(at)
            at = above[at]
        for place in path:
            is_safe[place] = True
