"""Our registry and the port of the original behind one interface, so that one test judges both.

A side speaks in plain dicts, as the port does: the keys of the file, times as text, None left out.
`LATE_S` is how long the port may stay silent before a test takes it for hanging.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, RegistryError, Timestamp
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.host import LocalHost
from heddle_registry.core.entry import AgentUsageSummary, ContextQueryEntry
from heddle_registry.core.reserve import Reserved
from heddle_registry.registry.scripting import build_entry, script_terms
from tests import seed_registry
from tests.seed_registry import HeddleError, SeedRegistry, current_boot_id, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from heddle_registry.core.evidence import Observation, Owner, Subject
    from heddle_registry.core.timestamp import Instant

Fields = dict[str, Any]
LATE_S = 1.5
NEVER_A_PID = 0x7FFF_FFFF
_TIMES = ("started_at", "heartbeat_at", "last_progress_at", "completed_at")


def now_text(*, days_ago: float = 0) -> str:
    return rfc3339(datetime.now(UTC) - timedelta(days=days_ago))


def entry(session_id: str, status: str = "active", **fields: Any) -> Fields:
    return {
        "session_id": session_id,
        "thread": f"agent/{session_id}",
        "base_state": "hd-base",
        "started_at": now_text(),
        "status": status,
        **fields,
    }


def dead(session_id: str, thread: str, **fields: Any) -> Fields:
    boot_id = "not-the-current-boot"
    return entry(session_id, thread=thread, pid=NEVER_A_PID, boot_id=boot_id, **fields)


def living(session_id: str, thread: str, pid: int | None = None) -> Fields:
    pid = os.getpid() if pid is None else pid
    return entry(session_id, thread=thread, pid=pid, boot_id=current_boot_id())


def as_entry(fields: Fields) -> AgentEntry:
    given = {**fields, "status": AgentStatus(fields["status"])}
    for name in _TIMES:
        if name in given:
            given[name] = Timestamp(given[name])
    return AgentEntry(**given)


def as_fields(found: AgentEntry) -> Fields:
    skipped = ("extension", "unknown")
    fields = attrs.asdict(found, recurse=False, filter=lambda at, _: at.name not in skipped)
    plain = {key: value for key, value in fields.items() if value is not None}
    for name in _TIMES:
        if name in plain:
            plain[name] = plain[name].text
    plain["status"] = plain["status"].value
    if isinstance(plain["usage_summary"], AgentUsageSummary):
        del plain["usage_summary"]
    return plain


class MovableHost(LocalHost):
    """This machine, whose clocks a test moves and which can be taken for another one."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0.0
        self.name = ""

    def now(self) -> Instant:
        now = super().now()
        ahead_ns = int(self.ahead_s * 1_000_000_000)
        at = Timestamp.from_unix_ns(now.at.unix_ns + ahead_ns)
        boot_id = now.boot_id + self.name
        return attrs.evolve(now, at=at, awake_ns=now.awake_ns + ahead_ns, boot_id=boot_id)

    def owner_for(self, pid: int) -> Owner | None:
        owner = super().owner_for(pid)
        if owner is None:
            return None
        return attrs.evolve(owner, host=owner.host + self.name, boot_id=owner.boot_id + self.name)

    def observe(self, subject: Subject) -> Observation:
        seen = super().observe(subject)
        seen = attrs.evolve(seen, host=seen.host + self.name, boot_id=seen.boot_id + self.name)
        return seen if not self.name else attrs.evolve(seen, process=None, start_ticks=None)


class Ours:
    """`AgentRegistry` over a folder."""

    name = "ours"
    errors: tuple[type[Exception], ...] = (RegistryError,)

    def __init__(self, heddle_dir: Path, *, lock_timeout_s: float | None = 30) -> None:
        self.dir = heddle_dir
        self.agents = heddle_dir / "agents"
        self.host = MovableHost()
        store = DirectoryStore(str(heddle_dir), self.host, lock_timeout_s=lock_timeout_s)
        self.registry = AgentRegistry(store=store, host=self.host)

    def hurried(self) -> Ours:
        return Ours(self.dir, lock_timeout_s=0.2)

    def on_another_machine(self) -> Ours:
        other = Ours(self.dir)
        other.host.name = "-elsewhere"
        return other

    def pass_time(self, seconds: float) -> None:
        self.host.ahead_s += seconds

    def save(self, fields: Fields) -> None:
        self.registry.save(as_entry(fields))

    def load(self, session_id: str) -> Fields | None:
        found = self.registry.load(session_id)
        return None if found is None else as_fields(found)

    def list(self) -> list[Fields]:
        return [as_fields(found) for found in self.registry.list()]

    def update_status(self, session_id: str, status: str) -> None:
        self.registry.update_status(session_id, status)

    def update_entry(self, session_id: str, **changes: Any) -> object:
        if "status" in changes:
            changes["status"] = AgentStatus(changes["status"])
        return self.registry.update_entry(session_id, lambda found: attrs.evolve(found, **changes))

    def delete(self, session_id: str) -> None:
        self.registry.delete(session_id)

    def create(self, build: Callable[[str], Fields]) -> Fields:
        return as_fields(self.registry.create_generated_entry(lambda new: as_entry(build(new))))

    def create_with(self, generate: Callable[[], str], build: Callable[[str], Fields]) -> Fields:
        made = self.registry.create_generated_entry_with(generate, lambda new: as_entry(build(new)))
        return as_fields(made)

    def find_or_create(
        self, matches: Callable[[Fields], bool], build: Callable[[str], Fields]
    ) -> Fields:
        found, _ = self.registry.find_or_create_active_entry(
            lambda known: matches(as_fields(known)),
            lambda known: known,
            lambda new: as_entry(build(new)),
        )
        return as_fields(found)

    def find(self, by: str, *keys: Any) -> Fields | None:
        found = getattr(self.registry, f"find_active_by_{by}")(*keys)
        return None if found is None else as_fields(found)

    def chain(self, session_id: str) -> list[str | None]:
        return [node.session_id for node in self.registry.actor_chain_for_session(session_id)]

    def try_reserve(self, thread: str, build: Callable[[str], Fields]) -> tuple[str, Fields]:
        outcome = self.registry.try_reserve_thread(thread, lambda new: as_entry(build(new)))
        return _answer(outcome)

    def reserve(self, thread: str, pid: int | None = None) -> tuple[str, Fields]:
        """As the one-shot command does."""
        terms = script_terms(self.registry, owner_pid=pid)
        build = build_entry(self.registry, thread)
        return _answer(self.registry.reserve_on_terms(thread, build, terms)[0])

    def owners(self, thread: str) -> list[str]:
        """Who may write: whose fence a guard of the branch would let through."""
        return [
            found.session_id
            for found in self.registry.list()
            if found.thread == thread
            and found.fence is not None
            and self.registry.check(thread, found.fence).valid
        ]

    def heartbeat(self, session_id: str, token: str | None = None) -> object:
        return self.registry.heartbeat(session_id, token)

    def log_query(self, session_id: str, path: str) -> object:
        query = ContextQueryEntry(path=path, queried_at=Timestamp(now_text()))
        return self.registry.log_context_query(session_id, query)

    def reap_dead(self) -> int:
        return self.registry.reap_dead()

    def verdict(self, session_id: str) -> str:
        found = self.registry.load(session_id)
        assert found is not None
        return self.registry.liveness_for(found).kind.value


def _answer(outcome: Any) -> tuple[str, Fields]:
    if isinstance(outcome, Reserved):
        token = {"reservation_token": outcome.token}
        return "reserved", {**as_fields(outcome.entry), **token}
    return "live_owner", {} if outcome.entry is None else as_fields(outcome.entry)


class Original:
    """`SeedRegistry`, which has the original's faults."""

    name = "original"
    errors: tuple[type[Exception], ...] = (HeddleError,)

    def __init__(self, heddle_dir: Path, boot_id: str | None = None) -> None:
        self.dir = heddle_dir
        self.agents = heddle_dir / "agents"
        self._ahead = timedelta()
        self._boot_id = boot_id or current_boot_id()
        self.registry = SeedRegistry(
            heddle_dir,
            now=lambda: datetime.now(UTC) + self._ahead,
            boot_id=lambda: self._boot_id,
        )

    def hurried(self) -> Original:
        return self

    def on_another_machine(self) -> Original:
        return Original(self.dir, "boot-of-another-machine")

    def pass_time(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)

    def save(self, fields: Fields) -> None:
        self.registry.save(fields)

    def load(self, session_id: str) -> Fields | None:
        return self.registry.load(session_id)

    def list(self) -> list[Fields]:
        return self.registry.list()

    def update_status(self, session_id: str, status: str) -> None:
        self.registry.update_status(session_id, status)

    def update_entry(self, session_id: str, **changes: Any) -> object:
        return self.registry.update_entry(session_id, lambda found: found.update(changes))

    def delete(self, session_id: str) -> None:
        self.registry.delete(session_id)

    def create(self, build: Callable[[str], Fields]) -> Fields:
        return self.registry.create_generated_entry(build)

    def create_with(self, generate: Callable[[], str], build: Callable[[str], Fields]) -> Fields:
        return self.registry.create_generated_entry_with(generate, build)

    def find_or_create(
        self, matches: Callable[[Fields], bool], build: Callable[[str], Fields]
    ) -> Fields:
        return self.registry.find_or_create_active_entry(matches, lambda _: None, build)[0]

    def find(self, by: str, *keys: Any) -> Fields | None:
        return getattr(self.registry, f"find_active_by_{by}")(*keys)

    def chain(self, session_id: str) -> list[str | None]:
        return [node["session_id"] for node in self.registry.actor_chain_for_session(session_id)]

    def try_reserve(self, thread: str, build: Callable[[str], Fields]) -> tuple[str, Fields]:
        return self._answer(self.registry.try_reserve_thread(thread, build))

    def reserve(self, thread: str, pid: int | None = None) -> tuple[str, Fields]:
        return self._answer(self.registry.reserve_command(thread, pid=pid))

    def _answer(self, outcome: Any) -> tuple[str, Fields]:
        granted = isinstance(outcome, seed_registry.Reserved)
        return "reserved" if granted else "live_owner", outcome.entry

    def owners(self, thread: str) -> list[str]:
        """Who may write: the original has no other notion of it than an active entry."""
        return [
            found["session_id"]
            for found in self.registry.list()
            if found["thread"] == thread and found["status"] == "active"
        ]

    def heartbeat(self, session_id: str, token: str | None = None) -> object:
        return self.registry.heartbeat(session_id)

    def log_query(self, session_id: str, path: str) -> object:
        return self.registry.log_context_query(session_id, {"path": path, "queried_at": now_text()})

    def reap_dead(self) -> int:
        return self.registry.reap_dead()

    def verdict(self, session_id: str) -> str:
        found = self.registry.load(session_id)
        assert found is not None
        return self.registry.liveness_for(found)


Side = Ours | Original
SIDES: dict[str, type[Side]] = {"ours": Ours, "original": Original}


def main(name: str, heddle_dir: str, *pids: str) -> None:
    """Reserve ``main`` in this very process: for each pid, or once as a command without one."""
    from pathlib import Path

    side = SIDES[name](Path(heddle_dir))
    for pid in pids or [None]:
        print(json.dumps(side.reserve("main", None if pid is None else int(pid))), flush=True)
