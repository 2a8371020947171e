"""Gemini CLI's chats, both formats: ``tmp/<project>/chats/session-….json`` and ``….jsonl``.

Until early 2026 one JSON document, rewritten as a whole; since then lines, where a message comes
again once its tools have run, and ``$set`` lines that patch. ``input`` holds the cached tokens,
``output`` not the thoughts. Messages that were rewound were paid for. Checked against recorded
runs of 0.61 and 5 older files of both formats.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from heddle_registry.adapters.shapes import keyed
from heddle_registry.core.usage import UsageRecord, count, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource

_HEAD_BYTES: Final = 1 << 16


class _Tokens(NamedTuple):
    input: Any = 0
    output: Any = 0
    cached: Any = 0
    thoughts: Any = 0
    tool: Any = 0
    total: Any = None


class _Call(NamedTuple):
    id: Any = None


class _Message(NamedTuple):
    id: Any = None
    timestamp: Any = None
    type: Any = None
    tokens: _Tokens | None = None
    model: Any = None
    toolCalls: list[_Call] | None = None


class _Chat(NamedTuple):
    sessionId: Any = None
    kind: Any = None
    messages: list[_Message] | None = None


@keyed(patch="$set")
class _Line(NamedTuple):
    id: Any = None
    timestamp: Any = None
    type: Any = None
    tokens: _Tokens | None = None
    model: Any = None
    toolCalls: list[_Call] | None = None
    sessionId: Any = None
    kind: Any = None
    patch: _Chat | None = None


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each answer of the model."""
    if _is_document(source):
        for name, value in source.shaped_document(_Chat):
            if name == "sessionId" and isinstance(value, str):
                _name(source, value, "")
            elif name == "kind":
                _name(source, "", str(value))
            elif name == "messages":
                yield from _message(source, value)
        return
    for line in source.shapes(_Line, b'"tokens"', b'"sessionId"', at_once=True):
        source.memory["lines"] = True
        if line.sessionId and line.type is None:
            _name(source, str(line.sessionId), str(line.kind or ""))
        for message in (line.patch.messages or ()) if line.patch is not None else (line,):
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


def _message(source: TranscriptSource, message: _Message | _Line) -> Iterator[UsageRecord]:
    tokens = message.tokens
    if tokens is None or message.type != "gemini":
        return
    given, cached = count(tokens.input), count(tokens.cached)
    thoughts, tool = count(tokens.thoughts), count(tokens.tool)
    spoken, total = count(tokens.output), tokens.total
    apart = given + cached + spoken + thoughts == total and cached > 0
    fresh = given if apart else max(0, given - cached)
    if tool and total != given + spoken + thoughts:
        fresh += tool
    yield UsageRecord(
        id=str(message.id or f"{source.path}:{message.timestamp}"),
        input=fresh,
        cache_read=cached,
        output=spoken + thoughts,
        reasoning=thoughts,
        tool_calls=len(message.toolCalls or ()),
        model=text(message.model),
        at=message.timestamp,
    )
