"""Copilot CLI's sessions: ``session-state/<session>/events.jsonl``.

Since 1.0.10x each model call is an event of its own (``session.usage_record``). Before, only the
end of a process told its usage, by model (``session.shutdown``; several in a file are several
processes); until then, and where a process was killed, the output of its messages is a lower
bound. Parent and sub-agents share a file. Checked against a recorded run of 1.0.102 and files of
1.0.20 and 1.0.34.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from heddle_registry.adapters.shapes import shaped
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

_NEEDLES: Final = (b'"session.', b'"assistant.message"', b'"tool.execution_start"')


class _Usage(NamedTuple):
    inputTokens: Any = 0
    cacheReadTokens: Any = 0
    cacheWriteTokens: Any = 0
    outputTokens: Any = 0
    reasoningTokens: Any = None
    # of a call that is told apart
    agentId: Any = None
    apiCallId: Any = None
    model: Any = None


class _Data(NamedTuple):
    sessionId: Any = None
    agentId: Any = None
    toolCallId: Any = None
    model: Any = None
    outputTokens: Any = 0
    usage: _Usage | None = None
    modelMetrics: Any = None


class _Event(NamedTuple):
    type: Any = None
    id: Any = None
    timestamp: Any = None
    agentId: Any = None
    data: _Data | None = None


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield calls where they are told, else what a process told at its end, else live output."""
    memory = source.memory
    for event in source.shapes(_Event, *_NEEDLES, at_once=True):
        kind, data, at = event.type, event.data, event.timestamp
        if kind not in _KINDS or data is None:
            continue
        if "session" not in memory:
            session = data.sessionId or os.path.basename(os.path.dirname(source.path))
            memory.update(session=session, process=0, told=False, live={})
            source.declare(f"session:{session}")
        elif kind in {"session.start", "session.resume"} and (memory["live"] or memory["told"]):
            # The process before was killed: what it told until then stands.
            memory.update(process=memory["process"] + 1, told=False, live={})
        agent = event.agentId or data.agentId
        actor = f"agent:{agent}" if agent else f"session:{memory['session']}"
        if agent:
            source.link(actor, f"session:{memory['session']}")
        if kind == "tool.execution_start":
            call = data.toolCallId or event.id or _unnamed(memory)
            key = f"{memory['session']}:{call}"
            yield UsageRecord(key, tool_calls=1, requests=0, at=at, actor=actor)
        elif kind == "session.usage_record":
            usage = data.usage
            if usage is not None:
                yield from _no_live(memory)
                memory["told"] = True
                agent = agent or usage.agentId
                call = usage.apiCallId or event.id
                yield _call(
                    f"{memory['session']}:{call}",
                    usage.model,
                    usage,
                    at=at,
                    actor=f"agent:{agent}" if agent else actor,
                )
        elif kind == "assistant.message":
            output = count(data.outputTokens)
            if output and not memory["told"]:
                live = memory["live"][actor] = memory["live"].get(actor, 0) + output
                yield UsageRecord(
                    f"{memory['session']}:{memory['process']}:live:{actor}",
                    output=live,
                    model=text(data.model),
                    at=at,
                    actor=actor,
                    lower_bound=True,
                )
        elif kind == "session.shutdown":
            yield from _no_live(memory)
            if not memory["told"]:
                yield from _shutdown(data, event, at)
            memory.update(process=memory["process"] + 1, told=False)


def _unnamed(memory: dict[str, Any]) -> int:
    memory["unnamed"] = memory.get("unnamed", 0) + 1
    return int(memory["unnamed"])


def _no_live(memory: dict[str, Any]) -> Iterator[UsageRecord]:
    # The exact figures replace the live ones: an empty record that outweighs them.
    for actor in memory["live"]:
        key = f"{memory['session']}:{memory['process']}:live:{actor}"
        yield UsageRecord(key, requests=0, actor=actor, weight=1)
    memory["live"] = {}


def _shutdown(data: _Data, event: _Event, at: Any) -> Iterator[UsageRecord]:
    metrics = data.modelMetrics
    for model, metric in (metrics if isinstance(metrics, dict) else {}).items():
        usage = metric.get("usage") if isinstance(metric, dict) else None
        if isinstance(usage, dict):
            asked = metric.get("requests")
            told = shaped(_Usage, usage)
            record = _call(f"{event.id}:{model}", model, told, at=at, actor=None)
            asked = asked.get("count") if isinstance(asked, dict) else None
            yield record._replace(requests=count(asked) or 1)


def _call(key: str, model: Any, usage: _Usage, *, at: Any, actor: str | None) -> UsageRecord:
    read, written = count(usage.cacheReadTokens), count(usage.cacheWriteTokens)
    output, reasoning = count(usage.outputTokens), usage.reasoningTokens
    reasoning = None if reasoning is None else count(reasoning)
    if reasoning and str(model).startswith("gemini"):
        output += reasoning  # the one family whose output leaves it out
    return UsageRecord(
        key,
        input=max(0, count(usage.inputTokens) - read - written),
        cache_creation=written,
        cache_read=read,
        output=output,
        reasoning=reasoning,
        model=text(model),
        at=at,
        actor=actor,
    )
