"""Which harnesses are around a process, outermost first, and which of them are mere candidates.

Rule 1: only live ancestor processes order the chain. Variables are inherited, so they may name a
harness that is further out, gone, or never was an ancestor (a terminal multiplexer's server hands
the marks of the session that started it to every later shell).
Rule 2: variables say *which* ancestor is meant (``CLAUDE_PID``), and they are believed for one
process of a harness only: the one that they name, else the innermost.
Rule 3: where there is no ancestry to look at, one harness with strong marks is probable; several
are candidates, and none is picked.
Rule 4: this module has no process table, file or clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.core.harness import (
    CANDIDATE,
    DEFINITE,
    PROBABLE,
    Harness,
    Process,
    SignalKind,
    base_name,
    env,
)
from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

OFF_SWITCH: Final = "HEDDLE_REGISTRY_DETECTION"
"""Set to ``off`` (or 0, false, no) it switches all detection off."""

UNKNOWN: Final = Harness(name="unknown", tier="unverified")
"""Stands for an agent that says what it is only by a flag, such as ``AI_AGENT=1``."""

# Programs that give their child a process-id namespace: nothing above them can be seen.
_WALLS: Final = frozenset({"bwrap", "codex-linux-sandbox", "firejail", "nsjail", "unshare"})


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Layer(Record):
    """One harness around the process. ``processes`` are its own, outermost first, perhaps none.

    ``env_is_its_own`` says whether the harness's marks among the variables were set by it.
    """

    harness: Harness
    processes: tuple[Process, ...] = ()
    below: tuple[Process, ...] = ()
    env_is_its_own: bool = False
    evidence: tuple[str, ...] = ()
    confidence: float = DEFINITE


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Surroundings(Record):
    """The answer of `locate`. ``target`` is the place in ``layers`` that a payload belongs to."""

    layers: tuple[Layer, ...] = ()
    candidates: tuple[Layer, ...] = ()
    target: int | None = None


def precedence(harnesses: Iterable[Harness]) -> list[Harness]:
    """Return forks before the harnesses they are forks of, and by name beside that."""
    known = {harness.name: harness for harness in harnesses}

    def depth(harness: Harness, seen: frozenset[str] = frozenset()) -> int:
        parents = [known[n] for n in harness.fork_of if n in known and n not in seen]
        return 1 + max((depth(p, seen | {harness.name}) for p in parents), default=-1)

    return sorted(known.values(), key=lambda harness: (-depth(harness), harness.name))


def locate(
    *,
    environ: Mapping[str, str],
    ancestors: Sequence[Process] | None,
    harnesses: Iterable[Harness],
    declared: str | None = None,
    payload: Mapping[str, Any] | None = None,
    present: Collection[str] = (),
) -> Surroundings:
    """Return the harnesses around a process.

    :param environ: the process's variables
    :param ancestors: the live ancestors, nearest first; None or empty where they cannot be seen
    :param declared: the harness whose hook this is, by name or alias, where the caller knows it
    :param payload: what that hook was given on its standard input
    :param present: those of the harnesses' marker files that exist
    """
    switch = environ.get(OFF_SWITCH)
    if switch is not None and switch.strip().lower() in {"off", "0", "false", "no"}:
        return Surroundings()
    ranked = precedence(harnesses)
    owner = next((h for h in ranked if declared and declared in {h.name, *h.aliases}), None)
    payload = payload or {}
    writer = _writer(payload, ranked)
    if (owner is not None and writer not in {None, owner}) or (declared and owner is None):
        payload = {}  # a harness that runs another one's hooks, or one that nobody knows
    owner = owner or writer
    outermost_first = tuple(reversed(ancestors or ()))
    walled = _is_walled(outermost_first)

    layers = _layers(outermost_first, ranked)
    marked = _marked(environ, ranked, present)
    layers = [
        _owned(index, layers, environ, marked, payload, walled=walled)
        for index in range(len(layers))
    ]
    layers = _as_forks(layers, marked)
    names = {layer.harness.name for layer in layers}
    loose = [
        Layer(
            harness=harness,
            env_is_its_own=True,
            evidence=_evidence(marks),
            confidence=min(CANDIDATE, harness.ceiling),
        )
        for harness, marks in marked.items()
        if harness.name not in names and not any(harness.name in h.fork_of for h in marked)
    ]

    if layers:
        target = _target(layers, owner, payload)
        return Surroundings(layers=tuple(layers), candidates=tuple(loose), target=target)

    chosen = _without_ancestry(loose, owner, payload, walled=walled)
    if chosen is None:
        return Surroundings(candidates=tuple(loose) or _nameless(environ))
    rest = tuple(layer for layer in loose if layer.harness.name != chosen.harness.name)
    return Surroundings(layers=(chosen,), candidates=rest, target=0)


def _writer(payload: Mapping[str, Any], ranked: Sequence[Harness]) -> Harness | None:
    """Return the harness whose folder the payload's transcript lies in."""
    for key in ("transcript_path", "agent_transcript_path", "transcriptPath"):
        path = payload.get(key)
        for harness in ranked if isinstance(path, str) else ():
            if any(part in str(path) for part in harness.transcripts):
                return harness
    return None


def _is_walled(outermost_first: Sequence[Process]) -> bool:
    if not outermost_first:
        return True
    top = outermost_first[0]
    names = {base_name(top.argv[0]) if top.argv else "", base_name(top.exe)}
    return (top.pid == 1 and len(outermost_first) == 1) or bool(names & _WALLS)


def _layers(outermost_first: Sequence[Process], ranked: Sequence[Harness]) -> list[Layer]:
    """Group the ancestors into instances of harnesses; a process between them ends a group."""
    groups: list[tuple[Harness, list[int]]] = []
    roles: list[str] = []
    names: list[list[str]] = []
    for index, process in enumerate(outermost_first):
        for harness in ranked:
            match = harness.program_role(process)
            if match is None:
                continue
            role, name = match
            adjacent = groups and groups[-1][0] is harness and groups[-1][1][-1] == index - 1
            # launcher -> main -> worker is one instance; anything that goes back is the next one.
            if adjacent and (role == "worker" or roles[-1] == "launcher"):
                groups[-1][1].append(index)
                roles[-1] = role
                names[-1].append(name)
            else:
                groups.append((harness, [index]))
                roles.append(role)
                names.append([name])
            break
    layers = []
    for place, (harness, indices) in enumerate(groups):
        end = groups[place + 1][1][0] + 1 if place + 1 < len(groups) else len(outermost_first)
        layers.append(
            Layer(
                harness=harness,
                processes=tuple(outermost_first[i] for i in indices),
                below=tuple(outermost_first[indices[-1] + 1 : end]),
                evidence=tuple(dict.fromkeys(f"program:{name}" for name in names[place])),
                confidence=harness.ceiling,
            )
        )
    return layers


def _marked(
    environ: Mapping[str, str], ranked: Sequence[Harness], present: Collection[str]
) -> dict[Harness, dict[SignalKind, tuple[str, ...]]]:
    """Return the harnesses with a deciding mark among the variables."""
    found = {}
    for harness in ranked:
        marks = harness.seen_marks(environ, present)
        if SignalKind.STRONG in marks or SignalKind.SESSION in marks:
            found[harness] = marks
    return found


def _evidence(marks: Mapping[SignalKind, tuple[str, ...]]) -> tuple[str, ...]:
    kinds = (SignalKind.STRONG, SignalKind.SESSION)
    return tuple(dict.fromkeys(name for kind in kinds for name in marks.get(kind, ())))


def _owned(
    index: int,
    layers: Sequence[Layer],
    environ: Mapping[str, str],
    marked: Mapping[Harness, Mapping[SignalKind, tuple[str, ...]]],
    payload: Mapping[str, Any],
    *,
    walled: bool,
) -> Layer:
    """Give the layer its harness's variables, if it is the instance that set them."""
    layer = layers[index]
    harness = layer.harness
    same = [i for i, other in enumerate(layers) if other.harness is harness]
    mine = marked.get(harness)
    pids = {environ[n] for n in harness.pid_variables if environ.get(n, "").isdigit()}
    if pids:
        named = [i for i in same if pids & {str(p.pid) for p in layers[i].processes}]
        # Behind a wall the number belongs to another namespace and disproves nothing.
        owner = named[-1] if named else (same[-1] if walled else None)
    else:
        owner = same[-1]
        sessions = (mine or {}).get(SignalKind.SESSION, ())
        if payload and owner == len(layers) - 1 and _contradicts(environ, sessions, payload):
            # The hook of an inner instance that sets no ids: what is there came from further out.
            owner = same[-2] if len(same) > 1 else None
    if owner != index:
        return layer
    evidence = (*layer.evidence, *(_evidence(mine) if mine else ()))
    return attrs.evolve(layer, env_is_its_own=True, evidence=evidence)


def _contradicts(
    environ: Mapping[str, str], sessions: Sequence[str], payload: Mapping[str, Any]
) -> bool:
    """Whether the variables name sessions and none of them is one that the payload names."""
    values = {environ[name] for name in sessions if environ.get(name)}
    return bool(values) and not values & _strings(payload) and bool(_strings(payload))


def _strings(payload: Mapping[str, Any]) -> set[str]:
    return {value for value in payload.values() if isinstance(value, str)}


def _as_forks(
    layers: list[Layer], marked: Mapping[Harness, Mapping[SignalKind, tuple[str, ...]]]
) -> list[Layer]:
    """Rename a layer whose own variables say that a fork without a program of its own runs."""
    renamed = []
    for layer in layers:
        fork = next(
            (
                harness
                for harness in marked
                if layer.env_is_its_own
                and layer.harness.name in harness.fork_of
                and not any(s.kind is SignalKind.PROGRAM for s in harness.signals)
            ),
            None,
        )
        if fork is None:
            renamed.append(layer)
            continue
        evidence = (*layer.evidence, *_evidence(marked[fork]))
        renamed.append(
            attrs.evolve(layer, harness=fork, evidence=evidence, confidence=fork.ceiling)
        )
    return renamed


def _target(
    layers: Sequence[Layer], owner: Harness | None, payload: Mapping[str, Any]
) -> int | None:
    """Return the layer that a payload belongs to: the innermost, or the declared harness's."""
    if not payload:
        return None
    if owner is None:
        return len(layers) - 1
    places = [i for i, layer in enumerate(layers) if layer.harness.name == owner.name]
    # A harness that runs another one's hooks for compatibility is not that other one.
    return places[-1] if places else None


def _without_ancestry(
    loose: Sequence[Layer], owner: Harness | None, payload: Mapping[str, Any], *, walled: bool
) -> Layer | None:
    """Return the one harness that may be named although no ancestor shows it."""
    if owner is not None and payload:
        return Layer(
            harness=owner,
            env_is_its_own=any(layer.harness is owner for layer in loose),
            evidence=("payload",),
            confidence=min(PROBABLE, owner.ceiling),
        )
    if walled and len(loose) == 1:
        return attrs.evolve(loose[0], confidence=min(PROBABLE, loose[0].harness.ceiling))
    return None


def _nameless(environ: Mapping[str, str]) -> tuple[Layer, ...]:
    if env("AI_AGENT").seen_in(environ):
        return (Layer(harness=UNKNOWN, evidence=("AI_AGENT",), confidence=CANDIDATE),)
    return ()
