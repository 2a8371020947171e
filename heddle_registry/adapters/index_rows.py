"""An entry or claim as a row of the index, and back, without parsing what a column can say."""

from __future__ import annotations

import os
from functools import cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.entry import (
    ActorChainNode,
    AgentEntry,
    AgentUsageSummary,
    ContextQueryEntry,
    EntryExtension,
)
from heddle_registry.core.evidence import Owner
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.limits import is_session_id
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.token import TokenHash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from json import JSONDecoder, JSONEncoder

    from heddle_registry.core.claim import Claim

_I64_MAX: Final = 2**63 - 1
_TOLD: Final = ("session_id", "thread", "status", "started_at")
_SHOWN: Final = ("pid", "boot_id", "model", "harness", "attach_reason", "task_assignment_id")
"""What a listing for people looks at, beside those that every look is told."""
_PLAIN: Final = (
    "client_instance_id", "native_actor_key", "native_parent_actor_key", "native_instance_key",
    "heddle_session_id", "thread_id", "liveness_path", "anchor_state", "anchor_root",
    "reservation_token", "path", "base_state", "provider", "thinking_level",
    "report_flush_state", "winning_attach_rule", "probe_source", "probe_confidence",
)  # fmt: skip
_TIMES: Final = ("heartbeat_at", "last_progress_at", "completed_at")
_USAGE: Final = (
    "input_tokens", "output_tokens", "reasoning_tokens", "tool_calls", "cost_micros_usd",
)  # fmt: skip
_OWN: Final = (
    "schema", "fence", "ttl_s", "runner_pid", "continues", "cache_creation_tokens",
    "cache_read_tokens",
)  # fmt: skip
_OWNER: Final = ("pid", "boot_id", "host", "pid_ns", "time_ns", "start_ticks", "command")

FIELD_COLUMNS: Final = (
    *_TOLD, *_SHOWN, *_PLAIN, "attach_precedence", *_TIMES,
    *(f"usage_{name}" for name in _USAGE),
    *(f"own_{name}" for name in _OWN),
    *(f"owner_{name}" for name in _OWNER),
    "token_salt", "token_digest", "more",
)  # fmt: skip
"""One column a field; ``more`` holds the lists of tables and the rare lists, as JSON."""

KEY_COLUMNS: Final = ("started_s", "started_n", "ended_ns", "real_path")
"""What only look-ups need: the start as numbers, the end, and the canonical path."""

# Read at once, in C: a rebuild asks every entry for all of them.
_plain_of: Final = attrgetter(*_SHOWN, *_PLAIN)
_times_of: Final = attrgetter(*_TIMES)
_usage_of: Final = attrgetter(*_USAGE)
_own_of: Final = attrgetter(*_OWN)
_owner_of: Final = attrgetter(*_OWNER)
_NO_OWN: Final = (None,) * len(_OWN)
_NO_OWNER: Final = (None,) * len(_OWNER)
_KEYS: Final = len(KEY_COLUMNS)
_AT_PLAIN: Final = len(_TOLD) + len(_SHOWN)
_AT_LINES: Final = _AT_PLAIN + len(_PLAIN)
_AT_USAGE: Final = _AT_LINES + 1 + len(_TIMES)
_AT_OWN: Final = _AT_USAGE + len(_USAGE)
_STATUSES: Final = {status.value: status for status in AgentStatus}


class NotPlain(Exception):
    """The record holds something that no column can: its file is read each time."""


def entry_row(entry: AgentEntry) -> tuple[Any, ...]:
    """Return the values of `FIELD_COLUMNS`.

    :raises NotPlain: a value does not fit.
    """
    if entry.reservation_token is not None:
        # The Rust tool's clear text: our next write hashes it, and no copy may outlive that.
        raise NotPlain
    extension = entry.extension
    owner = extension.owner if extension is not None else None
    token = extension.token if extension is not None else None
    usage = _usage_of(entry.usage_summary)
    own = _own_of(extension) if extension is not None else _NO_OWN
    of_owner = _owner_of(owner) if owner is not None else _NO_OWNER
    numbers = (entry.pid, *usage)
    for value in numbers if extension is None else (*numbers, *own, *of_owner):
        if type(value) is int and value > _I64_MAX:
            raise NotPlain
    return (
        entry.session_id,
        entry.thread,
        entry.status.value,
        entry.started_at.text,
        *_plain_of(entry),
        _lines(entry.attach_precedence),
        *[at.text if at is not None else None for at in _times_of(entry)],
        *usage,
        *own,
        *of_owner,
        *((token.salt, token.digest) if token is not None else (None, None)),
        _more(entry, extension),
    )


def _lines(texts: tuple[str, ...]) -> str | None:
    # Nearly every entry has this list: JSON would cost a short command the import.
    if not texts:
        return None
    joined = "\n".join(texts)
    if joined.count("\n") >= len(texts):
        raise NotPlain
    return joined


def _more(entry: AgentEntry, extension: EntryExtension | None) -> str | None:
    queries = entry.context_queries
    if entry.unknown or entry.usage_summary.unknown or any(query.unknown for query in queries):
        raise NotPlain
    more: dict[str, Any] = {}
    if queries:
        more["q"] = [(query.path, query.scope, query.queried_at.text) for query in queries]
    if extension is not None:
        parts = (extension, extension.owner, extension.token, *extension.ancestors)
        if any(part.unknown for part in parts if part is not None):
            raise NotPlain
        if extension.usage_sources:
            more["s"] = extension.usage_sources
        if extension.ancestors:
            more["c"] = [_node_row(node) for node in extension.ancestors]
    return _encoder().encode(more) if more else None


@cache
def _encoder() -> JSONEncoder:
    from json import JSONEncoder

    return JSONEncoder(ensure_ascii=False)


def _node_row(node: ActorChainNode) -> tuple[Any, ...]:
    return (
        node.session_id, node.native_actor_key, node.native_parent_actor_key, node.thread,
        node.status.value, node.provider, node.model, node.harness,
    )  # fmt: skip


def entry_from_row(row: Sequence[Any], at: int) -> AgentEntry:
    """Return the entry in a row whose last values, from ``at``, are those of both lists above."""
    fields = at + _KEYS
    return AgentEntry.deferred(
        session_id=row[fields],
        thread=row[fields + 1],
        status=_STATUSES[row[fields + 2]],
        started_at=Timestamp.vouched(row[fields + 3], (row[at], row[at + 1])),
        rest=partial(_rest, row, fields),
    )


def _rest(row: Sequence[Any], fields: int, name: str) -> dict[str, Any]:
    # What needs no building comes by the dozen: one of them costs as much as several.
    if name in _SHOWN:
        found = dict(zip(_SHOWN, row[fields + len(_TOLD) :], strict=False))
        found["attach_precedence"] = _attach_precedence(row, fields)
        if row[fields + _AT_OWN] is None:
            found["extension"] = None
        return found
    part = _PARTS.get(name)
    if part is not None:
        return {name: part(row, fields)}
    found = dict(zip(_PLAIN, row[fields + _AT_PLAIN :], strict=False))
    found["unknown"] = {}  # or it would be no row
    return found


def _attach_precedence(row: Sequence[Any], fields: int) -> tuple[str, ...]:
    lines: str | None = row[fields + _AT_LINES]
    return tuple(lines.split("\n")) if lines is not None else ()


def _usage_summary(row: Sequence[Any], fields: int) -> AgentUsageSummary:
    counts = row[fields + _AT_USAGE : fields + _AT_OWN]
    return AgentUsageSummary(**dict(zip(_USAGE, counts, strict=True)))


def _time(name: str) -> Callable[[Sequence[Any], int], Timestamp | None]:
    at = FIELD_COLUMNS.index(name)

    def time(row: Sequence[Any], fields: int) -> Timestamp | None:
        text = row[fields + at]
        return Timestamp.trusted(text) if text is not None else None

    return time


def _context_queries(row: Sequence[Any], _fields: int) -> tuple[ContextQueryEntry, ...]:
    if row[-1] is None:
        return ()
    queries: list[tuple[str, str | None, str]] = _decoded(row[-1]).get("q", ())
    return tuple(
        [
            ContextQueryEntry(path=asked, scope=scope, queried_at=Timestamp.trusted(queried_at))
            for asked, scope, queried_at in queries
        ]
    )


@cache
def _decoder() -> JSONDecoder:
    from json import JSONDecoder

    return JSONDecoder()


def _decoded(text: str) -> Any:
    return _decoder().raw_decode(text)[0]


def _extension(row: Sequence[Any], fields: int) -> EntryExtension | None:
    (
        schema, fence, ttl_s, runner_pid, continues, cache_creation_tokens, cache_read_tokens,
        pid, boot_id, host, pid_ns, time_ns, start_ticks, command, salt, digest, more_text,
    ) = row[fields + _AT_OWN :]  # fmt: skip
    if schema is None:
        return None
    more = _decoded(more_text) if more_text is not None else {}
    return EntryExtension(
        schema=schema,
        owner=Owner(
            pid=pid,
            boot_id=boot_id,
            host=host,
            pid_ns=pid_ns,
            time_ns=time_ns,
            start_ticks=start_ticks,
            command=command,
        )
        if pid is not None
        else None,
        fence=fence,
        ttl_s=ttl_s,
        runner_pid=runner_pid,
        continues=continues,
        token=TokenHash(salt=salt, digest=digest) if salt is not None else None,
        ancestors=tuple(
            [
                ActorChainNode(
                    session_id=node[0], native_actor_key=node[1], native_parent_actor_key=node[2],
                    thread=node[3], status=_STATUSES[node[4]], provider=node[5], model=node[6],
                    harness=node[7],
                )
                for node in more.get("c", ())
            ]
        ),
        cache_creation_tokens=cache_creation_tokens,
        cache_read_tokens=cache_read_tokens,
        usage_sources=tuple(more.get("s", ())),
    )  # fmt: skip


_PARTS: Final[dict[str, Callable[[Sequence[Any], int], Any]]] = {
    "attach_precedence": _attach_precedence,
    "usage_summary": _usage_summary,
    **{name: _time(name) for name in _TIMES},
    "context_queries": _context_queries,
    "extension": _extension,
}


class RealPaths:
    """Canonical paths of many entries at once: their folders are mostly the same few."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        """Return what ``os.path.realpath`` does, as of when its folder was first asked for.

        :raises ValueError: it holds a NUL.
        """
        folder, _, name = path.rpartition(os.sep)
        if not folder.startswith(os.sep) or name in ("", ".", "..") or os.path.islink(path):
            return os.path.realpath(path)
        below = self._folders.get(folder)
        if below is None:
            below = self._folders[folder] = os.path.realpath(folder).rstrip(os.sep) + os.sep
        return below + name


def key_row(entry: AgentEntry, real: RealPaths | None = None) -> tuple[Any, ...]:
    """Return the values of `KEY_COLUMNS`."""
    ended_ns = None
    if not entry.is_active:
        ended_at = entry.completed_at or entry.started_at
        ended_ns = max(-_I64_MAX, min(_I64_MAX, ended_at.unix_ns))
    path = None
    if entry.path is not None:
        try:
            path = (real or os.path.realpath)(entry.path)
        except ValueError:
            path = None  # a NUL in it: no folder that anybody looks for
    return (
        *entry.started_at.sort_key,
        ended_ns,
        path,
    )


def claim_sessions(claim: Claim) -> tuple[str, ...]:
    """Return every session that the claim names as holder or past holder.

    Without what is no session id, and so is never looked for.
    """
    names = [past.session_id for past in claim.past]
    if claim.holder is not None:
        names.append(claim.holder.session_id)
    return tuple(filter(is_session_id, dict.fromkeys(names)))


def claim_keys(claim: Claim | None) -> tuple[Any, ...] | None:
    """Return what the index looks claims up by; a change of anything else moves no row."""
    if claim is None:
        return None
    # The holder by itself: a release leaves the same sessions, and is no renewal.
    return (claim.thread, claim.path, claim.holder_id, claim_sessions(claim))
