"""Codex's rollouts, versions 0.34 to 0.169: ``sessions/YYYY/MM/DD/rollout-….jsonl``.

Usage is a running total of the thread (``token_count``, and since 0.16x also
``token_usage_record`` with the response's id). Totals are written again and again; a call that was
interrupted is in the total alone; a resumed, forked or spawned thread may begin with a copy of
another thread's history, or with its total only. So: the differences of the total, by
`UsageCounter`, with copies recognised by the foreign ``session_meta`` that heads them. Checked
against recorded runs of 0.169 and files of 10 sessions from 0.39 to 0.140.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.usage import UsageCounter, UsageRecord, instant_s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource

BURST_S: Final = 1.0
"""A copied history is written in one go: its totals follow each other faster than any call."""
_NEEDLES: Final = (
    b'"token_count"',
    b'"token_usage_record"',
    b'"session_meta"',
    b'"turn_context"',
    b'_call"',
    b'"turn.completed"',
    b'"thread.started"',
)


def records(source: TranscriptSource) -> Iterator[UsageRecord | UsageCounter]:
    """Yield the readings of the thread's total and its tool calls."""
    memory = source.memory
    for line in source.json_lines(*_NEEDLES):
        kind, payload = line.get("type"), line.get("payload")
        if kind == "thread.started":  # `codex exec --json`
            memory["thread"] = line.get("thread_id")
            source.declare(f"thread:{memory['thread']}")
            continue
        if kind == "turn.completed":
            payload = {"info": {"total_token_usage": line.get("usage")}}
            kind = "event_msg"
        elif not isinstance(payload, dict):
            continue
        thread = memory.get("thread")
        if kind == "session_meta":
            _meta(source, payload, line)
        elif kind == "turn_context":
            memory["model"] = payload.get("model") or memory.get("model")
        elif kind == "token_usage_record":
            reading = _reading(
                source, line, payload.get("thread_token_usage"), payload.get("usage")
            )
            if reading is not None:
                foreign = payload.get("thread_id") not in {None, thread}
                yield reading._replace(
                    id=payload.get("response_id"), replayed=reading.replayed or foreign
                )
        elif kind == "event_msg":
            info = payload.get("info")
            if isinstance(info, dict):
                reading = _reading(
                    source, line, info.get("total_token_usage"), info.get("last_token_usage")
                )
                if reading is not None:
                    yield reading
        elif kind == "response_item" and str(payload.get("type", "")).endswith("_call"):
            at = line.get("timestamp")
            if not _copied_item(memory, instant_s(at)):
                call = payload.get("call_id") or payload.get("id") or source.line_at
                yield UsageRecord(
                    f"{thread}:{call}", tool_calls=1, requests=0, model=memory.get("model"), at=at
                )


def _meta(source: TranscriptSource, payload: dict[str, Any], line: dict[str, Any]) -> None:
    memory, thread = source.memory, payload.get("id")
    if memory.get("thread") in {None, thread}:
        if memory.get("thread") is None:
            memory["thread"] = thread
            memory["started_s"] = instant_s(payload.get("timestamp") or line.get("timestamp"))
            origin = payload.get("source")
            spawn = origin.get("subagent") if isinstance(origin, dict) else None
            spawn = spawn.get("thread_spawn") if isinstance(spawn, dict) else None
            parent = (spawn or {}).get("parent_thread_id") or payload.get("parent_thread_id")
            source.declare(f"thread:{thread}", f"thread:{parent}" if parent else None)
            memory["forked"] = bool(
                parent or payload.get("forked_from_id") or payload.get("history_base")
            )
        memory["copied"] = False
    else:  # another thread's history follows; what comes first of it is a copy
        memory["copied"] = True
        memory["count_s"] = memory["item_s"] = 0.0


def _reading(
    source: TranscriptSource, line: dict[str, Any], total: Any, last: Any
) -> UsageCounter | None:
    if not isinstance(total, dict):
        return None
    memory = source.memory
    fresh, written, cached, output, reasoning = _buckets(total)
    return UsageCounter(
        series=str(memory.get("thread") or "rollout"),
        input=fresh,
        cache_creation=written,
        cache_read=cached,
        output=output,
        reasoning=reasoning,
        last=_buckets(last) if isinstance(last, dict) else None,
        forked=bool(memory.get("forked")),
        replayed=_copied_count(memory, instant_s(line.get("timestamp"))),
        model=memory.get("model"),
        at=line.get("timestamp"),
    )


def _buckets(usage: dict[str, Any]) -> tuple[int, int, int, int, int]:
    cached = usage.get("cached_input_tokens") or 0
    written = usage.get("cache_write_input_tokens") or 0
    return (
        max(0, (usage.get("input_tokens") or 0) - cached - written),
        written,
        cached,
        usage.get("output_tokens") or 0,
        usage.get("reasoning_output_tokens") or 0,
    )


def _copied_count(memory: dict[str, Any], at_s: float) -> bool:
    """Tell whether a total was copied from another thread's history."""
    linked = memory.get("copied") or memory.get("forked")
    if linked and 0 < at_s < memory.get("started_s", 0.0) - BURST_S:
        memory["count_s"] = memory["item_s"] = at_s
        return True  # a copy that kept its timestamps
    if not memory.get("copied"):
        return False
    if memory["count_s"] and at_s - memory["count_s"] >= BURST_S:
        memory["copied"] = False
        return False
    memory["count_s"] = at_s
    memory["item_s"] = max(memory["item_s"], at_s)
    return True


def _copied_item(memory: dict[str, Any], at_s: float) -> bool:
    """Tell whether a tool call was copied: it lies in the same burst."""
    linked = memory.get("copied") or memory.get("forked")
    if linked and 0 < at_s < memory.get("started_s", 0.0) - BURST_S:
        return True
    if not memory.get("copied") or (memory["item_s"] and at_s - memory["item_s"] >= BURST_S):
        return False
    memory["item_s"] = at_s
    return True
