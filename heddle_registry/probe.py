"""Who is this process? Gathers what a chain of harnesses shows and asks their plugins.

The rules are in `heddle_registry.core.chain`; here the files are opened and the plugins called.
Values of variables and payloads go to the plugins of the harness that they belong to, and nowhere
else: an answer holds ids, names and paths.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.core.chain import Layer, locate
from heddle_registry.core.harness import (
    CANDIDATE,
    MAX_ID_LENGTH,
    Harness,
    Process,
    SignalKind,
    actor_key,
    native_id,
)
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.core.record import Record
from heddle_registry.errors import UsageError
from heddle_registry.home_files import HomeFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from heddle_registry.plugins import Plugins
    from heddle_registry.ports import Host
    from heddle_registry.ports.process import ProcessInfo

_EMPTY: Final[Mapping[str, Any]] = {}
_EPOCH_US: Final = 10**14
# Where users move a harness's folder to, out of their home.
_FOLDER_VARIABLES: Final = ("CODEX_HOME", "CLAUDE_CONFIG_DIR", "XDG_DATA_HOME", "COPILOT_HOME")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Link(Record):
    """One actor in the chain, or one candidate. Keys are None where they are not known."""

    harness: str
    native_actor_key: str | None = None
    native_parent_actor_key: str | None = None
    native_instance_key: str | None = None
    provider: str | None = None
    model: str | None = None
    thinking_level: str | None = None
    source: str | None = None
    confidence: float = CANDIDATE
    evidence: tuple[str, ...] = ()
    transcript: str | None = None
    continues: str | None = None
    process: Process | None = attrs.field(default=None, repr=False)
    """The harness's own process, the outermost where it has several; not a part of any answer."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ProbeResult(Record):
    """The actors around a process, outermost first; a sub-agent follows the actor it belongs to.

    ``speaker`` is the place in ``chain`` of the actor whose hook gave the payload, and ``meaning``
    what its harness says that the event means (see `heddle_registry.core.harness.EVENTS`).
    """

    chain: tuple[Link, ...] = ()
    candidates: tuple[Link, ...] = ()
    speaker: int | None = None
    meaning: str | None = None

    @property
    def actor(self) -> Link | None:
        """The innermost actor: whose process this is."""
        return self.chain[-1] if self.chain else None

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``probe --json`` prints."""
        return {
            "chain": [_link_json(link) for link in self.chain],
            "candidates": [_link_json(link) for link in self.candidates],
        }


def _link_json(link: Link) -> dict[str, Any]:
    from attrs import asdict

    said = asdict(link, filter=lambda field, _: field.name != "process")
    return {**said, "evidence": list(link.evidence)}


def probe_process(
    *,
    environ: Mapping[str, str],
    ancestors: Sequence[Process] | None,
    plugins: Plugins,
    payload: Mapping[str, Any] | None = None,
    event: str | None = None,
    harness: str | None = None,
    cwd: str = "",
    home: str | None = None,
    recorded_home: str = "",
    home_of: Callable[[int], str | None] | None = None,
) -> ProbeResult:
    """Return the chain of actors around a process.

    Reads files of the harnesses that are in the chain, and nothing else; takes no lock, starts no
    program. Faults of plugins are left in ``plugins.faults``.

    :param ancestors: live ancestors nearest first, beginning with the process itself
    :param payload: what a hook was given; ``event`` and ``harness`` say which hook it was
    :param home: the home directory; that of the variables when left out
    :param home_of: what home an ancestor of that pid was started with, where that can be known: a
        harness inside another may have been given one of its own
    """
    known = plugins.harnesses()
    home = environ.get("HOME", "") if home is None else home
    folders = [environ[name] for name in _FOLDER_VARIABLES if environ.get(name)]
    surroundings = locate(
        environ=environ,
        ancestors=ancestors,
        harnesses=known.values(),
        declared=harness,
        payload=payload,
        present=_present(known),
    )

    def ask(layer: Layer, *, payload: Mapping[str, Any], innermost: bool) -> Identity | None:
        seen = dict(environ)
        if not innermost:
            seen.pop("_", None)
        if not layer.env_is_its_own:
            for name in layer.harness.variables():
                seen.pop(name, None)
        nearest = layer.processes[-1] if layer.processes else None
        place = (nearest and nearest.cwd) or cwd
        own_home = (home_of(nearest.pid) if home_of and nearest else None) or home
        files = HomeFiles(own_home, cwd, recorded_home=recorded_home, folders=[*folders, place])
        probe = Probe(
            harness=layer.harness.name,
            env=seen,
            payload=payload,
            event=event or "",
            processes=layer.processes,
            below=layer.below,
            innermost=innermost,
            home=own_home,
            cwd=place,
            files=files,
        )
        answer = plugins.identity(probe)
        return answer if answer is not None else _by_session_variable(layer, seen)

    chain: list[Link] = []
    candidates: list[Link] = []
    speaker: int | None = None
    outer: str | None = None
    for place, layer in enumerate(surroundings.layers):
        spoken = payload if payload and place == surroundings.target else None
        innermost = place == len(surroundings.layers) - 1
        identity = ask(layer, payload=spoken or _EMPTY, innermost=innermost) or Identity()
        links = _links(layer, identity, outer, environ=environ, from_payload=bool(spoken))
        chain.extend(links)
        for other in identity.candidates:
            candidates.extend(_links(layer, other, outer, environ=environ)[-1:])
        outer = links[-1].native_actor_key
        if place == surroundings.target:
            speaker = len(chain) - 1
    for layer in surroundings.candidates:
        identity = ask(layer, payload=_EMPTY, innermost=True) or Identity()
        candidates.extend(_links(layer, identity, None, environ=environ)[-1:])
    meaning = None
    if speaker is not None and event and surroundings.target is not None:
        meaning = surroundings.layers[surroundings.target].harness.events.get(event)
    return ProbeResult(
        chain=tuple(chain),
        candidates=tuple(
            attrs.evolve(link, confidence=min(link.confidence, CANDIDATE)) for link in candidates
        ),
        speaker=speaker,
        meaning=meaning,
    )


def probe_host(
    host: Host,
    plugins: Plugins,
    *,
    payload: Mapping[str, Any] | None = None,
    event: str | None = None,
    harness: str | None = None,
) -> ProbeResult:
    """Return the chain of actors around the process that calls.

    Needs the host's ``environment``, ``ancestors``, ``own_pid``, ``cwd`` and ``home``. See
    `probe_process` for the arguments.
    """
    return probe_process(
        environ=host.environment(),
        ancestors=processes_above(host),
        plugins=plugins,
        payload=payload,
        event=event,
        harness=harness,
        cwd=host.cwd(),
        home=host.home(),
        home_of=home_of,
    )


def processes_above(host: Host) -> list[Process]:
    """Return the process that calls and its living ancestors, nearest first."""
    import sys

    # The command line of this process is part of what its harness was asked to run.
    itself = Process(pid=host.own_pid(), argv=tuple(sys.orig_argv), started_at=time.time())
    return [itself, *map(process_of, host.ancestors())]


def home_of(pid: int) -> str | None:
    """Return the home that a living process of ours was started with, on systems with /proc."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as variables:
            found = variables.read(1_048_576).split(b"\0")
    except OSError:
        return None
    homes = (v[5:] for v in found if v.startswith(b"HOME="))
    return os.fsdecode(next(homes, b"")) or None


def process_of(info: ProcessInfo) -> Process:
    """Return what detection looks at of a process that the host sees alive."""
    return Process(
        pid=info.pid,
        argv=info.argv,
        exe=info.exe or "",
        comm=info.comm,
        starttime=info.start_ticks,
        started_at=_started_at(info.start_ticks),
        cwd=info.cwd or "",
    )


def _started_at(start_ticks: int | None) -> float | None:
    """Return when a process began, in seconds of the epoch, from the host's ticks."""
    if start_ticks is None:
        return None
    if start_ticks > _EPOCH_US:  # a host without /proc counts microseconds of the epoch
        return start_ticks / 1e6
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    booted_at = time.time() - time.clock_gettime(clock)
    return booted_at + start_ticks / os.sysconf("SC_CLK_TCK")


def probe_recorded(
    recording: Mapping[str, Any], plugins: Plugins | None = None, *, base: str = ""
) -> ProbeResult:
    """Return what `probe_process` would say in a recorded situation.

    :param recording: ``environment``, ``ancestors`` (nearest first), ``payload``, ``event``,
        ``harness``, ``cwd``, ``home``; each may be null or missing
    :param plugins: the installed ones when left out
    :param base: the folder that a relative ``home`` is below
    :raises UsageError: a part of the recording is of the wrong kind
    """
    if plugins is None:
        from heddle_registry.plugins import load_plugins

        plugins = load_plugins()
    return probe_process(plugins=plugins, **recorded_arguments(recording, base=base))


def recorded_arguments(recording: Mapping[str, Any], *, base: str = "") -> dict[str, Any]:
    """Return the arguments of `probe_process` that a recording stands for, but for the plugins.

    :raises UsageError: a part of the recording is of the wrong kind
    """
    environ = _part(recording, "environment", dict) or {}
    ancestors = _part(recording, "ancestors", list)
    home = _part(recording, "home", str)
    recorded_home = environ.get("HOME", "")
    if home is None:
        home = recorded_home
    elif not os.path.isabs(home):
        home = os.path.join(base or os.getcwd(), home)
    payload = recording.get("payload")
    return {
        "environ": {str(k): v for k, v in environ.items() if isinstance(v, str)},
        "ancestors": None if ancestors is None else [_process(facts) for facts in ancestors],
        "payload": payload if isinstance(payload, dict) else None,
        "event": _part(recording, "event", str),
        "harness": _part(recording, "harness", str),
        "cwd": _part(recording, "cwd", str) or str(environ.get("PWD") or ""),
        "home": home,
        "recorded_home": recorded_home if isinstance(recorded_home, str) else "",
    }


def _part(recording: Mapping[str, Any], key: str, kind: type) -> Any:
    value = recording.get(key)
    if value is not None and not isinstance(value, kind):
        wanted = {"dict": "an object", "list": "a list", "str": "text"}[kind.__name__]
        raise UsageError(f"recording: {key!r} is {type(value).__name__}, expected {wanted} or null")
    return value


def _process(facts: Any) -> Process:
    if not isinstance(facts, dict) or not isinstance(facts.get("pid"), int):
        raise UsageError("recording: an ancestor is no object with a 'pid'")
    argv = facts.get("argv")
    started = facts.get("starttime")
    return Process(
        pid=facts["pid"],
        argv=tuple(str(part) for part in argv) if isinstance(argv, list) else (),
        exe=str(facts.get("exe") or ""),
        comm=str(facts.get("comm") or ""),
        starttime=started if isinstance(started, int) else None,
        cwd=str(facts.get("cwd") or ""),
    )


def _present(known: Mapping[str, Harness]) -> list[str]:
    return [
        signal.name
        for harness in known.values()
        for signal in harness.signals
        if signal.source == "file" and os.path.exists(signal.name)
    ]


def _by_session_variable(layer: Layer, environ: Mapping[str, str]) -> Identity | None:
    """Take a session's variable at its word where nobody knows the harness any better."""
    if layer.harness.tier == "verified" or not layer.env_is_its_own:
        return None
    for signal in layer.harness.signals:
        session = environ.get(signal.name) if signal.kind is SignalKind.SESSION else None
        if native_id(session) is not None and signal.seen_in(environ):
            return Identity(actor=session, source="environment")
    return None


def _links(
    layer: Layer,
    identity: Identity,
    outer: str | None,
    *,
    environ: Mapping[str, str],
    from_payload: bool = False,
) -> list[Link]:
    """Return the identity's lineage and itself as links, the parent of each set."""
    harness = layer.harness
    links: list[Link] = []
    instance = _instance_key(layer, identity)
    parent = outer
    lineage = identity.lineage
    if not lineage and native_id(identity.parent) is not None:
        kind = identity.parent_kind
        lineage = (Identity(actor=identity.parent, actor_kind=kind, source=identity.source),)
    for ancestor in (*lineage, identity):
        key = actor_key(harness, ancestor.actor, ancestor.actor_kind)
        # One of several actors, and nobody knows which: so nobody knows whose child it is.
        orphan = ancestor.orphan or bool(ancestor.candidates)
        links.append(
            Link(
                harness=harness.name,
                native_actor_key=key,
                native_parent_actor_key=None if orphan else parent,
                native_instance_key=instance,
                provider=_word(ancestor.provider),
                model=_word(ancestor.model),
                thinking_level=_word(ancestor.thinking_level),
                source=ancestor.source or _source(layer, from_payload=from_payload),
                confidence=min(layer.confidence, ancestor.confidence, harness.ceiling),
                evidence=tuple(dict.fromkeys((*layer.evidence, *_names_in(ancestor, environ)))),
                transcript=ancestor.transcript,
                continues=actor_key(harness, ancestor.continues, ancestor.actor_kind),
                process=layer.processes[0] if layer.processes else None,
            )
        )
        parent = key
    return links


def _names_in(identity: Identity, environ: Mapping[str, str]) -> list[str]:
    """Return the identity's evidence without anything that is not a variable's name."""
    return [name for name in identity.evidence if name in environ]


def _instance_key(layer: Layer, identity: Identity) -> str | None:
    if native_id(identity.instance) is not None:
        return f"{layer.harness.name}:instance:{identity.instance}"
    if not layer.processes or layer.processes[0].starttime is None:
        return None  # a pid alone is used again
    first = layer.processes[0]
    return f"{layer.harness.name}:process:{first.pid}-{first.starttime}"


def _source(layer: Layer, *, from_payload: bool) -> str:
    if from_payload:
        return "payload"
    return "environment" if layer.env_is_its_own else "ancestors"


def _word(value: object) -> str | None:
    """Return a short printable text, as a model's name is one; None for anything else."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        return None
    return value if value.isprintable() else None
