"""Claude Code's transcripts, versions 1.0 to 2.1: ``projects/<project>/<session>.jsonl``.

One response is several lines, one for each content block, with the same ``message.id`` and usage
that may grow. Sub-agents have files of their own (``agent-<id>.jsonl``) and in old versions lines
marked ``isSidechain`` inside the parent's. ``progress`` lines hold copies of a sub-agent's
messages, which matter only where its file is gone. Checked against recorded runs of 2.1.330 and
files of 18 sessions from 1.0.17 to 2.1.85.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from heddle_registry.core.usage import MAX_COUNT, UsageRecord, count, micros, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource

OPEN_RESPONSES: Final = 16
"""Responses whose lines may still come interleaved with others'."""
PLAUSIBLE_CHARS_PER_TOKEN: Final = 20
"""More visible text than this for a token of output means that the output is a placeholder."""
MIN_JUDGED_CHARS: Final = 200
_NOTHING: Final = (0, 0, 0, 0)
_OUTPUT: Final = 3
GENUINE_ID_CHARS: Final = 24
"""Anthropic's own message ids are at least this long; gateways make up shorter ones."""


class _Details(NamedTuple):
    thinking_tokens: Any = None


class _Creation(NamedTuple):
    ephemeral_1h_input_tokens: Any = 0
    ephemeral_5m_input_tokens: Any = 0


class _Turn(NamedTuple):
    type: Any = None
    model: Any = None
    input_tokens: Any = 0
    cache_creation_input_tokens: Any = 0
    cache_read_input_tokens: Any = 0
    output_tokens: Any = 0
    cache_creation: _Creation | None = None
    output_tokens_details: _Details | None = None
    speed: Any = None


class _Usage(NamedTuple):
    input_tokens: Any = 0
    cache_creation_input_tokens: Any = 0
    cache_read_input_tokens: Any = 0
    output_tokens: Any = 0
    cache_creation: _Creation | None = None
    output_tokens_details: _Details | None = None
    speed: Any = None
    iterations: list[_Turn] | None = None


class _Block(NamedTuple):
    type: Any = None
    id: Any = None
    text: Any = None
    thinking: Any = None
    input: Any = None


class _Message(NamedTuple):
    id: Any = None
    model: Any = None
    usage: _Usage | None = None
    content: list[_Block] | None = None


class _Entry(NamedTuple):
    type: Any = None
    message: _Message | None = None
    requestId: Any = None
    uuid: Any = None
    timestamp: Any = None
    costUSD: Any = None


class _Data(NamedTuple):
    agentId: Any = None
    message: _Entry | None = None


class _Line(NamedTuple):
    type: Any = None
    isSidechain: Any = None
    message: _Message | None = None
    requestId: Any = None
    uuid: Any = None
    timestamp: Any = None
    costUSD: Any = None
    agentId: Any = None
    sessionId: Any = None
    requestSessionId: Any = None
    forkedFrom: Any = None
    data: _Data | None = None


if TYPE_CHECKING:
    _Best = tuple[_Line, _Line | _Entry, _Message | _Turn, _Usage | _Turn, Any, Any]
    """Of the line with a response's largest numbers: line, entry, message, usage, agent, time."""


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each response, as far as its lines are there."""
    opened: dict[str, list[Any]] = source.memory.setdefault("open", {})
    response = request = agent = None
    told, key, numbers, seen = None, "", _NOTHING, _seen_of({}, "")
    best: _Best | None = None
    # Every usage has this key, and the longer a needle is, the faster it is found.
    for line in source.shapes(_Line, b'"output_tokens"'):
        kind, is_aside = line.type, line.isSidechain
        entry: _Line | _Entry | None = line
        if kind == "assistant":
            whose = line.agentId if is_aside else None
        elif kind == "progress":
            entry, whose = _of_agent(line)
        else:
            continue
        if entry is None or (message := entry.message) is None or (usage := message.usage) is None:
            continue
        this, asked = message.id, entry.requestId
        if this != response or asked != request or whose != agent or not this:
            if best is not None:
                yield _record(key, numbers, best, seen)
                best = None
            if message.model == "<synthetic>":
                response = None
                continue
            response, request, agent = this, asked, whose
            session = line.sessionId
            if session and (source.actor is None or agent or is_aside):
                _name(source, line, agent, session)
            key = _key(message, entry, session, source)
            seen = _seen_of(opened, key)
            told, numbers = usage, _numbers(usage)
            best = line, entry, message, usage, agent, entry.timestamp
        elif usage != told:
            grown = _numbers(usage)
            if (sum(grown), grown[_OUTPUT]) > (sum(numbers), numbers[_OUTPUT]):
                # The time stays that of the response's first line.
                told, numbers = usage, grown
                best = line, entry, message, usage, agent, best[-1] if best else None
        if message.content:
            _see(seen, message.content, usage.output_tokens, source.line_bytes)
        if usage.iterations:
            yield from _advisors(key, line, entry, usage.iterations, agent)
    if best is not None:
        yield _record(key, numbers, best, seen)
    _forget_old(opened)


def _seen_of(opened: dict[str, list[Any]], key: str) -> list[Any]:
    """Return what was seen of a response so far: its tool calls, and how much text."""
    seen = opened.pop(key) if key in opened else [[], 0]
    opened[key] = seen
    if len(opened) > 2 * OPEN_RESPONSES:
        _forget_old(opened)
    return seen


def _forget_old(opened: dict[str, list[Any]]) -> None:
    for old in list(opened)[:-OPEN_RESPONSES]:
        del opened[old]


def _advisors(
    key: str, line: _Line, entry: _Line | _Entry, turns: list[_Turn], agent: Any
) -> Iterator[UsageRecord]:
    """Yield what other models used for a response; the rest of ``turns`` is its own."""
    for index, extra in enumerate(turns):
        if extra.type == "advisor_message":
            numbers, at = _numbers(extra), entry.timestamp
            best = line, entry, extra, extra, agent, at
            yield _record(f"{key}:{index}", numbers, best, None)


def _numbers(usage: _Usage | _Turn) -> tuple[int, int, int, int]:
    fresh, creation, cached, output = (
        usage.input_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
        usage.output_tokens,
    )
    if (
        fresh.__class__ is creation.__class__ is cached.__class__ is output.__class__ is int
        and 0 <= fresh | creation | cached | output <= MAX_COUNT
    ):
        return fresh, creation, cached, output
    return count(fresh), count(creation), count(cached), count(output)


def _of_agent(line: _Line) -> tuple[_Entry | None, str | None]:
    """Return the copy of a sub-agent's answer that a progress line holds, and the agent's id."""
    data = line.data
    if data is None or data.message is None or data.message.type != "assistant":
        return None, None
    agent = text(data.agentId)
    return (data.message, agent) if agent else (None, None)


def _name(source: TranscriptSource, line: _Line, agent: Any, session: Any) -> None:
    file = source.path.rpartition("/")[2]
    if file.startswith("agent-"):
        source.declare(f"agent:{agent or file[6:].partition('.')[0]}", f"session:{session}")
        return
    if source.actor is None:
        source.declare(f"session:{session}")
    if agent:
        source.link(f"agent:{agent}", f"session:{session}")
    elif line.isSidechain:
        source.link(f"agent:sidechain-{session}", f"session:{session}")


def _key(message: _Message, entry: _Line | _Entry, session: Any, source: TranscriptSource) -> str:
    """Return the id of a response that is the same in every copy of its lines."""
    response = text(message.id)
    if not response:
        return f"{session}:{entry.uuid or source.line_at}"
    if len(response) >= GENUINE_ID_CHARS and response.startswith("msg_"):
        return response
    return f"{response}:{entry.requestId or session}"


def _record(
    key: str, numbers: tuple[int, int, int, int], best: _Best, seen: list[Any] | None
) -> UsageRecord:
    fresh, creation, cached, output = numbers
    line, entry, message, usage, agent, at = best
    parts, details, hour = usage.cache_creation, usage.output_tokens_details, 0
    if parts is not None:
        hour = count(parts.ephemeral_1h_input_tokens)
        creation = hour + count(parts.ephemeral_5m_input_tokens) or creation
    cost, model, session = entry.costUSD, text(message.model), line.sessionId
    replayed, first, sidechain = False, line.requestSessionId, line.isSidechain
    if first and session and first != session:
        replayed = True  # the history of another, in a fork
    if agent:
        actor: str | None = f"agent:{agent}"
    elif sidechain:
        actor = f"agent:sidechain-{session}"
    else:
        actor = f"session:{session}" if session else None
    if usage.speed == "fast" and model:
        model = f"{model}-fast"
    tools, chars = seen or ((), 0)
    # Half the time of the named tuple's own constructor.
    return tuple.__new__(
        UsageRecord,
        (
            key,
            fresh,
            creation,
            cached,
            output,
            None if details is None else count(details.thinking_tokens),
            len(tools),
            None if cost is None else micros(cost),
            model,
            at,
            actor,
            chars > MIN_JUDGED_CHARS and chars > PLAUSIBLE_CHARS_PER_TOKEN * output,
            replayed,
            0 if agent or sidechain or line.forkedFrom else 1,
            hour,
            1,
        ),
    )


def _see(seen: list[Any], content: list[_Block], output: Any, line_bytes: int) -> None:
    """Note a line's tool calls, and its visible text where the output looks too small for it."""
    judge = output.__class__ is not int or output * PLAUSIBLE_CHARS_PER_TOKEN < line_bytes
    for block in content:
        if block.type == "tool_use":
            tools, tool = seen[0], block.id
            if tool not in tools:
                tools.append(tool)
            if judge and (given := block.input).__class__ is dict:
                for value in given.values():
                    if value.__class__ is str:
                        seen[1] += len(value)
        elif judge:
            text = block.text or block.thinking
            if text.__class__ is str:
                seen[1] += len(text)
