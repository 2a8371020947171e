"""A registry in a world that a test moves: fake clocks and processes, either store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, LiveOwner, Reserved
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.memory import MemoryStore
from heddle_registry.core.transaction import Keys
from heddle_registry.ports.query import Query
from heddle_registry.registry.attempt import Terms
from heddle_registry.testing.fake_host import FakeHost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from heddle_registry.ports import Host, Store


class World:
    """One host, one store, and short words for what tests do all the time."""

    def __init__(self, store_name: str, folder: Path) -> None:
        self.host = FakeHost()
        self.folder = folder / ".heddle"
        self.store: Store = (
            MemoryStore(self.host)
            if store_name == "memory"
            else DirectoryStore(str(self.folder), self.host, lock_timeout_s=30)
        )
        self.registry = AgentRegistry(store=self.store, host=self.host)

    def seen_from(self, host: Host) -> AgentRegistry:
        return AgentRegistry(store=self.store, host=host)

    def entry(self, session_id: str, thread: str = "main", **fields: Any) -> AgentEntry:
        given: dict[str, Any] = {
            "base_state": "hd-base",
            "started_at": self.host.now().at,
            "status": AgentStatus.ACTIVE,
            **fields,
        }
        return AgentEntry(session_id=session_id, thread=thread, **given)

    def present(self, session_id: str, thread: str = "main", **fields: Any) -> AgentEntry:
        """An entry without a claim, as attaching makes one; ``pid`` needs its boot id."""
        if "pid" in fields:
            fields.setdefault("boot_id", self.host.boot_id)
        self.registry.save(self.entry(session_id, thread, **fields))
        return self.loaded(session_id)

    def building(self, thread: str = "main", **fields: Any) -> Callable[[str], AgentEntry]:
        return lambda new: self.entry(new, thread, **fields)

    def try_reserve(self, thread: str = "main", **fields: Any) -> Reserved | LiveOwner:
        return self.registry.try_reserve_thread(thread, self.building(thread, **fields))

    def reserve(self, thread: str = "main", **fields: Any) -> Reserved:
        outcome = self.try_reserve(thread, **fields)
        assert isinstance(outcome, Reserved), outcome
        return outcome

    def refused(self, thread: str = "main", **fields: Any) -> LiveOwner:
        outcome = self.try_reserve(thread, **fields)
        assert isinstance(outcome, LiveOwner), outcome
        return outcome

    def on_terms(self, thread: str = "main", **terms: Any) -> Reserved | LiveOwner:
        build = self.building(thread)
        return self.registry.reserve_on_terms(thread, build, Terms(**terms))[0]

    def loaded(self, session_id: str) -> AgentEntry:
        found = self.registry.load(session_id)
        assert found is not None
        return found

    def records(self) -> object:
        """Everything that is stored, to compare before with after."""
        files = {
            str(path): path.read_bytes()
            for path in sorted(self.folder.rglob("*.toml"))
            if path.is_file()
        }
        look = self.store.look(Query(include_stale=True))
        threads = tuple(sorted({entry.thread for entry in look.entries}))
        return look.entries, self.store.peek(Keys(threads=threads))[0].claims, files


def is_owned(outcome: Reserved | LiveOwner) -> bool:
    return isinstance(outcome, Reserved)
