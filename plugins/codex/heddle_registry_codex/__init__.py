"""Codex CLI: threads, sub-agent threads at any depth, forks. Observed on 0.169.0.

A tool's variables name the thread, a sub-agent's its own; hooks get no variables and name both
in the payload. Who started a thread is in the first line of its rollout file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heddle_registry.core.harness import DEFINITE, PROBABLE, Harness, native_id
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

CODEX = Harness(
    name="codex",  # its marks are in the table that comes with the registry
    actor_kind="thread",
    events={
        "SessionStart": "opened",
        "SubagentStart": "child_opened",
        "SubagentStop": "child_closed",
        "SessionEnd": "closed",
        "PermissionRequest": "waiting",
        "Stop": "waiting",
    },
)
_MAX_DEPTH = 16
_DAY_S = 86_400


@hookimpl
def heddle_harnesses() -> list[Harness]:
    """Answer Codex."""
    return [CODEX]


@hookimpl
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer the thread whose hook or command this is."""
    payload = probe.payload
    named = payload.get("agent_id") or payload.get("thread-id") or payload.get("session_id")
    thread = native_id(named)
    source = "payload"
    root = native_id(payload.get("session_id"))
    if thread is None:
        thread = native_id(probe.env.get("CODEX_THREAD_ID"))
        root = native_id(probe.env.get("CODEX_SESSION_ID"))
        source = "environment"
    if thread is None:
        return None
    path = _path(probe, thread)
    meta = _meta(probe, path)
    lineage, orphan = _lineage(probe, thread, meta, root, source)
    model, effort = _model(probe, path)
    return Identity(
        actor=thread,
        lineage=lineage,
        orphan=orphan,
        model=_text(payload.get("model")) or model,
        provider=_text(meta.get("model_provider")),
        thinking_level=effort,
        transcript=path,
        continues=_text(meta.get("forked_from_id")),
        source=source,
        confidence=DEFINITE if meta or thread == root else PROBABLE,
    )


@hookimpl
def heddle_usage(source: Any) -> Iterable[Any] | None:
    """Answer the responses in a rollout."""
    from .usage import records

    return records(source)


def _lineage(
    probe: Probe, thread: str, meta: dict[str, Any], root: str | None, source: str
) -> tuple[tuple[Identity, ...], bool]:
    """Return the threads above this one, outermost first, and whether its parent is unknown."""
    above: list[Identity] = []
    seen = {thread}
    known = meta
    while known and len(above) < _MAX_DEPTH:
        parent = _text(known.get("parent_thread_id")) or _spawned_by(known)
        if parent is None or parent in seen:
            return tuple(above), False
        seen.add(parent)
        path = _path(probe, parent)
        known = _meta(probe, path)
        above.insert(0, Identity(actor=parent, transcript=path, source=source))
    if root is None or root in seen:
        return tuple(above), root is None and not meta
    top = Identity(actor=root, transcript=_path(probe, root), source=source)
    if not above:
        return (top,), False  # no rollout to be seen: threads that start threads are rare
    # The topmost one's rollout is missing: between it and the root there may be others.
    lost = above[0]
    lost = Identity(actor=lost.actor, transcript=lost.transcript, source=source, orphan=True)
    return (top, lost, *above[1:]), False


def _spawned_by(meta: dict[str, Any]) -> str | None:
    found: Any = meta.get("source")
    for key in ("subagent", "thread_spawn", "parent_thread_id"):
        found = found.get(key) if isinstance(found, dict) else None
    return _text(found)


def _path(probe: Probe, thread: str) -> str | None:
    """Return the thread's rollout: named in the payload, or found by the time in its id."""
    for key in ("agent_transcript_path", "transcript_path"):
        named = probe.payload.get(key)
        if isinstance(named, str) and named.endswith(f"-{thread}.jsonl"):
            return probe.transcript(named)
    sessions = f"{probe.env.get('CODEX_HOME') or probe.at_home('.codex')}/sessions"
    for day in _days(thread):
        for name in probe.files.names(f"{sessions}/{day}"):
            if name.endswith(f"-{thread}.jsonl"):
                return probe.transcript(f"{sessions}/{day}/{name}")
    return None


def _days(thread: str) -> Iterable[str]:
    """Return the folders of the days around a UUIDv7's time: folders follow the local clock."""
    import time

    digits = thread.replace("-", "")[:12]
    try:
        created_at = int(digits, 16) / 1000
        for offset in (0, -_DAY_S, _DAY_S):
            yield time.strftime("%Y/%m/%d", time.gmtime(created_at + offset))
    except (ValueError, OverflowError, OSError):
        return


def _meta(probe: Probe, path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    first = probe.first_line(path)
    payload = first.get("payload")
    is_meta = first.get("type") == "session_meta" and isinstance(payload, dict)
    return payload if is_meta and isinstance(payload, dict) else {}


def _model(probe: Probe, path: str | None) -> tuple[str | None, str | None]:
    if path is None:
        return None, None
    holding = ('"turn_context"',)
    turns = probe.last_lines(path, 262_144, holding=holding) or [
        turn for turn in _first_lines(probe, path) if turn.get("type") == "turn_context"
    ]
    for turn in reversed(turns):
        payload = turn.get("payload")
        if isinstance(payload, dict) and _text(payload.get("model")):
            return _text(payload.get("model")), _text(payload.get("effort"))
    return None, None


def _first_lines(probe: Probe, path: str) -> list[dict[str, Any]]:
    from heddle_registry.core.harness import json_object

    text = probe.read_text(path, 1_048_576) or ""
    return [json_object(line) for line in text.split("\n") if '"turn_context"' in line]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
