"""Codex's rollouts, versions 0.34 to 0.169: ``sessions/YYYY/MM/DD/rollout-….jsonl``.

Usage is a running total of the thread (``token_count``, and since 0.16x also
``token_usage_record`` with the response's id). Totals are written again and again; a call that was
interrupted is in the total alone; a resumed, forked or spawned thread may begin with a copy of
another thread's history, or with its total only. So: the differences of the total, by
`UsageCounter`, with copies recognised by the foreign ``session_meta`` that heads them. Checked
against recorded runs of 0.169 and files of 10 sessions from 0.39 to 0.140.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from heddle_registry.core.readings import UsageReadings
from heddle_registry.core.usage import (
    MAX_COUNT,
    UsageCounter,
    UsageRecord,
    count,
    instant_s,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource
    from heddle_registry.core.readings import Reading

BURST_S: Final = 1.0
"""A copied history is written in one go: its totals follow each other faster than any call."""
MAX_RUN: Final = 500
"""Readings answered at once."""
_THREAD: Final = re.compile(r"rollout-.*-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl$")
_OF_EXEC: Final = ("turn.completed", "thread.started")
_TURNS: Final = ("turn_context", "session_meta", "token_usage_record")
"""Not sets: a type that is no text has no hash."""
_NEEDLES: Final = (
    b'"token_count"',
    b'"token_usage_record"',
    b'"session_meta"',
    b'"turn_context"',
    b'_call"',
    b'"turn.completed"',
    b'"thread.started"',
)


class _Usage(NamedTuple):
    input_tokens: Any = 0
    cached_input_tokens: Any = 0
    cache_write_input_tokens: Any = 0
    output_tokens: Any = 0
    reasoning_output_tokens: Any = 0


class _Info(NamedTuple):
    total_token_usage: _Usage | None = None
    last_token_usage: _Usage | None = None


class _Payload(NamedTuple):
    type: Any = None
    info: _Info | None = None
    model: Any = None
    # of a `session_meta`
    id: Any = None
    timestamp: Any = None
    source: Any = None
    parent_thread_id: Any = None
    forked_from_id: Any = None
    history_base: Any = None
    # of a `token_usage_record`
    thread_id: Any = None
    response_id: Any = None
    thread_token_usage: _Usage | None = None
    usage: _Usage | None = None


class _Line(NamedTuple):
    timestamp: Any = None
    type: Any = None
    payload: _Payload | None = None
    # of `codex exec --json`
    thread_id: Any = None
    usage: _Usage | None = None


def records(source: TranscriptSource) -> Iterator[UsageRecord | UsageCounter | UsageReadings]:
    """Yield the readings of the thread's total, and how many tools were called."""
    memory = source.memory
    calls: dict[str, int] = memory.setdefault("calls", {})
    before, called = dict(calls), 0
    linked, told = _linked(memory), None
    run: list[Reading] = []
    for line in source.shapes(_Line, *_NEEDLES, at_once=True):
        kind, payload = line.type, line.payload
        if payload is None:
            if kind in _OF_EXEC:
                if run:
                    yield _run(source, run)
                run, told = [], None
                yield from _of_exec(source, line)
        elif kind == "response_item":
            if str(payload.type)[-5:] == "_call" and not (
                linked and _copied_item(memory, instant_s(line.timestamp))
            ):
                called += 1
        elif kind == "event_msg" and payload.type == "token_count":
            info = payload.info
            # Totals are told twice, and of a copied history each is looked at.
            if info is None or (total := info.total_token_usage) is None or total == told:
                continue
            last = info.last_token_usage
            if linked:
                yield from _reading(source, line, total, last)
                linked = _linked(memory)
                continue
            told = total
            run.append((line.timestamp, *_buckets(total), total == last))
            if len(run) == MAX_RUN:
                yield _run(source, run)
                run = []
        elif kind in _TURNS:
            if kind == "turn_context" and payload.model == memory.get("model"):
                continue
            # What was told so far is of the model and thread before.
            if run:
                yield _run(source, run)
                run = []
            _count(calls, memory, called)
            called = 0
            if kind == "turn_context":
                memory["model"] = text(payload.model) or memory.get("model")
            elif kind == "session_meta":
                _meta(source, payload, line)
            else:
                yield from _record(source, payload, line)
            linked, told = _linked(memory), None
    if run:
        yield _run(source, run)
    _count(calls, memory, called)
    for model, number in calls.items():
        if number != before.get(model):
            yield _calls(source, model, number)


def _of_exec(source: TranscriptSource, line: _Line) -> Iterator[UsageCounter]:
    if line.type == "turn.completed":
        yield from _reading(source, line, line.usage, None)
    else:
        source.memory["thread"] = line.thread_id
        source.declare(f"thread:{line.thread_id}")


def _calls(source: TranscriptSource, model: str, number: int) -> UsageRecord:
    # How many there are by now: in a longer copy of the file there are more, never other.
    key = f"{source.memory.get('thread') or source.path}:calls:{model}"
    return UsageRecord(key, tool_calls=number, requests=0, model=model or None)


def _linked(memory: dict[str, Any]) -> bool:
    return bool(memory.get("copied") or memory.get("forked"))


def _count(calls: dict[str, int], memory: dict[str, Any], called: int) -> None:
    if called:
        model = memory.get("model") or ""
        calls[model] = calls.get(model, 0) + called


def _meta(source: TranscriptSource, payload: _Payload, line: _Line) -> None:
    memory, thread = source.memory, text(payload.id)
    if memory.get("thread") is None:
        memory["thread"] = _own_thread(source, thread)
    elif thread is None:
        return  # it tells of nobody
    if memory["thread"] == thread:
        if "started_s" not in memory:
            memory["started_s"] = instant_s(payload.timestamp or line.timestamp)
            origin = payload.source
            spawn = origin.get("subagent") if isinstance(origin, dict) else None
            spawn = spawn.get("thread_spawn") if isinstance(spawn, dict) else None
            spawn = spawn if isinstance(spawn, dict) else {}
            parent = spawn.get("parent_thread_id") or payload.parent_thread_id
            source.declare(f"thread:{thread}", f"thread:{parent}" if parent else None)
            memory["forked"] = bool(parent or payload.forked_from_id or payload.history_base)
        memory["copied"] = False
    else:  # another thread's history follows; what comes first of it is a copy
        memory["copied"] = True
        memory["count_s"] = memory["item_s"] = 0.0


def _own_thread(source: TranscriptSource, first: Any) -> Any:
    """Return the file's own thread: that of its first meta line, unless it begins with a copy."""
    named = _THREAD.search(source.path)
    if named is None or named[1] == first:
        return first
    return named[1] if f'"{named[1]}"'.encode() in source.head(1 << 18) else first


def _run(source: TranscriptSource, run: list[Reading]) -> UsageReadings:
    memory = source.memory
    series = str(memory.get("thread") or "rollout")
    return UsageReadings(series, run, memory.get("model"), source.actor)


def _record(source: TranscriptSource, payload: _Payload, line: _Line) -> Iterator[UsageCounter]:
    foreign = payload.thread_id not in (None, source.memory.get("thread"))
    for reading in _reading(source, line, payload.thread_token_usage, payload.usage):
        yield reading._replace(id=text(payload.response_id), replayed=reading.replayed or foreign)


def _reading(
    source: TranscriptSource, line: _Line, total: _Usage | None, last: _Usage | None
) -> Iterator[UsageCounter]:
    if total is None:
        return
    memory = source.memory
    linked = _linked(memory)
    yield UsageCounter(
        str(memory.get("thread") or "rollout"),
        *_buckets(total),
        last=None if last is None else _buckets(last),
        forked=linked and bool(memory.get("forked")),
        replayed=linked and _copied_count(memory, instant_s(line.timestamp)),
        model=memory.get("model"),
        at=line.timestamp,
        actor=source.actor,
    )


def _buckets(usage: _Usage) -> tuple[int, int, int, int, int]:
    given, cached, written, output, reasoning = (
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_input_tokens,
        usage.output_tokens,
        usage.reasoning_output_tokens,
    )
    if not (
        given.__class__ is cached.__class__ is written.__class__ is int
        and output.__class__ is reasoning.__class__ is int
        and 0 <= given | cached | written | output | reasoning <= MAX_COUNT
    ):
        given, cached, written, output, reasoning = map(
            count, (given, cached, written, output, reasoning)
        )
    fresh = given - cached - written
    return max(0, fresh), written, cached, output, reasoning


def _copied_count(memory: dict[str, Any], at_s: float) -> bool:
    """Tell whether a total was copied from another thread's history."""
    if 0 < at_s < memory.get("started_s", 0.0) - BURST_S:
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
    if 0 < at_s < memory.get("started_s", 0.0) - BURST_S:
        return True
    if not memory.get("copied") or (memory["item_s"] and at_s - memory["item_s"] >= BURST_S):
        return False
    memory["item_s"] = at_s
    return True
