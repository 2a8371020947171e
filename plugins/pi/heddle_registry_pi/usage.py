"""pi's sessions: ``sessions/<project>/<time>_<id>.jsonl``.

Each assistant message has its own usage with a cost. The branches of a conversation lie in one
file and all were paid for. A session that was branched off into a new file holds copies of the
older messages, with their ids and times. Checked against 2 recorded sessions of format 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from heddle_registry.core.usage import UsageRecord, count, micros, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource


class _Cost(NamedTuple):
    total: Any = None


class _Usage(NamedTuple):
    input: Any = 0
    cacheWrite: Any = 0
    cacheRead: Any = 0
    output: Any = 0
    cost: _Cost | None = None


class _Block(NamedTuple):
    type: Any = None


class _Message(NamedTuple):
    role: Any = None
    model: Any = None
    timestamp: Any = None
    usage: _Usage | None = None
    content: list[_Block] | None = None


class _Line(NamedTuple):
    type: Any = None
    id: Any = None
    timestamp: Any = None
    message: _Message | None = None


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each assistant message."""
    for line in source.shapes(_Line, b'"usage"', b'"session"', at_once=True):
        message = line.message
        if line.type == "session" and line.id:
            source.declare(f"session:{line.id}")
        if line.type != "message" or message is None:
            continue
        usage = message.usage
        if message.role != "assistant" or usage is None:
            continue
        at = line.timestamp or message.timestamp
        if not at:
            source.memory["untimed"] = source.memory.get("untimed", 0) + 1
        yield UsageRecord(
            # The ids have 8 digits: with their time they are unique, and the same in a copy.
            id=f"{line.id or source.actor}:{at or source.memory['untimed']}",
            input=count(usage.input),
            cache_creation=count(usage.cacheWrite),
            cache_read=count(usage.cacheRead),
            output=count(usage.output),
            tool_calls=sum(block.type == "toolCall" for block in message.content or ()),
            cost_micros_usd=None if usage.cost is None else micros(usage.cost.total),
            model=text(message.model),
            at=at,
        )
