"""Qwen Code: sessions and sub-agents at any depth. Observed on 0.24.4.

Tools and hooks both get session and agent in their variables; hooks have them in the payload too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heddle_registry.core.harness import DEFINITE, PROBABLE, Harness, native_id
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

QWEN_CODE = Harness(
    name="qwen-code",  # its marks are in the table that comes with the registry
    events={
        "SessionStart": "opened",
        "SubagentStart": "child_opened",
        "SubagentStop": "child_closed",
        "SessionEnd": "closed",
        "Notification": "waiting",
        "Stop": "waiting",
    },
)
_MAX_DEPTH = 16


@hookimpl
def heddle_harnesses() -> list[Harness]:
    """Answer Qwen Code."""
    return [QWEN_CODE]


@hookimpl
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer the session or sub-agent whose hook or command this is."""
    session, source = native_id(probe.payload.get("session_id")), "payload"
    agent = native_id(probe.payload.get("agent_id"))
    if session is None:
        session, source = native_id(probe.env.get("QWEN_CODE_SESSION_ID")), "environment"
        agent = native_id(probe.env.get("QWEN_CODE_AGENT_ID"))
    if session is None:
        return None
    return _identity(probe, session, agent, source)


@hookimpl
def heddle_usage(source: Any) -> Iterable[Any] | None:
    """Answer the responses in a transcript."""
    from .usage import records

    return records(source)


def _identity(probe: Probe, session: str, agent: str | None, source: str) -> Identity:
    project = _project(probe, session)
    main = f"{project}/chats/{session}.jsonl" if project else None
    model = _model_in(probe, session)
    root = Identity(
        actor=session,
        model=model or _model(probe, main),
        transcript=probe.transcript(main),
        source=source,
    )
    if agent is None:
        return root
    folder = f"{project}/subagents/{session}" if project else None
    above: list[Identity] = []
    parent, known = _parent(probe, folder, agent)
    sure = known
    while parent is not None and len(above) < _MAX_DEPTH:
        next_parent, known = _parent(probe, folder, parent)
        above.insert(0, _sub_agent(probe, folder, parent, source, orphan=not known))
        parent = next_parent
    return Identity(
        actor=agent,
        actor_kind="agent",
        lineage=(root, *above),
        model=_model(probe, _path(folder, agent)) or model,
        transcript=probe.transcript(_path(folder, agent)),
        source=source,
        # Without its file a sub-agent is taken for the session's: agents of agents are rare.
        confidence=DEFINITE if sure else PROBABLE,
    )


def _sub_agent(
    probe: Probe, folder: str | None, agent: str, source: str, *, orphan: bool
) -> Identity:
    path = probe.transcript(_path(folder, agent))
    return Identity(actor=agent, actor_kind="agent", transcript=path, source=source, orphan=orphan)


def _path(folder: str | None, agent: str) -> str | None:
    return f"{folder}/agent-{agent}.jsonl" if folder else None


def _parent(probe: Probe, folder: str | None, agent: str) -> tuple[str | None, bool]:
    """Return the sub-agent that started this one (None: the session), and whether it is said."""
    path = _path(folder, agent)
    meta = probe.read_json(path.replace(".jsonl", ".meta.json")) if path else {}
    return native_id(meta.get("parentAgentId")), "parentAgentId" in meta


def _project(probe: Probe, session: str) -> str | None:
    """Return the folder of the project's transcripts."""
    named = probe.payload.get("transcript_path")
    if isinstance(named, str) and named.endswith(f"/chats/{session}.jsonl"):
        return named.rsplit("/", 2)[0]
    return probe.env.get("QWEN_CODE_PROJECT_DIR")


def _model_in(probe: Probe, session: str) -> str | None:
    model = probe.payload.get("model")
    if isinstance(model, str):
        return model
    same = probe.env.get("QWEN_CODE_SESSION_ID") == session
    return probe.env.get("QWEN_CODE_MODEL") if same else None


def _model(probe: Probe, path: str | None) -> str | None:
    for line in reversed(probe.last_lines(path, 131_072, holding=('"model"',)) if path else []):
        if line.get("type") == "assistant" and isinstance(line.get("model"), str):
            return str(line["model"])
    return None
