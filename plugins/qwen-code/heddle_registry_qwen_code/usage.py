"""Qwen Code's chats: ``projects/<project>/chats/<session>.jsonl`` and ``…/subagents/…``.

The same usage stands in the answers, in telemetry lines (the sub-agents' too) and in
``usage_record.jsonl``; only the answers are counted. Gemini's field names, but ``prompt`` holds
the cached and ``candidates`` the thoughts. Checked against recorded runs of 0.24 and one of 0.18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from heddle_registry.core.usage import UsageRecord, count, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource


class _Usage(NamedTuple):
    promptTokenCount: Any = 0
    cachedContentTokenCount: Any = 0
    candidatesTokenCount: Any = 0
    thoughtsTokenCount: Any = 0
    totalTokenCount: Any = None


class _Part(NamedTuple):
    functionCall: Any = None


class _Message(NamedTuple):
    parts: list[_Part] | None = None


class _Line(NamedTuple):
    type: Any = None
    uuid: Any = None
    sessionId: Any = None
    agentId: Any = None
    timestamp: Any = None
    model: Any = None
    message: _Message | None = None
    usageMetadata: _Usage | None = None


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each line of an answer."""
    memory = source.memory
    for line in source.shapes(_Line, b'"assistant"'):
        if line.type != "assistant":
            continue
        session, agent = line.sessionId, line.agentId
        if agent and agent != memory.get("agent"):
            memory["agent"] = agent
            _name_agent(source, str(agent), str(session))
        elif not agent and session and session != memory.get("session"):
            memory["session"] = session
            source.declare(f"session:{session}")
        usage, message = line.usageMetadata, line.message
        parts = (message and message.parts) or ()
        calls = sum(part.functionCall is not None for part in parts)
        key = str(line.uuid or f"{session}:{source.line_at}")
        model = text(line.model) or memory.get("model")
        at = line.timestamp
        if usage is None:
            if calls:
                yield UsageRecord(key, tool_calls=calls, requests=0, model=model, at=at)
            continue
        prompt, cached = count(usage.promptTokenCount), count(usage.cachedContentTokenCount)
        output, thoughts = count(usage.candidatesTokenCount), count(usage.thoughtsTokenCount)
        if usage.totalTokenCount == prompt + output + thoughts:
            output += thoughts
        yield UsageRecord(
            key,
            input=max(0, prompt - cached),
            cache_read=cached,
            output=output,
            reasoning=thoughts,
            tool_calls=calls,
            model=model,
            at=at,
        )


def _name_agent(source: TranscriptSource, agent: str, session: str) -> None:
    meta = _meta(source.path)
    parent = meta.get("parentAgentId")
    source.declare(f"agent:{agent}", f"agent:{parent}" if parent else f"session:{session}")
    flags = meta.get("persistedCliFlags")
    if isinstance(flags, dict):
        source.memory["model"] = text(flags.get("model"))


def _meta(path: str) -> dict[str, Any]:
    import json

    try:
        with open(path.removesuffix(".jsonl") + ".meta.json", "rb") as file:
            meta = json.load(file)
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}
