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
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.readings import UsageReadings
from heddle_registry.core.usage import UsageCounter, UsageRecord, count, instant_s, text

from .totals import NONE_YET, TYPE_AT, ends, readings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource
    from heddle_registry.core.readings import Reading

BURST_S: Final = 1.0
"""A copied history is written in one go: its totals follow each other faster than any call."""
_HEAD: Final = re.compile(
    rb'\{"timestamp":"20[^"\\]*",(?:"ordinal":\d+,)?"type":"'
    rb'(?:response_item","payload":\{"type":"(?:(\w+_call)"|\w+")'
    rb'|event_msg","payload":\{"type":"(?:(token_count)"|\w+")'
    rb'|(turn_context)","payload":\{|(session_meta|token_usage_record)","payload":\{'
    rb'|(?!response_item|event_msg)\w+","payload":\{)'
)
"""How Codex itself begins a line: of most lines this tells that they matter not."""
_MARK: Final = b'{"timestamp":"20'
_KIND: Final = (TYPE_AT, 73, 104)
"""Where in a line the types stand."""
_ODD, _CALL, _COUNT, _CONTEXT, _OTHER = range(5)
_STOP: Final = re.compile(b"[%b]" % bytes([_ODD, _CONTEXT, _OTHER]))
_THREAD: Final = re.compile(r"rollout-.*-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl$")
_CONTEXT_AT: Final = b'"cwd"'
_NEEDLES: Final = (
    b'"token_count"',
    b'"token_usage_record"',
    b'"session_meta"',
    b'"turn_context"',
    b'_call"',
    b'"turn.completed"',
    b'"thread.started"',
)


def records(source: TranscriptSource) -> Iterator[UsageRecord | UsageCounter | UsageReadings]:
    """Yield the readings of the thread's total, and how many tools were called."""
    memory = source.memory
    calls: dict[str, int] = memory.setdefault("calls", {})
    before = dict(calls)
    linked, told, last_context = _linked(memory), NONE_YET, NONE_YET
    for lines, kinds in source.lines_by_head(_HEAD, _MARK, _KIND):
        begin, end = 0, len(lines)
        for place in [*(found.start() for found in _STOP.finditer(kinds)), end]:
            line, kind = (lines[place], kinds[place]) if place < end else (b"", _ODD)
            # Nearly always the same again, under the id of another turn.
            if kind == _CONTEXT and line.endswith(last_context):
                continue
            if kind == _ODD and place < end and not any(needle in line for needle in _NEEDLES):
                continue
            quick = None if linked else _quick(source, lines[begin:place], kinds[begin:place], told)
            if quick is None:
                to_parse = [at for at in range(begin, place) if _ODD < kinds[at] <= _OTHER]
            else:
                to_parse, (readings, called, told) = [], quick
                if readings:
                    yield _run(source, readings)
                _count(calls, memory, called)
            if place < end:
                to_parse.append(place)
                last_context = NONE_YET
                if kind == _CONTEXT and _CONTEXT_AT in line:
                    last_context = line[line.find(_CONTEXT_AT) :]
            for at in to_parse:
                for found in source.objects(lines[at]):
                    yield from _of_line(source, found, calls)
                linked, told = _linked(memory), NONE_YET
            begin = place + 1
    for model, number in calls.items():
        if number != before.get(model):
            # How many there are by now: in a longer copy of the file there are more, never other.
            key = f"{memory.get('thread') or source.path}:calls:{model}"
            yield UsageRecord(key, tool_calls=number, requests=0, model=model or None)


def _quick(
    source: TranscriptSource, lines: list[bytes], kinds: bytes, told: bytes
) -> tuple[list[Reading], int, bytes] | None:
    """Return what lines say without parsing them, and the last total; None where they must be."""
    calls = source.lines_of_kind(_CALL, lines, kinds)
    if not all(map(ends, calls)):
        return None
    counts = source.lines_of_kind(_COUNT, lines, kinds)
    found = readings_of(counts, told, source.parse)
    return None if found is None else (found[0], len(calls), found[1])


def _of_line(
    source: TranscriptSource, line: dict[str, Any], calls: dict[str, int]
) -> Iterator[UsageCounter]:
    memory, payload, name = source.memory, line.get("payload"), line.get("type")
    if name == "turn.completed":
        yield from _reading(source, line, line.get("usage"), None)
    elif name == "thread.started":  # `codex exec --json`
        memory["thread"] = line.get("thread_id")
        source.declare(f"thread:{memory['thread']}")
    elif not isinstance(payload, dict):
        return
    elif name == "event_msg":
        info = payload.get("info")
        if isinstance(info, dict):
            yield from _reading(
                source, line, info.get("total_token_usage"), info.get("last_token_usage")
            )
    elif name == "token_usage_record":
        total, foreign = payload.get("thread_token_usage"), payload.get("thread_id")
        for reading in _reading(source, line, total, payload.get("usage")):
            yield reading._replace(
                id=text(payload.get("response_id")),
                replayed=reading.replayed or foreign not in (None, memory.get("thread")),
            )
    elif name == "response_item":
        is_call = str(payload.get("type", "")).endswith("_call")
        if is_call and not (
            _linked(memory) and _copied_item(memory, instant_s(line.get("timestamp")))
        ):
            _count(calls, memory, 1)
    elif name == "turn_context":
        memory["model"] = text(payload.get("model")) or memory.get("model")
    elif name == "session_meta":
        _meta(source, payload, line)


def _linked(memory: dict[str, Any]) -> bool:
    return bool(memory.get("copied") or memory.get("forked"))


def _count(calls: dict[str, int], memory: dict[str, Any], called: int) -> None:
    if called:
        model = memory.get("model") or ""
        calls[model] = calls.get(model, 0) + called


def _meta(source: TranscriptSource, payload: dict[str, Any], line: dict[str, Any]) -> None:
    memory, thread = source.memory, text(payload.get("id"))
    if memory.get("thread") is None:
        memory["thread"] = _own_thread(source, thread)
    if memory["thread"] == thread:
        if "started_s" not in memory:
            memory["started_s"] = instant_s(payload.get("timestamp") or line.get("timestamp"))
            origin = payload.get("source")
            spawn = origin.get("subagent") if isinstance(origin, dict) else None
            spawn = spawn.get("thread_spawn") if isinstance(spawn, dict) else None
            parent = (spawn if isinstance(spawn, dict) else {}).get(
                "parent_thread_id"
            ) or payload.get("parent_thread_id")
            source.declare(f"thread:{thread}", f"thread:{parent}" if parent else None)
            memory["forked"] = bool(
                parent or payload.get("forked_from_id") or payload.get("history_base")
            )
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


def _reading(
    source: TranscriptSource, line: dict[str, Any], total: Any, last: Any
) -> Iterator[UsageCounter]:
    if not isinstance(total, dict):
        return
    memory = source.memory
    linked = _linked(memory)
    fresh, written, cached, output, reasoning = _buckets(total)
    yield UsageCounter(
        str(memory.get("thread") or "rollout"),
        fresh,
        written,
        cached,
        output,
        reasoning,
        last=_buckets(last) if isinstance(last, dict) else None,
        forked=linked and bool(memory.get("forked")),
        replayed=linked and _copied_count(memory, instant_s(line.get("timestamp"))),
        model=memory.get("model"),
        at=line.get("timestamp"),
        actor=source.actor,
    )


def _buckets(usage: dict[str, Any]) -> tuple[int, int, int, int, int]:
    cached = count(usage.get("cached_input_tokens"))
    written = count(usage.get("cache_write_input_tokens"))
    return (
        max(0, count(usage.get("input_tokens")) - cached - written),
        written,
        cached,
        count(usage.get("output_tokens")),
        count(usage.get("reasoning_output_tokens")),
    )


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
