"""A harness's lifecycle event becomes registry calls. Payloads are read, and never kept.

``opened`` and ``child_opened`` attach, ``closed`` and ``child_closed`` end what attaching made,
``waiting`` is a sign of life. Whatever goes wrong costs the event and one note for ``doctor``,
never the harness.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.errors import IllegalTransition, RegistryError, UnknownEntry

if TYPE_CHECKING:
    from heddle_registry.core.attach import AttachDecision
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.usage import UsageGroup
    from heddle_registry.plugins import Plugins
    from heddle_registry.ports import Host
    from heddle_registry.probe import Link, ProbeResult
    from heddle_registry.registry import AgentRegistry
    from heddle_registry.surroundings import Situation

MAX_PAYLOAD_BYTES: Final = 1_048_576
MAX_TRANSCRIPT_BYTES: Final = 16 * 1_048_576
"""What is read of a session's transcripts at its end: a fifth of a second at the most."""
LOCK_TIMEOUT_S: Final = 3.0
"""A harness waits for its hooks: a busy registry costs the event, not the session's start."""
_SPEAKS_JSON: Final = frozenset({"claude-code", "codex", "gemini-cli", "qwen-code"})
"""Harnesses whose SessionStart hook takes context as ``hookSpecificOutput.additionalContext``."""
_MAX_NAME: Final = 120
_PLAIN: Final = frozenset("-._/")


class _Fault(Exception):
    # Why an event came to nothing, in our own words.
    pass


def relay(
    harness: str,
    event: str,
    data: bytes,
    *,
    host: Host,
    heddle_dir: str | None = None,
    plugins: Plugins | None = None,
) -> str | None:
    """Do what the event asks for. Returns one line for the harness's model, or None.

    Outside of any repository nothing happens. What goes wrong is noted in the registry's folder;
    only what interrupts the whole process is raised.

    :param data: the payload, as the hook was given it
    :param plugins: the installed ones when left out
    """
    from heddle_registry.opening import find_heddle_dir

    payload = _payload_in(data)
    cwd = _folder_in(payload, host)
    try:
        folder = find_heddle_dir(cwd, explicit=heddle_dir)
    except RegistryError:
        return None
    line = None
    faults: list[tuple[str, str, str]] = []
    try:
        line, faults = _relay(harness, event, payload, host, folder, cwd, plugins)
    except _Fault as fault:
        faults.append((harness, f"relay {event}", str(fault)))
    except RegistryError as error:
        faults.append((harness, f"relay {event}", error.message))
    except Exception as error:  # noqa: BLE001 - its text may quote the payload: only its kind is kept
        faults.append((harness, f"relay {event}", f"it failed with {type(error).__name__}"))
    for plugin, hook, why in faults:
        from heddle_registry.faults import note_fault

        note_fault(folder, plugin, hook, why, host.now().at)
    return line


def _payload_in(data: bytes) -> dict[str, Any] | str:
    """Return the payload, or what is wrong with it."""
    import json

    if len(data) > MAX_PAYLOAD_BYTES:
        return f"its payload has more than {MAX_PAYLOAD_BYTES} bytes"
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        return "its payload is no JSON"
    return payload if isinstance(payload, dict) else "its payload is no JSON object"


def _folder_in(payload: dict[str, Any] | str, host: Host) -> str:
    """Return where the session works: its payload says, or the hook runs there."""
    named = payload.get("cwd") if isinstance(payload, dict) else None
    is_path = isinstance(named, str) and os.path.isabs(named) and "\0" not in named
    return str(named) if is_path and os.path.isdir(str(named)) else host.cwd()


def _relay(
    name: str,
    event: str,
    payload: dict[str, Any] | str,
    host: Host,
    folder: str,
    cwd: str,
    plugins: Plugins | None,
) -> tuple[str | None, list[tuple[str, str, str]]]:
    from heddle_registry.registry import AgentRegistry
    from heddle_registry.settings import load_settings
    from heddle_registry.surroundings import plugins_here, probe_situation, situation_here

    if isinstance(payload, str):
        raise _Fault(payload)
    settings = load_settings(folder, host.environment())
    if settings is not None and settings.detection is False:
        return None, []
    if plugins is None:
        plugins = plugins_here(host, settings)
    known = next((h for h in plugins.harnesses().values() if name in {h.name, *h.aliases}), None)
    if known is None:
        raise _Fault("nobody knows a harness of that name")
    if not known.events:
        raise _Fault("nothing is known of its events: is its plugin installed?")
    situation = situation_here(host, payload=payload, event=event, harness=name, cwd=cwd)
    result = probe_situation(situation, plugins)
    registry = AgentRegistry(folder, host=host, lock_timeout_s=LOCK_TIMEOUT_S)
    line = None
    if result.speaker is not None and result.meaning is not None:
        link = result.chain[result.speaker]
        if link.native_actor_key is None:
            raise _Fault("its payload names no session")
        if result.meaning in {"opened", "child_opened"}:
            decision = _opened(registry, situation, result, plugins, settings)
            line = _context_line(decision, link, event)
        elif result.meaning in {"closed", "child_closed"}:
            _closed(registry, link.native_actor_key, plugins)
        else:
            _waiting(registry, link.native_actor_key)
    # A plugin's own text may quote what it was given.
    return line, [
        (fault.plugin, fault.hook, f"it failed with {fault.why.partition(':')[0]}")
        for fault in plugins.faults
    ]


def _opened(
    registry: AgentRegistry,
    situation: Situation,
    result: ProbeResult,
    plugins: Plugins,
    settings: Any,
) -> AttachDecision:
    """Attach the actor; before it those of its own instance that it descends from."""
    from heddle_registry.registry.attaching import attach_situation, rules_in_force

    rules = rules_in_force(settings, plugins)
    place = result.speaker or 0
    first = place
    while first > 0 and _is_same_instance(result.chain[first - 1], result.chain[place]):
        first -= 1
    decision = None
    for at in range(first, place + 1):
        # An ancestor that was there before the hooks were: without its entry the tree has a gap.
        if result.chain[at].native_actor_key is not None:
            decision = attach_situation(
                registry, situation, plugins, rules=rules, result=result, place=at
            )
    if decision is None:
        raise _Fault("its payload names no session")
    return decision


def _is_same_instance(one: Link, other: Link) -> bool:
    return (one.harness, one.native_instance_key) == (other.harness, other.native_instance_key)


def _closed(registry: AgentRegistry, actor_key: str, plugins: Plugins) -> None:
    """End the actor's entry and its descendants' that attaching made; take it out of others."""
    from heddle_registry.core.attach import is_made_by_attach
    from heddle_registry.ports.query import Query

    keys, seen = [actor_key], {actor_key}
    harness: str | None = None
    while keys:
        key = keys.pop()
        found = registry.look(Query(native_actor_key=key, active_only=True))
        for entry in found.entries:
            harness = harness or entry.harness
            if entry.harness != harness:
                continue  # another harness that it started has hooks, or a life, of its own
            if is_made_by_attach(entry, found.claims.get(entry.thread)):
                _note_usage(registry, entry, plugins)
                _complete(registry, entry.session_id)
            elif key == actor_key:
                _part(registry, entry.session_id, key)
        for child in registry.look(Query(native_parent_actor_key=key, active_only=True)).entries:
            below = child.native_actor_key
            if below is not None and below not in seen and child.harness == harness:
                seen.add(below)
                keys.append(below)


class _NoPrices:
    # What `usage` looks up when somebody asks is not worth a harness's waiting.
    def estimate(self, harness: str, group: UsageGroup) -> int | None:  # noqa: ARG002
        return None


def _note_usage(registry: AgentRegistry, entry: AgentEntry, plugins: Plugins) -> None:
    # An ended entry takes no numbers any more, and the Rust tools read them there. A transcript
    # too long to be read while a harness waits is left to `usage`, which reads it in any case.
    from heddle_registry.ownership import transcripts_of
    from heddle_registry.spending import fill_usage

    try:
        length = sum(os.path.getsize(path) for path in transcripts_of(entry))
        if 0 < length <= MAX_TRANSCRIPT_BYTES:
            fill_usage(registry, entry.session_id, plugins, prices=_NoPrices())
    except (OSError, RegistryError):
        return


def _complete(registry: AgentRegistry, session_id: str) -> None:
    try:
        registry.release(session_id, ask_token=False)
    except (IllegalTransition, UnknownEntry):
        return  # ended by somebody else meanwhile


def _part(registry: AgentRegistry, session_id: str, actor_key: str) -> None:
    def parted(entry: AgentEntry) -> AgentEntry:
        if entry.native_actor_key != actor_key:
            return entry
        return attrs.evolve(entry, native_actor_key=None, native_instance_key=None)

    try:
        registry.update_entry(session_id, parted)
    except (IllegalTransition, UnknownEntry):
        return


def _waiting(registry: AgentRegistry, actor_key: str) -> None:
    from heddle_registry.ports.query import Query

    now = registry.host.now().at
    for entry in registry.look(Query(native_actor_key=actor_key, active_only=True)).entries[:1]:
        try:
            registry.update_entry(
                entry.session_id,
                lambda entry: attrs.evolve(entry, last_progress_at=now, heartbeat_at=now),
            )
        except (IllegalTransition, UnknownEntry):
            return


def _context_line(decision: AttachDecision, link: Link, event: str) -> str | None:
    """Return what the harness's model should know, in the harness's own format."""
    holder, entry = decision.held_by, decision.entry
    if holder is None or event != "SessionStart" or link.harness not in _SPEAKS_JSON:
        return None
    if _is_kin(entry, holder) or _is_kin(holder, entry):
        return None
    import json

    who = f" ({_plain(holder.harness)})" if holder.harness else ""
    text = f"{_plain(entry.thread)} is held by {_plain(holder.session_id)}{who}; use a worktree"
    said = {"hookEventName": event, "additionalContext": text}
    return json.dumps({"hookSpecificOutput": said})


def _is_kin(one: AgentEntry, other: AgentEntry) -> bool:
    """Whether ``other`` is above ``one``, or of the same process."""
    nodes = one.extension.ancestors if one.extension is not None else ()
    if one.owner is not None and one.owner.is_same_process(other.owner):
        return True
    return any(node.session_id == other.session_id for node in nodes)


def _plain(text: str) -> str:
    # Records are written by anybody, and this is read by a model: a name, nothing that could speak.
    cut = text[:_MAX_NAME]
    return "".join(char if char.isalnum() or char in _PLAIN else "?" for char in cut)
