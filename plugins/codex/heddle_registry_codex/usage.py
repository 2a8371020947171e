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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource
    from heddle_registry.core.readings import Reading

BURST_S: Final = 1.0
"""A copied history is written in one go: its totals follow each other faster than any call."""
_HEAD: Final = re.compile(
    rb'\{"timestamp":"[^"\\]*",(?:"ordinal":\d+,)?"type":"'
    rb'(?:response_item","payload":\{"type":"(?:(\w+_call)"|\w+")'
    rb'|event_msg","payload":\{"type":"(?:(token_count)"|\w+")'
    rb'|(turn_context)","payload":\{|(session_meta|token_usage_record)","payload":\{'
    rb'|(?!response_item|event_msg)\w+","payload":\{)'
)
"""How Codex itself begins a line: of most lines this tells that they matter not."""
_MARK: Final = b'{"timestamp":"'
_AT: Final = len(_MARK)
_KIND: Final = (38, 73, 104)
"""Where in a line the types stand, if its time is written to the millisecond, as it always was."""
_CALL, _COUNT, _CONTEXT, _OTHER = range(1, 5)
_THREAD: Final = re.compile(r"rollout-.*-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl$")
_COUNTED: Final = rb"(0|[1-9][0-9]{0,12})"
_TOLD: Final = re.compile(
    rb'"info":\{"total_token_usage":\{"input_tokens":%b,"cached_input_tokens":%b,'
    rb'(?:"cache_write_input_tokens":%b,)?"output_tokens":%b,"reasoning_output_tokens":%b,'
    rb'"total_tokens":[0-9]+\},"last_token_usage":' % (5 * (_COUNTED,))
)
"""A total as Codex itself writes it."""
_BEFORE, _BEHIND = len(b'"info":{"total_token_usage":'), -len(b',"last_token_usage":')
_CONTEXT_AT: Final = b'"cwd"'
_NONE: Final = b"\n"
"""No line holds it."""
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
    linked, called, last_total, total_at, last_context = _linked(memory), 0, _NONE, 0, _NONE
    run: list[Reading] = []
    for lines in source.lines_by_head(_HEAD, _MARK, _KIND):
        for kind, raw in lines:
            if raw.rfind(_MARK):
                pass  # something is glued to it
            elif kind == _CONTEXT:
                # Nearly always the same again, under the id of another turn.
                if raw.endswith(last_context):
                    continue
                last_context = raw[raw.find(_CONTEXT_AT) :] if _CONTEXT_AT in raw else _NONE
            elif linked or not raw.endswith(b"}}"):
                pass
            elif kind == _CALL:
                called += 1
                continue
            elif kind == _COUNT:
                # Half of the totals are written twice, in the very same letters.
                if raw.startswith(last_total, total_at):
                    continue
                if (told := _TOLD.search(raw)) is not None:
                    total_at, end = told.span()
                    last_total = raw[total_at:end]
                    run.append(_reading_of(raw, told, last_total[_BEFORE:_BEHIND]))
                    continue
            if kind < _CALL and not any(needle in raw for needle in _NEEDLES):
                continue
            if run:
                yield _run(source, run)
                run = []
            _count(calls, memory, called)
            called = 0
            for line in source.objects(raw):
                yield from _of_line(source, line, calls)
            linked, last_total = _linked(memory), _NONE
            if kind != _CONTEXT:
                last_context = _NONE
        if run:
            yield _run(source, run)
            run = []
    _count(calls, memory, called)
    for model, number in calls.items():
        if number != before.get(model):
            # How many there are by now: in a longer copy of the file there are more, never other.
            key = f"{memory.get('thread') or source.path}:calls:{model}"
            yield UsageRecord(key, tool_calls=number, requests=0, model=model or None)


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
        if is_call and not _copied_item(memory, instant_s(line.get("timestamp"))):
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


def _reading_of(raw: bytes, told: re.Match[bytes], total: bytes) -> Reading:
    """Return what a line says that Codex itself wrote, without parsing it."""
    given, held, new, output, thought = map(int, told.groups(b"0"))
    return (
        raw[_AT : raw.find(b'"', _AT)].decode("utf-8", "replace"),
        max(0, given - held - new),
        new,
        held,
        output,
        thought,
        # What the last call used comes next. If it is all, it was the first.
        raw.startswith(total, told.end()),
    )


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
