"""The entry's file, ``agents/<id>.toml``: the original's keys in its order, then our own table.

The Rust tool reads what is written here and ignores ``[heddle_registry]``; for an entry without
it the bytes are those that the Rust tool would write.
"""

from __future__ import annotations

from typing import Final

import attrs

from heddle_registry.codec.records import (
    corrupt_record,
    newer_schema,
    read_document,
    write_record,
)
from heddle_registry.codec.tables import (
    I64_MAX,
    U32_MAX,
    U64_MAX,
    SubTable,
    Table,
    TableArray,
    f32,
    integer,
    seconds,
    text,
    texts,
    time,
    word,
)
from heddle_registry.core.entry import (
    SCHEMA,
    ActorChainNode,
    AgentEntry,
    AgentUsageSummary,
    ContextQueryEntry,
    EntryExtension,
)
from heddle_registry.core.evidence import Owner
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.token import TokenHash

MAX_FENCE: Final = I64_MAX
"""TOML promises integers of 64 bits with a sign and no more."""
_OWN_TABLE: Final = "heddle_registry"

OWNER: Final = Table(
    Owner,
    integer("pid", 0, U32_MAX, required=True),
    text("boot_id", omit=""),
    text("host", omit=""),
    text("pid_ns", omit=""),
    text("time_ns", omit=""),
    integer("start_ticks", 0, U64_MAX),
    text("command", omit=""),
)
"""A recorded process; in a claim as well."""

TOKEN: Final = Table(TokenHash, text("salt", required=True), text("digest", required=True))
"""The hash of a token; in a claim as well."""

_USAGE: Final = Table(
    AgentUsageSummary,
    integer("input_tokens", 0, U64_MAX),
    integer("output_tokens", 0, U64_MAX),
    integer("reasoning_tokens", 0, U64_MAX),
    integer("tool_calls", 0, U32_MAX),
    integer("cost_micros_usd", 0, U64_MAX),
)

_QUERY: Final = Table(
    ContextQueryEntry,
    text("path", required=True),
    text("scope"),
    time("queried_at", required=True),
)

_ANCESTOR: Final = Table(
    ActorChainNode,
    text("session_id", required=True),
    text("native_actor_key"),
    text("native_parent_actor_key"),
    text("thread", required=True),
    word("status", AgentStatus, required=True),
    text("provider"),
    text("model"),
    text("harness"),
)

_EXTENSION: Final = Table(
    EntryExtension,
    integer("schema", 0, I64_MAX),
    integer("fence", 0, MAX_FENCE),
    seconds("ttl_s"),
    integer("runner_pid", 0, U32_MAX),
    text("continues"),
    integer("cache_creation_tokens", 0, U64_MAX),
    integer("cache_read_tokens", 0, U64_MAX),
    texts("usage_sources", omit=()),
    SubTable("owner", OWNER),
    SubTable("token", TOKEN),
    TableArray("ancestors", _ANCESTOR),
)

ENTRY: Final = Table(
    AgentEntry,
    text("session_id", required=True),
    text("client_instance_id"),
    text("native_actor_key"),
    text("native_parent_actor_key"),
    text("native_instance_key"),
    text("heddle_session_id"),
    text("thread_id"),
    text("thread", required=True),
    integer("pid", 0, U32_MAX),
    text("boot_id"),
    text("liveness_path"),
    time("heartbeat_at"),
    text("anchor_state"),
    text("anchor_root"),
    text("reservation_token"),
    text("path"),
    text("base_state", required=True),
    time("started_at", required=True),
    text("provider"),
    text("model"),
    text("harness"),
    text("thinking_level"),
    time("last_progress_at"),
    text("report_flush_state"),
    text("attach_reason"),
    text("task_assignment_id"),
    texts("attach_precedence"),
    text("winning_attach_rule"),
    text("probe_source"),
    f32("probe_confidence"),
    word("status", AgentStatus, required=True),
    time("completed_at"),
    SubTable("usage_summary", _USAGE),
    TableArray("context_queries", _QUERY, keep_empty=True),
    SubTable(_OWN_TABLE, _EXTENSION, attribute="extension"),
)
"""The keys of the file. The order of the plain ones is that of the original's struct."""


def entry_from_toml(data: bytes, path: str) -> AgentEntry:
    """Return the entry in ``data``, the content of the file ``path``.

    Accepts what the original's types accept, whatever the Rust tool wrote: nothing is said of
    ids, branch names or of a status without its ``completed_at``. Keys that nobody here knows are
    in ``unknown``. Pure, hence safe in every OS thread.

    Where a newer program's table of ours cannot be understood, the extension holds its schema
    alone: who is on which branch is known, and `is_from_newer_schema` keeps it from a rewrite.

    :raises RecordCorrupt: with every problem, each ``key: reason``.
    """
    document = read_document(data, path)
    problems: list[str] = []
    entry = ENTRY.read(document, "", problems)
    if entry is not None:
        return entry
    schema = newer_schema(document.pop(_OWN_TABLE, None))
    if schema is not None:
        entry = ENTRY.read(document, "", [])
        if entry is not None:
            return attrs.evolve(entry, extension=EntryExtension(schema=schema))
    raise corrupt_record(path, problems)


def entry_to_toml(entry: AgentEntry) -> bytes:
    """Return ``entry`` as the content of its file. Pure.

    The caller has checked it (`core.entry.check_entry`) and does not write one that
    `is_from_newer_schema`.

    :raises UsageError: over 1 MiB, or it holds what TOML cannot say.
    """
    return write_record(ENTRY, entry, f"the entry {entry.session_id!r}")


def is_from_newer_schema(entry: AgentEntry) -> bool:
    """Return whether a newer program wrote ``entry``: it may be read and never rewritten."""
    return entry.extension is not None and entry.extension.schema > SCHEMA
