"""GitHub Copilot CLI: sessions and the agents of its task tool. Observed on 1.0.102.

A tool's variables name the session. In a sub-agent they name a third id, which is neither the
session's nor the agent's: the session's usage records say whose it is, and nobody else does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heddle_registry.core.harness import PROBABLE, Harness, native_id
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

COPILOT_CLI = Harness(
    name="copilot-cli",  # its marks are in the table that comes with the registry
    events={
        "sessionStart": "opened",
        "subagentStart": "child_opened",
        "subagentStop": "child_closed",
        "sessionEnd": "closed",
        "agentStop": "waiting",
    },
)
_TAIL_BYTES = 1_048_576
_MAX_SESSIONS = 20


@hookimpl
def heddle_harnesses() -> list[Harness]:
    """Answer Copilot CLI."""
    return [COPILOT_CLI]


@hookimpl
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer the session or agent whose hook or command this is."""
    payload = probe.payload
    if payload:
        session = native_id(payload.get("sessionId"))
        agent = native_id(payload.get("agentId"))
        parent = native_id(payload.get("parentAgentId"))
        if session is None:
            return None
        if agent is None:
            return _session(probe, session, "payload")
        return _agent(probe, agent, session, parent, "payload")
    named = native_id(probe.env.get("COPILOT_AGENT_SESSION_ID"))
    if named is None:
        return None
    if probe.first_line(_events(probe, named)) or not probe.files.names(_sessions(probe)):
        return _session(probe, named, "environment")
    return _third_id(probe, named)


@hookimpl
def heddle_usage(source: Any) -> Iterable[Any] | None:
    """Answer the responses in a session's events."""
    from .usage import records

    return records(source)


def _sessions(probe: Probe) -> str:
    return f"{probe.env.get('COPILOT_HOME') or probe.at_home('.copilot')}/session-state"


def _events(probe: Probe, session: str) -> str:
    named = probe.payload.get("transcriptPath")
    if isinstance(named, str) and f"/{session}/" in named:
        return named
    return f"{_sessions(probe)}/{session}/events.jsonl"


def _session(probe: Probe, session: str, source: str) -> Identity:
    path = _events(probe, session)
    start = probe.first_line(path).get("data")
    start = start if isinstance(start, dict) else {}
    model = _model(probe, path, None) or start.get("selectedModel")
    return Identity(
        actor=session,
        model=model if isinstance(model, str) else None,
        thinking_level=start.get("reasoningEffort"),
        transcript=probe.transcript(path),
        source=source,
    )


def _agent(probe: Probe, agent: str, session: str, parent: str | None, source: str) -> Identity:
    """Return the agent below its parent: the root session, or another agent of it."""
    # In a sub-agent's own hooks `sessionId` is the agent again and `parentAgentId` what began it.
    root = session if session != agent else parent
    nested = parent is not None and parent != root
    lineage = [_session(probe, root, source)] if root is not None else []
    if nested:
        lineage.append(Identity(actor=parent, actor_kind="agent", source=source))
    path = _events(probe, root) if root is not None else None
    return Identity(
        actor=agent,
        actor_kind="agent",
        lineage=tuple(lineage),
        orphan=root is None,
        model=_model(probe, path, agent) if path else None,
        transcript=probe.transcript(path),
        source=source,
    )


def _third_id(probe: Probe, named: str) -> Identity:
    """Find the agent whose requests are accounted under this id, in a session of this place."""
    sessions = probe.files.names(_sessions(probe))
    if len(sessions) > _MAX_SESSIONS:
        sessions.sort(key=lambda s: probe.files.modified_at(_events(probe, s)) or 0)
    for session in reversed(sessions[-_MAX_SESSIONS:]):
        path = _events(probe, session)
        for line in probe.last_lines(path, _TAIL_BYTES, holding=(named,)):
            if line.get("type") != "session.usage_record" or not _mentions(line, named):
                continue
            agent = native_id(line.get("agentId")) or native_id(_data(line).get("agentId"))
            if agent is not None:
                return _agent(probe, agent, session, session, "transcript")
    # Written after the response: at an agent's first command it may not be there yet.
    return Identity(source="environment", confidence=PROBABLE)


def _data(line: dict[str, Any]) -> dict[str, Any]:
    data = line.get("data")
    return data if isinstance(data, dict) else {}


def _mentions(value: Any, wanted: str) -> bool:
    if isinstance(value, dict):
        return value.get("sourceSessionId") == wanted or any(
            _mentions(part, wanted) for part in value.values()
        )
    return False


def _model(probe: Probe, path: str, agent: str | None) -> str | None:
    for line in reversed(probe.last_lines(path, 262_144, holding=('"assistant.message"',))):
        model = _data(line).get("model")
        if isinstance(model, str) and native_id(line.get("agentId")) == agent:
            return model
    return None
