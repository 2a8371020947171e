"""aider's ``.aider.chat.history.md``, and its analytics log where there is one.

The history has a line of rounded figures for each message (``2.6k sent``) and no ids at all: the
file is the actor. The log that ``--analytics-log`` asks for has the same messages exactly; where
the history names one that can be found and agrees, its figures are used. Both are what aider
*estimates* while it streams; requests for commit messages are in neither. Checked against a
recorded run of 0.86.2.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.usage import UsageRecord, count, micros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource

_COUNT: Final = r"([\d.]+[kKmM]?)"
_TOKENS: Final = re.compile(
    rf"> Tokens: {_COUNT} sent(?:, {_COUNT} cache write)?(?:, {_COUNT} cache hit)?"
    rf", {_COUNT} received\.(?: Cost: \$([\d.]+) message, \$([\d.]+) session\.)?"
)
_MODEL: Final = re.compile(r"> (?:Main )?[Mm]odel: (\S+)")
_LOG: Final = re.compile(r"--analytics-log[= ](\S+)")
_UNITS: Final = {"k": 1_000, "m": 1_000_000}
MAX_LOG_BYTES: Final = 64 << 20
MAX_NEIGHBOURS: Final = 64


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each message."""
    if source.head(64).lstrip().startswith(b"{"):
        for line in source.json_lines(b'"message_send"'):
            exact = _exact(line)
            if exact is not None:
                yield exact._replace(id=f"{source.path}:{source.line_at}")
        return
    memory = source.memory
    needles = (b"> Tokens: ", b"# aider chat started at ", b"odel: ", b"--analytics-log")
    exact_by_text: dict[str, list[UsageRecord]] | None = None
    for raw in source.lines(*needles):
        text = raw.decode("utf-8", "replace").strip()
        if text.startswith("# aider chat started at "):
            memory["at"] = text.removeprefix("# aider chat started at ").strip()
        elif text.startswith("> ") and (log := _LOG.search(text)):
            memory["log"], exact_by_text = log[1], None
        elif model := _MODEL.match(text):
            memory["model"] = model[1].rpartition("/")[2]
        elif found := _TOKENS.match(text):
            if exact_by_text is None:
                exact_by_text = _log(source.path, memory.get("log"))
            record = _rounded(found)
            if logged := exact_by_text.get(_signature(found)):
                record = logged.pop(0)
            yield record._replace(
                id=f"{source.path}:{source.line_at}",
                model=memory.get("model"),
                at=record.at or memory.get("at"),
            )


def _rounded(found: re.Match[str]) -> UsageRecord:
    sent, written, hit, received = (_number(found[group]) for group in range(1, 5))
    apart = written + hit <= sent
    return UsageRecord(
        "",
        input=sent - written - hit if apart else sent,
        cache_creation=written,
        cache_read=hit,
        output=received,
        cost_micros_usd=round(float(found[5]) * 1e6) if found[5] else None,
    )


def _number(text: str | None) -> int:
    if not text:
        return 0
    unit = _UNITS.get(text[-1].lower(), 1)
    return round(float(text.rstrip("kKmM")) * unit)


def _exact(line: dict[str, Any]) -> UsageRecord | None:
    properties = line.get("properties")
    if line.get("event") != "message_send" or not isinstance(properties, dict):
        return None
    cost = properties.get("cost")
    return UsageRecord(
        "",
        input=count(properties.get("prompt_tokens")),
        output=count(properties.get("completion_tokens")),
        reasoning=0,
        cost_micros_usd=micros(cost),
        model=str(properties.get("main_model")).rpartition("/")[2],
        at=line.get("time"),
    )


def _signature(found: re.Match[str]) -> str:
    return f"{_number(found[1])} {_number(found[4])}"


def _as_shown(count: int) -> int:
    """Round a count as aider shows it."""
    if count < 1_000:  # noqa: PLR2004
        return count
    if count < 10_000:  # noqa: PLR2004
        return _number(f"{count / 1000:.1f}k")
    return _number(f"{round(count / 1000)}k")


def _log(history: str, named: str | None) -> dict[str, list[UsageRecord]]:
    """Return the exact records of the log that a history names, by their rounded figures."""
    import json

    result: dict[str, list[UsageRecord]] = {}
    for path in _candidates(history, named) if named else ():
        try:
            if os.path.getsize(path) > MAX_LOG_BYTES:
                continue
            with open(path, "rb") as file:
                for line in file:
                    record = _exact(json.loads(line)) if b'"message_send"' in line else None
                    if record is not None:
                        shown = f"{_as_shown(record.input)} {_as_shown(record.output)}"
                        result.setdefault(shown, []).append(record)
        except (OSError, ValueError):
            continue
        break
    return result


def _candidates(history: str, named: str) -> Iterator[str]:
    """Yield where the log may lie: as named, and beside a repository that was moved with it."""
    folder, name = os.path.dirname(history), os.path.basename(named)
    yield os.path.join(folder, os.path.expanduser(named))
    yield os.path.join(folder, name)
    above = os.path.dirname(folder)
    try:
        neighbours = sorted(os.listdir(above))[:MAX_NEIGHBOURS]
    except OSError:
        return
    for neighbour in neighbours:
        yield os.path.join(above, neighbour, name)
