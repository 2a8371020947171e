"""Gemini CLI's chats, both formats: ``tmp/<project>/chats/session-….json`` and ``….jsonl``.

Until early 2026 one JSON document, rewritten as a whole; since then lines, where a message comes
again once its tools have run, and ``$set`` lines that patch. ``input`` holds the cached tokens,
``output`` not the thoughts. Messages that were rewound were paid for. Checked against recorded
runs of 0.61 and 5 older files of both formats.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.usage import UsageRecord, count, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource

_HEAD_BYTES: Final = 1 << 16


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each answer of the model."""
    if _is_document(source):
        for key, value in source.document("messages"):
            if key == "sessionId" and isinstance(value, str):
                _name(source, value, "")
            elif key == "kind":
                _name(source, "", str(value))
            elif key == "messages":
                yield from _message(source, value)
        return
    source.memory["lines"] = True
    for line in source.json_lines(b'"tokens"', b'"sessionId"'):
        if "sessionId" in line and "type" not in line:
            _name(source, str(line["sessionId"]), str(line.get("kind") or ""))
        patch = line.get("$set")
        messages = patch.get("messages") if isinstance(patch, dict) else [line]
        for message in messages if isinstance(messages, list) else ():
            yield from _message(source, message)


def _is_document(source: TranscriptSource) -> bool:
    if source.memory.get("lines"):
        return False
    import json

    head = source.head(_HEAD_BYTES)
    first, newline, _ = head.partition(b"\n")
    try:
        header = json.loads(first)
        return isinstance(header, dict) and "messages" in header
    except ValueError:
        # Not closed on its first line: printed over several lines, or one very long line. The
        # first line of the other format is short.
        return bool(newline) or len(head) == _HEAD_BYTES or b'"messages"' in head


def _name(source: TranscriptSource, session: str, kind: str) -> None:
    folder, file = os.path.split(source.path)
    session = session or str(source.memory.get("session"))
    source.memory["session"] = session
    if kind != "subagent":
        source.declare(f"session:{session}")
        return
    # Some versions write the parent's id into the child's file: the file's name is its own.
    parent, name = os.path.basename(folder), file.partition(".")[0]
    source.declare(f"agent:{name}", f"session:{parent if parent != 'chats' else session}")


def _message(source: TranscriptSource, message: Any) -> Iterator[UsageRecord]:
    tokens = message.get("tokens") if isinstance(message, dict) else None
    if not isinstance(tokens, dict) or message.get("type") != "gemini":
        return
    given, cached = count(tokens.get("input")), count(tokens.get("cached"))
    thoughts, tool = count(tokens.get("thoughts")), count(tokens.get("tool"))
    spoken, total = count(tokens.get("output")), tokens.get("total")
    apart = given + cached + spoken + thoughts == total and cached > 0
    fresh = given if apart else max(0, given - cached)
    if tool and total != given + spoken + thoughts:
        fresh += tool
    calls = message.get("toolCalls")
    yield UsageRecord(
        id=str(message.get("id") or f"{source.path}:{message.get('timestamp')}"),
        input=fresh,
        cache_read=cached,
        output=spoken + thoughts,
        reasoning=thoughts,
        tool_calls=len(calls) if isinstance(calls, list) else 0,
        model=text(message.get("model")),
        at=message.get("timestamp"),
    )
