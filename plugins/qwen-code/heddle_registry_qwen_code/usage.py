"""Qwen Code's chats: ``projects/<project>/chats/<session>.jsonl`` and ``…/subagents/…``.

The same usage stands in the answers, in telemetry lines (the sub-agents' too) and in
``usage_record.jsonl``; only the answers are counted. Gemini's field names, but ``prompt`` holds
the cached and ``candidates`` the thoughts. Checked against recorded runs of 0.24 and one of 0.18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heddle_registry.core.usage import UsageRecord, count, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each line of an answer."""
    memory = source.memory
    for line in source.json_lines(b'"assistant"'):
        if line.get("type") != "assistant":
            continue
        session, agent = line.get("sessionId"), line.get("agentId")
        if agent and agent != memory.get("agent"):
            memory["agent"] = agent
            _name_agent(source, str(agent), str(session))
        elif not agent and session and session != memory.get("session"):
            memory["session"] = session
            source.declare(f"session:{session}")
        usage, message = line.get("usageMetadata"), line.get("message")
        parts = message.get("parts") if isinstance(message, dict) else None
        calls = sum(
            isinstance(part, dict) and "functionCall" in part
            for part in (parts if isinstance(parts, list) else ())
        )
        key = str(line.get("uuid") or f"{session}:{source.line_at}")
        model = text(line.get("model")) or memory.get("model")
        at = line.get("timestamp")
        if not isinstance(usage, dict):
            if calls:
                yield UsageRecord(key, tool_calls=calls, requests=0, model=model, at=at)
            continue
        prompt, cached = (
            count(usage.get("promptTokenCount")),
            count(usage.get("cachedContentTokenCount")),
        )
        output, thoughts = (
            count(usage.get("candidatesTokenCount")),
            count(usage.get("thoughtsTokenCount")),
        )
        if usage.get("totalTokenCount") == prompt + output + thoughts:
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
