"""OpenCode's store: ``opencode.db`` (since 1.2), ``storage/`` files before, and exports.

The same numbers stand on the message, on its ``step-finish`` part and summed on the session: only
messages are counted. Whether reasoning is inside output changed between versions and providers;
the stored ``total`` tells, and where there is none, output is a lower bound. Checked against
recorded runs of 1.18 and exports of 1.1.13, 1.1.34 and 1.2.27.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from heddle_registry.core.usage import UsageRecord, count, micros, text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource

WAL_MODE = 2
"""The 19th byte of a SQLite file in write-ahead mode."""
_SLACK_NS = 2_000_000_000


def records(source: TranscriptSource) -> Iterator[UsageRecord]:
    """Yield a record for each assistant message of the database, folder or file."""
    if source.is_folder:
        yield from _folder(source)
    elif source.head(16).startswith(b"SQLite format 3"):
        yield from _database(source)
    else:
        yield from _file(source)


def _record(message: dict[str, Any], key: str, session: Any, tools: int) -> UsageRecord | None:
    tokens = message.get("tokens")
    if message.get("role") != "assistant" or not isinstance(tokens, dict):
        return None
    cache = tokens.get("cache")
    cache = cache if isinstance(cache, dict) else {}
    fresh, output = count(tokens.get("input")), count(tokens.get("output"))
    read, written = count(cache.get("read")), count(cache.get("write"))
    reasoning, total = count(tokens.get("reasoning")), tokens.get("total")
    unsure = False
    if reasoning:
        inputs = {fresh, fresh + read, fresh + read + written}
        if isinstance(total, int) and total - output - reasoning in inputs:
            output += reasoning
        else:
            unsure = not isinstance(total, int) or total - output not in inputs
    return UsageRecord(
        key,
        input=fresh,
        cache_creation=written,
        cache_read=read,
        output=output,
        reasoning=reasoning,
        tool_calls=tools,
        cost_micros_usd=micros(message.get("cost")),  # 0 means a subscription, not free
        model=text(message.get("modelID")),
        at=_seconds(message),
        actor=f"session:{session}" if session else None,
        lower_bound=unsure,
        requests=1 if fresh + output + read + written else 0,
    )


def _seconds(message: dict[str, Any]) -> float | None:
    time = message.get("time")
    created = time.get("created") if isinstance(time, dict) else None
    return created / 1000 if isinstance(created, (int, float)) else None


# -- exports and single message files


def _file(source: TranscriptSource) -> Iterator[UsageRecord]:
    fields: dict[str, Any] = {}
    session = None
    for name, value in source.document("messages"):
        if name == "info" and isinstance(value, dict):
            session = value.get("id")
            parent = value.get("parentID")
            if session:
                source.declare(f"session:{session}", f"session:{parent}" if parent else None)
        elif name == "messages" and isinstance(value, dict):
            info, parts = value.get("info"), value.get("parts")
            if isinstance(info, dict):
                tools = sum(
                    isinstance(part, dict) and part.get("type") == "tool"
                    for part in (parts if isinstance(parts, list) else ())
                )
                key, owner = str(info.get("id")), info.get("sessionID") or session
                record = _record(info, key, owner, tools)
                if record is not None:
                    yield record
        elif name in {"id", "sessionID", "role", "tokens", "cost", "modelID", "time"}:
            fields[name] = value
    record = _record(fields, str(fields.get("id")), fields.get("sessionID"), 0)
    if record is not None:
        storage = os.path.dirname(os.path.dirname(os.path.dirname(source.path)))
        yield record._replace(tool_calls=_tool_files(storage, record.id))


# -- storage/message/<session>/<message>.json, storage/part/<message>/<part>.json


def _folder(source: TranscriptSource) -> Iterator[UsageRecord]:
    path = source.path
    if os.path.isdir(os.path.join(path, "storage")):
        path = os.path.join(path, "storage")
    if os.path.isdir(os.path.join(path, "message")):
        storage, messages = path, os.path.join(path, "message")
    elif os.path.basename(path) == "message":
        storage, messages = os.path.dirname(path), path
    else:
        storage, messages = os.path.dirname(os.path.dirname(path)), path
    _sessions(source, os.path.join(storage, "session"))
    known, newest = source.memory.get("newest_ns", 0), 0
    for folder, _, names in os.walk(messages):
        for name in names:
            if not name.endswith(".json"):
                continue
            file = os.path.join(folder, name)
            changed = os.stat(file).st_mtime_ns
            newest = max(newest, changed)
            message = _load(source, file) if changed >= known - _SLACK_NS else None
            if message is None:
                continue
            key = str(message.get("id") or name[:-5])
            record = _record(message, key, message.get("sessionID"), 0)
            if record is not None:
                yield record._replace(tool_calls=_tool_files(storage, key))
    source.memory["newest_ns"] = max(known, newest)


def _sessions(source: TranscriptSource, folder: str) -> None:
    for inner, _, names in os.walk(folder):
        for name in names:
            session = _load(source, os.path.join(inner, name)) if name.endswith(".json") else None
            if session and session.get("parentID"):
                source.link(f"session:{session.get('id')}", f"session:{session['parentID']}")


def _tool_files(storage: str, message: str) -> int:
    folder = os.path.join(storage, "part", message)
    try:
        names = os.listdir(folder)
    except OSError:
        return 0
    count = 0
    for name in names:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                count += json.load(file).get("type") == "tool"
        except (OSError, ValueError, AttributeError):
            continue
    return count


def _load(source: TranscriptSource, path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            value = json.load(file)
    except (OSError, ValueError) as error:
        source.fault("unparsable", f"{path}: {error}")
        return None
    return value if isinstance(value, dict) else None


# -- the database


def _database(source: TranscriptSource) -> Iterator[UsageRecord]:
    import sqlite3

    database = None
    try:
        database = _connect(source)
        columns = {row[1] for row in database.execute("PRAGMA table_info(message)")}
        known = source.memory.get("updated", 0)
        since = f" AND time_updated >= {int(known)}" if "time_updated" in columns else ""
        stamp = "time_updated" if since else "0"
        for session, parent in database.execute(
            "SELECT id, parent_id FROM session WHERE parent_id IS NOT NULL"
        ):
            source.link(f"session:{session}", f"session:{parent}")
        newest = known
        for key, session, text, updated in database.execute(
            f"SELECT id, session_id, data, {stamp} FROM message WHERE 1{since}"  # noqa: S608
        ):
            newest = max(newest, updated or 0)
            try:
                message = json.loads(text)
            except ValueError:
                source.fault("unparsable", f"message {key} is no JSON")
                continue
            record = _record(message, key, session, 0)
            if record is not None:
                (tools,) = database.execute(
                    "SELECT count(*) FROM part WHERE message_id = ? AND json_valid(data)"
                    " AND json_extract(data, '$.type') = 'tool'",
                    (key,),
                ).fetchone()
                yield record._replace(tool_calls=tools)
        source.memory["updated"] = newest
    except sqlite3.Error as error:
        raise OSError(0, f"the database cannot be read: {error}") from error
    finally:
        if database is not None:
            database.close()


def _connect(source: TranscriptSource) -> sqlite3.Connection:
    """Open the database so that nothing is written beside it."""
    import sqlite3
    from urllib.parse import quote

    path = source.path
    log = os.path.exists(path + "-wal") and os.path.getsize(path + "-wal") > 0
    # In write-ahead mode even a reader makes files; without a log nobody is writing.
    quiet = source.head(20)[18] == WAL_MODE and not log
    uri = f"file:{quote(path)}?mode=ro"
    database = sqlite3.connect(uri + ("&immutable=1" if quiet else ""), uri=True, timeout=10)
    try:
        database.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        database.close()
        if log:
            source.fault("stale", "its write-ahead log cannot be read here; newest messages lack")
        database = sqlite3.connect(uri + "&immutable=1", uri=True)
    except sqlite3.Error:
        database.close()
        raise
    return database
