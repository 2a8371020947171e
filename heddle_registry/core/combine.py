"""How the answers of several plugins become one, whatever order they were loaded in.

pluggy calls the plugin that registered last first, so its order says when things were loaded and
nothing else. Here the order is the plugins' names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from heddle_registry.core.harness import Harness
    from heddle_registry.core.identity import Identity

T = TypeVar("T")


def first_by_name(answers: Mapping[str, T | None]) -> T | None:
    """Return the answer of the plugin whose name sorts first among those that have one."""
    return next((a for _, a in sorted(answers.items()) if a is not None), None)


def joined_by_name(answers: Mapping[str, Sequence[T]]) -> tuple[T, ...]:
    """Return all values, those of the plugin whose name sorts first in front."""
    return tuple(value for _, values in sorted(answers.items()) for value in values)


def choose_identity(answers: Mapping[str, Identity | None]) -> Identity | None:
    """Return the most confident identity that names an actor, else the most confident one."""
    named = [(a.actor is None, -a.confidence, n, a) for n, a in answers.items() if a is not None]
    return min(named, key=lambda row: row[:3])[3] if named else None


def join_harnesses(
    table: Iterable[Harness], answers: Mapping[str, Sequence[Harness]]
) -> dict[str, Harness]:
    """Return every harness by name: the table's and the plugins', their signals joined.

    What the first of them says stands for all but the signals and marks, where a plugin comes
    before the table.
    """
    found: dict[str, Harness] = {}
    for harness in (*joined_by_name(answers), *table):
        first = found.get(harness.name)
        found[harness.name] = harness if first is None else _joined(first, harness)
    return found


def _joined(first: Harness, other: Harness) -> Harness:
    return attrs.evolve(
        first,
        signals=tuple(dict.fromkeys((*first.signals, *other.signals))),
        aliases=tuple(dict.fromkeys((*first.aliases, *other.aliases))),
        fork_of=tuple(dict.fromkeys((*first.fork_of, *other.fork_of))),
        pid_variables=tuple(dict.fromkeys((*first.pid_variables, *other.pid_variables))),
        marks=tuple(dict.fromkeys((*first.marks, *other.marks))),
        transcripts=tuple(dict.fromkeys((*first.transcripts, *other.transcripts))),
        events=first.events or other.events,
        actor_kind=first.actor_kind if first.actor_kind != "session" else other.actor_kind,
    )
