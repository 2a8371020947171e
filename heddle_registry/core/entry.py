"""Who is here: the record of one agent session, field for field as the original writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.core.evidence import Owner, Subject
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.limits import check_session_id, check_thread
from heddle_registry.core.record import Record
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.errors import RegistryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from heddle_registry.core.token import TokenHash

SCHEMA: Final = 1
"""The newest layout of our own table in an entry, and of a claim, that this version writes."""
_U32: Final = 2**32 - 1
_U64: Final = 2**64 - 1


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AgentUsageSummary(Record):
    """The original's usage counters. None is unknown, never 0."""

    input_tokens: int | None = None
    """Uncached input."""
    output_tokens: int | None = None
    """Reasoning included."""
    reasoning_tokens: int | None = None
    tool_calls: int | None = None
    cost_micros_usd: int | None = None
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ContextQueryEntry(Record):
    """One question for context that an agent asked during its session."""

    path: str
    scope: str | None = None
    queried_at: Timestamp
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ActorChainNode(Record):
    """One hop of an actor's ancestry, as much as survives the pruning of its entry."""

    session_id: str
    native_actor_key: str | None = None
    native_parent_actor_key: str | None = None
    thread: str
    status: AgentStatus
    provider: str | None = None
    model: str | None = None
    harness: str | None = None
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EntryExtension(Record):
    """The table ``[heddle_registry]``: what we keep beside the original's fields.

    The Rust tool ignores it and drops it when it rewrites the entry, so nothing may depend on
    its presence.
    """

    schema: int = SCHEMA
    owner: Owner | None = None
    fence: int | None = None
    """A second copy of the claim's; None for an entry that never had a claim."""
    ttl_s: float | None = None
    runner_pid: int | None = None
    """Of an entry that ``run`` made: the runner, beside its command in ``pid``."""
    continues: str | None = None
    """The session id that this one goes on from."""
    token: TokenHash | None = None
    """A second copy of the claim's; or the hash of a token that stood in clear text."""
    ancestors: tuple[ActorChainNode, ...] = ()
    """Root first, the entry itself not among them."""
    cache_creation_tokens: int | None = None
    cache_read_tokens: int | None = None
    usage_sources: tuple[str, ...] = ()
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)


class _Deferred:
    # Where an entry keeps how to learn its other fields; attrs makes no field of it.
    __slots__ = ("_rest",)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AgentEntry(Record, _Deferred):
    """One agent session: active, or ended and kept for seven days.

    The fields up to ``context_queries`` are the original's, in its order. ``extension`` is None
    where the file has no table of ours; ``unknown`` keeps keys that nobody here knows, so that a
    newer program's data survive our rewrite.
    """

    session_id: str
    client_instance_id: str | None = None
    native_actor_key: str | None = None
    native_parent_actor_key: str | None = None
    native_instance_key: str | None = None
    heddle_session_id: str | None = None
    thread_id: str | None = None
    thread: str
    pid: int | None = None
    boot_id: str | None = None
    liveness_path: str | None = None
    """Written by the original, which never creates the file: its absence says nothing."""
    heartbeat_at: Timestamp | None = None
    anchor_state: str | None = None
    anchor_root: str | None = None
    reservation_token: str | None = attrs.field(default=None, repr=False)
    """Only where the original left one in clear text; hashed at our next write."""
    path: str | None = None
    base_state: str
    started_at: Timestamp
    provider: str | None = None
    model: str | None = None
    harness: str | None = None
    thinking_level: str | None = None
    usage_summary: AgentUsageSummary = AgentUsageSummary()
    last_progress_at: Timestamp | None = None
    report_flush_state: str | None = None
    attach_reason: str | None = None
    task_assignment_id: str | None = None
    attach_precedence: tuple[str, ...] = ()
    winning_attach_rule: str | None = None
    probe_source: str | None = None
    probe_confidence: float | None = None
    """From 0 to 1; the file keeps it as a 32-bit float."""
    status: AgentStatus
    completed_at: Timestamp | None = None
    context_queries: tuple[ContextQueryEntry, ...] = ()
    extension: EntryExtension | None = None
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)

    @classmethod
    def deferred(
        cls,
        *,
        session_id: str,
        thread: str,
        status: AgentStatus,
        started_at: Timestamp,
        rest: Callable[[str], Mapping[str, Any]],
    ) -> AgentEntry:
        """Return an entry whose other fields are asked for when they are looked at.

        Of thousands that a listing finds, most are looked at by few fields. ``rest`` is asked for
        one and returns it, with others if they cost no more; whatever it returns for a field is the
        same each time, for several OS threads may ask at once.
        """
        entry = cls.__new__(cls)
        put = object.__setattr__
        put(entry, "session_id", session_id)
        put(entry, "thread", thread)
        put(entry, "status", status)
        put(entry, "started_at", started_at)
        put(entry, "_rest", rest)
        return entry

    if not TYPE_CHECKING:  # or every misspelt name would be one of an entry's

        def __getattr__(self, name: str) -> Any:
            # Called only for what is not there.
            if name not in _FIELDS:
                raise AttributeError(f"an AgentEntry has no {name!r}")
            found = object.__getattribute__(self, "_rest")(name)
            put = object.__setattr__
            for field in found:
                put(self, field, found[field])
            return found[name]

    @property
    def is_active(self) -> bool:
        """Whether the entry has not ended. Says nothing about its process."""
        return self.status is AgentStatus.ACTIVE

    @property
    def owner(self) -> Owner | None:
        """The recorded owner, if ``pid`` and ``boot_id`` are still its own.

        The Rust tool rewrites those two without knowing of the owner; then it no longer counts.
        """
        owner = self.extension.owner if self.extension is not None else None
        if owner is None or owner.pid != self.pid or owner.boot_id != (self.boot_id or ""):
            return None
        return owner

    @property
    def fence(self) -> int | None:
        """The fence under which it was reserved, as far as the entry remembers."""
        return self.extension.fence if self.extension is not None else None

    def subject(self) -> Subject:
        """Return whom to look at to judge the entry by itself, without its claim."""
        return Subject(
            session_id=self.session_id,
            fence=self.fence,
            owner=self.owner,
            pid=self.pid,
            boot_id=self.boot_id or "",
        )

    def extended(self, **changes: Any) -> AgentEntry:
        """Return the entry with ``changes`` made in its extension, which is made if missing."""
        extension = attrs.evolve(self.extension or EntryExtension(), **changes)
        return attrs.evolve(self, extension=extension)

    def chain_node(self) -> ActorChainNode:
        """Return what an ancestry keeps of the entry."""
        return ActorChainNode(
            session_id=self.session_id,
            native_actor_key=self.native_actor_key,
            native_parent_actor_key=self.native_parent_actor_key,
            thread=self.thread,
            status=self.status,
            provider=self.provider,
            model=self.model,
            harness=self.harness,
        )


_FIELDS: Final = frozenset(attrs.fields_dict(AgentEntry))
_TEXTS: Final = (
    "client_instance_id", "native_actor_key", "native_parent_actor_key", "native_instance_key",
    "heddle_session_id", "thread_id", "boot_id", "liveness_path", "anchor_state", "anchor_root",
    "reservation_token", "path", "provider", "model", "harness", "thinking_level",
    "report_flush_state", "attach_reason", "task_assignment_id", "winning_attach_rule",
    "probe_source",
)  # fmt: skip
_TIMES: Final = ("heartbeat_at", "last_progress_at", "completed_at")
_COUNTS: Final = (
    ("input_tokens", _U64), ("output_tokens", _U64), ("reasoning_tokens", _U64),
    ("tool_calls", _U32), ("cost_micros_usd", _U64),
)  # fmt: skip


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def entry_problems(entry: object) -> list[str]:
    """Return every reason why ``entry`` may not be written; an empty list when it may.

    What the Rust tool wrote is loaded as it is; these rules hold for what *we* write, so that
    the original's types accept it.
    """
    if not isinstance(entry, AgentEntry):
        return [f"an AgentEntry is needed, not {type(entry).__name__}"]
    problems: list[str] = []
    for check, value in ((check_session_id, entry.session_id), (check_thread, entry.thread)):
        try:
            check(value)
        except RegistryError as error:
            problems.append(error.message)
    problems += [
        f"{name} must be text"
        for name in _TEXTS
        if getattr(entry, name) is not None and not _is_text(getattr(entry, name))
    ]
    if not _is_text(entry.base_state):
        problems.append("base_state must be text")
    if not isinstance(entry.status, AgentStatus):
        problems.append("status must be an AgentStatus")
    if not isinstance(entry.started_at, Timestamp):
        problems.append("started_at must be a Timestamp or an aware datetime")
    problems += [
        f"{name} must be a Timestamp or an aware datetime"
        for name in _TIMES
        if not isinstance(getattr(entry, name), Timestamp | None)
    ]
    if entry.pid is not None and not _is_count(entry.pid, _U32):
        problems.append(f"pid must be 0 to {_U32}")
    usage = entry.usage_summary
    if not isinstance(usage, AgentUsageSummary):
        problems.append("usage_summary must be an AgentUsageSummary")
        usage = AgentUsageSummary()
    for name, most in _COUNTS:
        count = getattr(usage, name)
        if count is not None and not _is_count(count, most):
            problems.append(f"usage_summary.{name} must be 0 to {most}")
    if entry.probe_confidence is not None and (
        isinstance(entry.probe_confidence, bool)
        or not isinstance(entry.probe_confidence, int | float)
        or entry.probe_confidence != entry.probe_confidence  # NaN
    ):
        problems.append("probe_confidence must be a number")
    for name in ("attach_precedence", "context_queries"):
        if not isinstance(getattr(entry, name), tuple | list):
            return [*problems, f"{name} must be a tuple"]
    problems += [
        f"attach_precedence[{at}] must be text"
        for at, line in enumerate(entry.attach_precedence)
        if not _is_text(line)
    ]
    for at, query in enumerate(entry.context_queries):
        if not isinstance(query, ContextQueryEntry):
            problems.append(f"context_queries[{at}] must be a ContextQueryEntry")
        elif not (
            _is_text(query.path)
            and (query.scope is None or _is_text(query.scope))
            and isinstance(query.queried_at, Timestamp)
        ):
            problems.append(f"context_queries[{at}] needs a path, a scope or None, a time")
    if isinstance(entry.status, AgentStatus) and entry.is_active == (
        entry.completed_at is not None
    ):
        problems.append("completed_at must be set exactly when the entry has ended")
    return problems


def check_entry(entry: AgentEntry) -> AgentEntry:
    """Return ``entry`` if it may be written.

    :raises UsageError: it may not; the message lists every problem.
    """
    problems = entry_problems(entry)
    if problems:
        raise UsageError("this entry cannot be written: " + "; ".join(problems))
    return entry
