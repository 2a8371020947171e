"""Copilot CLI's sessions: ``session-state/<session>/events.jsonl``.

Since 1.0.10x each model call is an event of its own (``session.usage_record``). Before, only the
end of a process told its usage, by model (``session.shutdown``; several in a file are several
processes); until then, and where a process was killed, the output of its messages is a lower
bound. Parent and sub-agents share a file. Checked against a recorded run of 1.0.102 and files of
1.0.20 and 1.0.34.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.usage import UsageRecord, count, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource

_KINDS: Final = (
    "session.start",
    "session.resume",
    "session.shutdown",
    "session.usage_record",
    "assistant.message",
    "tool.execution_start",
)
# One search for four of them: each needle is a search of its own.
_NEEDLES: Final = (b'"session.', b'"assistant.message"', b'"tool.execution_start"')


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield calls where they are told, else what a process told at its end, else live output."""
    memory = source.memory
    for line in source.json_lines(*_NEEDLES):
        kind, data, at = line.get("type"), line.get("data"), line.get("timestamp")
        if kind not in _KINDS or not isinstance(data, dict):
            continue
        if "session" not in memory:
            session = data.get("sessionId") or os.path.basename(os.path.dirname(source.path))
            memory.update(session=session, process=0, told=False, live={})
            source.declare(f"session:{session}")
        elif kind in {"session.start", "session.resume"} and (memory["live"] or memory["told"]):
            # The process before was killed: what it told until then stands.
            memory.update(process=memory["process"] + 1, told=False, live={})
        agent = line.get("agentId") or data.get("agentId")
        actor = f"agent:{agent}" if agent else f"session:{memory['session']}"
        if agent:
            source.link(actor, f"session:{memory['session']}")
        if kind == "tool.execution_start":
            call = data.get("toolCallId") or line.get("id") or source.line_at
            key = f"{memory['session']}:{call}"
            yield UsageRecord(key, tool_calls=1, requests=0, at=at, actor=actor)
        elif kind == "session.usage_record":
            usage = data.get("usage")
            if isinstance(usage, dict):
                yield from _no_live(memory)
                memory["told"] = True
                agent = agent or usage.get("agentId")
                call = usage.get("apiCallId") or line.get("id")
                yield _call(
                    f"{memory['session']}:{call}",
                    usage.get("model"),
                    usage,
                    at=at,
                    actor=f"agent:{agent}" if agent else actor,
                )
        elif kind == "assistant.message":
            output = count(data.get("outputTokens"))
            if output and not memory["told"]:
                live = memory["live"][actor] = memory["live"].get(actor, 0) + output
                yield UsageRecord(
                    f"{memory['session']}:{memory['process']}:live:{actor}",
                    output=live,
                    model=text(data.get("model")),
                    at=at,
                    actor=actor,
                    lower_bound=True,
                )
        elif kind == "session.shutdown":
            yield from _no_live(memory)
            if not memory["told"]:
                yield from _shutdown(data, line, at)
            memory.update(process=memory["process"] + 1, told=False)


def _no_live(memory: dict[str, Any]) -> Iterator[UsageRecord]:
    # The exact figures replace the live ones: an empty record that outweighs them.
    for actor in memory["live"]:
        key = f"{memory['session']}:{memory['process']}:live:{actor}"
        yield UsageRecord(key, requests=0, actor=actor, weight=1)
    memory["live"] = {}


def _shutdown(data: dict[str, Any], line: dict[str, Any], at: Any) -> Iterator[UsageRecord]:
    metrics = data.get("modelMetrics")
    for model, metric in (metrics if isinstance(metrics, dict) else {}).items():
        usage = metric.get("usage") if isinstance(metric, dict) else None
        if isinstance(usage, dict):
            asked = metric.get("requests")
            record = _call(f"{line.get('id')}:{model}", model, usage, at=at, actor=None)
            asked = asked.get("count") if isinstance(asked, dict) else None
            yield record._replace(requests=count(asked) or 1)


def _call(
    key: str, model: Any, usage: dict[str, Any], *, at: Any, actor: str | None
) -> UsageRecord:
    read, written = count(usage.get("cacheReadTokens")), count(usage.get("cacheWriteTokens"))
    output, reasoning = count(usage.get("outputTokens")), usage.get("reasoningTokens")
    reasoning = None if reasoning is None else count(reasoning)
    if reasoning and str(model).startswith("gemini"):
        output += reasoning  # the one family whose output leaves it out
    return UsageRecord(
        key,
        input=max(0, count(usage.get("inputTokens")) - read - written),
        cache_creation=written,
        cache_read=read,
        output=output,
        reasoning=reasoning,
        model=text(model),
        at=at,
        actor=actor,
    )
