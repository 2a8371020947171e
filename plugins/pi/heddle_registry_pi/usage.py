"""pi's sessions: ``sessions/<project>/<time>_<id>.jsonl``.

Each assistant message has its own usage with a cost. The branches of a conversation lie in one
file and all were paid for. A session that was branched off into a new file holds copies of the
older messages, with their ids and times. Checked against 2 recorded sessions of format 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heddle_registry.core.usage import UsageRecord, count, micros, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each assistant message."""
    for line in source.json_lines(b'"usage"', b'"session"'):
        message = line.get("message")
        if line.get("type") == "session" and line.get("id"):
            source.declare(f"session:{line['id']}")
        if line.get("type") != "message" or not isinstance(message, dict):
            continue
        usage = message.get("usage")
        if message.get("role") != "assistant" or not isinstance(usage, dict):
            continue
        at = line.get("timestamp") or message.get("timestamp")
        cost = usage.get("cost")
        usd = cost.get("total") if isinstance(cost, dict) else None
        content = message.get("content")
        yield UsageRecord(
            # The ids have 8 digits: with their time they are unique, and the same in a copy.
            id=f"{line.get('id') or source.actor}:{at or source.line_at}",
            input=count(usage.get("input")),
            cache_creation=count(usage.get("cacheWrite")),
            cache_read=count(usage.get("cacheRead")),
            output=count(usage.get("output")),
            tool_calls=sum(
                isinstance(block, dict) and block.get("type") == "toolCall"
                for block in (content if isinstance(content, list) else ())
            ),
            cost_micros_usd=micros(usd),
            model=text(message.get("model")),
            at=at,
        )
