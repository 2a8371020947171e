"""Entries, claims and loose TOML values as nasty as their types allow."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

import attrs
from hypothesis import strategies as st

from heddle_registry.codec.toml_text import f32_text
from heddle_registry.core.claim import Claim, ClaimHolder, EndCause, PastHolder
from heddle_registry.core.entry import (
    ActorChainNode,
    AgentEntry,
    AgentUsageSummary,
    ContextQueryEntry,
    EntryExtension,
)
from heddle_registry.core.evidence import LivenessFile, Owner
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.token import TokenHash

U32, U64, I64 = 2**32 - 1, 2**64 - 1, 2**63 - 1

_PIECES = st.sampled_from(
    [
        *(
            '"',
            "'",
            '""',
            '"""',
            "'''",
            "\\",
            "\n",
            "\r\n",
            "\r",
            "\t",
            "\0",
            "\x1b",
            "\x7f",
            "\x85",
        ),
        *("a", " ", "#", "=", "[x]", "é", "🦀", "\u2028", "\ufeff", "\\n", "\\u0041", "{", ","),
    ]
)
texts = st.one_of(
    st.lists(_PIECES, max_size=8).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)

plain_times = st.datetimes(timezones=st.just(UTC)).map(Timestamp.from_datetime)
times = st.one_of(
    plain_times,
    st.sampled_from(
        [
            *("+12345-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "2016-12-31T23:59:60.500Z"),
            *("2026-07-01 12:00:00.1234567891+02:30", "2026-07-01t12:00:00z"),
        ]
    ).map(Timestamp),
)

_offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from([10**2000, -(10**2000), I64, U64]),
    st.floats(allow_nan=False),
    texts,
    st.dates(),
    st.times(),
    st.datetimes(),
    st.datetimes(timezones=_offsets),
)
values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def keys_unknown_to(record: type) -> st.SearchStrategy[str]:
    known = {field.name for field in attrs.fields(record)} | {"heddle_registry", "renewed"}
    return texts.filter(lambda key: key not in known)


def _built(record: type, **fields: st.SearchStrategy) -> st.SearchStrategy:
    loose = st.dictionaries(keys_unknown_to(record), values, max_size=2)
    return st.builds(record, **fields, unknown=st.one_of(st.just({}), loose))


def _maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


confidences = st.floats(width=32, allow_nan=False).map(lambda value: float(f32_text(value)))
seconds = st.one_of(st.integers(0, 2_592_000).map(float), st.floats(0, 2_592_000))

owners = _built(
    Owner,
    pid=st.integers(0, U32),
    boot_id=texts,
    host=texts,
    pid_ns=texts,
    time_ns=texts,
    start_ticks=_maybe(st.integers(0, U64)),
    command=texts,
)
tokens = _built(TokenHash, salt=texts, digest=texts)
usages = st.builds(
    AgentUsageSummary,
    input_tokens=_maybe(st.integers(0, U64)),
    output_tokens=_maybe(st.integers(0, U64)),
    reasoning_tokens=_maybe(st.integers(0, U64)),
    tool_calls=_maybe(st.integers(0, U32)),
    cost_micros_usd=_maybe(st.integers(0, U64)),
)
queries = st.builds(ContextQueryEntry, path=texts, scope=_maybe(texts), queried_at=plain_times)
_TEXTS = [
    *("client_instance_id", "native_actor_key", "native_parent_actor_key", "native_instance_key"),
    *("heddle_session_id", "thread_id", "boot_id", "liveness_path", "anchor_state", "anchor_root"),
    *("reservation_token", "path", "provider", "model", "harness", "thinking_level"),
    *("report_flush_state", "attach_reason", "task_assignment_id", "winning_attach_rule"),
    "probe_source",
]
_original = {
    "session_id": texts,
    "thread": texts,
    "base_state": texts,
    "pid": _maybe(st.integers(0, U32)),
    "started_at": plain_times,
    "heartbeat_at": _maybe(plain_times),
    "last_progress_at": _maybe(plain_times),
    "completed_at": _maybe(plain_times),
    "usage_summary": usages,
    "attach_precedence": st.lists(texts, max_size=3).map(tuple),
    "probe_confidence": _maybe(confidences),
    "status": st.sampled_from(AgentStatus),
    "context_queries": st.lists(queries, max_size=3).map(tuple),
    **{name: _maybe(texts) for name in _TEXTS},
}
original_entries = st.builds(AgentEntry, **_original)
"""Entries as the Rust tool writes them: nothing of ours, nothing unknown, its form of times."""

_nodes = _built(
    ActorChainNode,
    session_id=texts,
    native_actor_key=_maybe(texts),
    native_parent_actor_key=_maybe(texts),
    thread=texts,
    status=st.sampled_from(AgentStatus),
    provider=_maybe(texts),
    model=_maybe(texts),
    harness=_maybe(texts),
)
extensions = _built(
    EntryExtension,
    schema=st.integers(0, 3),
    owner=_maybe(owners),
    fence=_maybe(st.integers(0, I64)),
    ttl_s=_maybe(seconds),
    runner_pid=_maybe(st.integers(0, U32)),
    continues=_maybe(texts),
    token=_maybe(tokens),
    ancestors=st.lists(_nodes, max_size=2).map(tuple),
    cache_creation_tokens=_maybe(st.integers(0, U64)),
    cache_read_tokens=_maybe(st.integers(0, U64)),
    usage_sources=st.lists(texts, max_size=2).map(tuple),
)
entries = _built(
    AgentEntry,
    session_id=texts,
    thread=texts,
    base_state=texts,
    task_assignment_id=_maybe(texts),
    started_at=times,
    completed_at=_maybe(times),
    status=st.sampled_from(AgentStatus),
    attach_precedence=st.lists(texts, max_size=3).map(tuple),
    usage_summary=_built(AgentUsageSummary, input_tokens=_maybe(st.integers(0, U64))),
    context_queries=st.lists(
        _built(ContextQueryEntry, path=texts, scope=_maybe(texts), queried_at=times), max_size=2
    ).map(tuple),
    extension=_maybe(extensions),
)

_holders = _built(
    ClaimHolder,
    session_id=texts,
    token=_maybe(tokens),
    owner=_maybe(owners),
    liveness=_maybe(_built(LivenessFile, device=st.integers(0, U64), inode=st.integers(0, U64))),
    ttl_s=_maybe(seconds),
    granted_at=times,
    renewed_at=_built(
        Instant, at=times, awake_ns=st.integers(-I64, I64), boot_id=texts, time_ns=texts
    ),
    lost_at=_maybe(times),
)
_past_holders = _built(
    PastHolder,
    session_id=texts,
    fence=st.integers(0, I64),
    token=_maybe(tokens),
    ended_at=times,
    cause=st.sampled_from(EndCause),
    by=texts,
    reason=texts,
)
claims = _built(
    Claim,
    thread=texts,
    fence=st.integers(0, I64),
    path=_maybe(texts),
    holder=_maybe(_holders),
    past=st.lists(_past_holders, max_size=2).map(tuple),
    schema=st.integers(0, 3),
)
