"""Claude Code's transcripts, versions 1.0 to 2.1: ``projects/<project>/<session>.jsonl``.

One response is several lines, one for each content block, with the same ``message.id`` and usage
that may grow. Sub-agents have files of their own (``agent-<id>.jsonl``) and in old versions lines
marked ``isSidechain`` inside the parent's. ``progress`` lines hold copies of a sub-agent's
messages, which matter only where its file is gone. Checked against recorded runs of 2.1.330 and
files of 18 sessions from 1.0.17 to 2.1.85.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.usage import UsageRecord, count, micros, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource

OPEN_RESPONSES: Final = 16
"""Responses whose lines may still come interleaved with others'."""
PLAUSIBLE_CHARS_PER_TOKEN: Final = 20
"""More visible text than this for a token of output means that the output is a placeholder."""
MIN_JUDGED_CHARS: Final = 200
GENUINE_ID_CHARS: Final = 24
"""Anthropic's own message ids are at least this long; gateways make up shorter ones."""


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each response, as far as its lines are there."""
    opened: dict[str, list[Any]] = source.memory.setdefault("open", {})
    last: tuple[Any, ...] | None = None
    key, best, size, seen = "", None, None, []
    # Every usage has this key, and the longer a needle is, the faster it is found.
    for line in source.json_lines(b'"output_tokens"'):
        kind = line.get("type")
        entry: Any = line
        if kind == "assistant":
            agent = line.get("agentId") if line.get("isSidechain") else None
        elif kind == "progress":
            entry, agent = _of_agent(line)
            if entry is None:
                continue
        else:
            continue
        message = entry.get("message")
        usage = message.get("usage") if isinstance(message, dict) else None
        if not isinstance(usage, dict):
            continue
        response = message.get("id")
        this = (response, entry.get("requestId"), agent)
        if this != last or not response:
            if best is not None:
                yield _record(key, *best, seen)
            best = None
            if message.get("model") == "<synthetic>":
                last = None
                continue
            last = this
            session = line.get("sessionId")
            _name(source, line, agent, session)
            key = _key(message, entry, session, source.line_at)
            seen = opened.pop(key, [[], 0])
            opened[key] = seen
            if len(opened) > 2 * OPEN_RESPONSES:
                for old in list(opened)[:-OPEN_RESPONSES]:
                    del opened[old]
        _see(seen, message.get("content"), usage, source.line_bytes)
        if best is None:
            best, size = (line, entry, message, usage, agent, entry.get("timestamp")), None
        elif usage != best[3]:
            size = size or _size(best[3])
            if (grown := _size(usage)) > size:
                # The time stays that of the response's first line.
                best, size = (line, entry, message, usage, agent, best[5]), grown
        if isinstance(usage.get("iterations"), list):
            for index, extra in enumerate(usage["iterations"]):
                if isinstance(extra, dict) and extra.get("type") == "advisor_message":
                    at = entry.get("timestamp")
                    yield _record(f"{key}:{index}", line, entry, extra, extra, agent, at, None)
    if best is not None:
        yield _record(key, *best, seen)
    for old in list(opened)[:-OPEN_RESPONSES]:
        del opened[old]


def _of_agent(line: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """Return the copy of a sub-agent's answer that a progress line holds, and the agent's id."""
    data = line.get("data")
    entry = data.get("message") if isinstance(data, dict) else None
    if not isinstance(entry, dict) or entry.get("type") != "assistant":
        return None, None
    agent = text(data.get("agentId")) if isinstance(data, dict) else None
    return (entry, agent) if agent else (None, None)


def _size(usage: dict[str, Any]) -> tuple[int, int]:
    output = count(usage.get("output_tokens"))
    fresh, cached = usage.get("input_tokens"), usage.get("cache_read_input_tokens")
    written = count(usage.get("cache_creation_input_tokens"))
    return count(fresh) + count(cached) + written + output, output


def _name(
    source: TranscriptSource, line: dict[str, Any], agent: str | None, session: str | None
) -> None:
    if not session or (source.actor is not None and not line.get("isSidechain") and not agent):
        return
    file = source.path.rpartition("/")[2]
    if file.startswith("agent-"):
        source.declare(f"agent:{agent or file[6:].partition('.')[0]}", f"session:{session}")
        return
    if source.actor is None:
        source.declare(f"session:{session}")
    if agent:
        source.link(f"agent:{agent}", f"session:{session}")
    elif line.get("isSidechain"):
        source.link(f"agent:sidechain-{session}", f"session:{session}")


def _key(message: dict[str, Any], entry: dict[str, Any], session: Any, offset: int) -> str:
    """Return the id of a response that is the same in every copy of its lines."""
    response = text(message.get("id"))
    if not response:
        return f"{session}:{entry.get('uuid') or offset}"
    if len(response) >= GENUINE_ID_CHARS and response.startswith("msg_"):
        return response
    return f"{response}:{entry.get('requestId') or session}"


def _record(
    key: str,
    line: dict[str, Any],
    entry: dict[str, Any],
    message: dict[str, Any],
    usage: dict[str, Any],
    agent: str | None,
    at: Any,
    seen: list[Any] | None,
) -> UsageRecord:
    creation = count(usage.get("cache_creation_input_tokens"))
    parts, hour = usage.get("cache_creation"), 0
    if isinstance(parts, dict):
        hour = count(parts.get("ephemeral_1h_input_tokens"))
        creation = hour + count(parts.get("ephemeral_5m_input_tokens")) or creation
    output = count(usage.get("output_tokens"))
    details, cost, model = (
        usage.get("output_tokens_details"),
        entry.get("costUSD"),
        text(message.get("model")),
    )
    session, first = line.get("sessionId"), line.get("requestSessionId")
    replayed = bool(first and session and first != session)  # the history of another, in a fork
    sidechain = line.get("isSidechain")
    if agent:
        actor: str | None = f"agent:{agent}"
    elif sidechain:
        actor = f"agent:sidechain-{session}"
    else:
        actor = f"session:{session}" if session else None
    tools, chars = seen or ((), 0)
    return UsageRecord(
        key,
        count(usage.get("input_tokens")),
        creation,
        count(usage.get("cache_read_input_tokens")),
        output,
        count(details.get("thinking_tokens")) if isinstance(details, dict) else None,
        len(tools),
        micros(cost),
        f"{model}-fast" if model and usage.get("speed") == "fast" else model,
        at,
        actor,
        chars > MIN_JUDGED_CHARS and chars > PLAUSIBLE_CHARS_PER_TOKEN * output,
        replayed,
        0 if agent or sidechain or line.get("forkedFrom") else 1,
        hour,
    )


def _see(seen: list[Any], content: Any, usage: dict[str, Any], line_bytes: int) -> None:
    """Note a line's tool calls, and its visible text where the output looks too small for it."""
    if not isinstance(content, list):
        return
    output = usage.get("output_tokens")
    judge = not isinstance(output, int) or output * PLAUSIBLE_CHARS_PER_TOKEN < line_bytes
    for block in content:
        if not isinstance(block, dict):
            continue
        if block.get("type") == "tool_use":
            tool = block.get("id")
            if tool not in seen[0]:
                seen[0].append(tool)
            if judge and isinstance(given := block.get("input"), dict):
                for value in given.values():
                    if isinstance(value, str):
                        seen[1] += len(value)
        elif judge:
            text = block.get("text") or block.get("thinking")
            if isinstance(text, str):
                seen[1] += len(text)
