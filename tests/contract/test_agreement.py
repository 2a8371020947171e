"""The same history in memory and in a folder, look for look: a store adds no opinion of its own."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import AgentRegistry, AgentStatus, RegistryError
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.memory import MemoryStore
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.reserve import Reserved
from heddle_registry.explain import why_branch
from heddle_registry.overview import overview
from heddle_registry.ports.query import Query
from heddle_registry.registry.attempt import Terms
from heddle_registry.testing.fake_host import FakeHost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from heddle_registry.ports import Store

THREADS = ("main", "feature/x")
STEPS = 60


class Actor:
    """Plays one history: every choice comes from the seed, nothing from the store."""

    def __init__(self, seed: int, open_store: Callable[[FakeHost], Store], folder: Path) -> None:
        self.host = FakeHost(seed=seed)
        self._open = open_store
        self._choices = random.Random(seed)
        self._folder = str(folder)
        self._sessions: list[tuple[str, str | None]] = []
        self._pids = [self.host.spawn([f"agent-{number}"]) for number in range(3)]
        self._saved = 0

    @property
    def registry(self) -> AgentRegistry:
        return AgentRegistry(store=self._open(self.host), host=self.host)

    def step(self) -> str:
        doors = [name for name in dir(self) if name.startswith("do_")]
        name = self._choices.choice(doors)
        try:
            return f"{name}: {getattr(self, name)()!r}"
        except RegistryError as error:
            return f"{name}: {type(error).__name__}: {error.code}"

    def looks(self) -> dict[str, Any]:
        registry = self.registry
        seen: dict[str, Any] = {
            "all": [
                (row.entry, row.verdict, row.standing.state if row.standing else None)
                for row in overview(registry, Query(include_stale=True)).entries
            ],
            "list": registry.list(),
            "key": registry.find_active_by_native_actor_key("k1"),
            "path": registry.find_active_by_path(self._folder),
            "swept": registry.sweep(dry_run=True),
        }
        for thread in THREADS:
            story = why_branch(registry, thread)
            seen[thread] = (story.state, story.entry, story.verdict, story.sentences)
            seen[thread] += tuple(registry.check(thread, fence) for fence in range(4))
        for session_id, _ in self._sessions[-4:]:
            seen[session_id] = registry.actor_chain_for_session(session_id)
        return seen

    def _entry(self, new: str, **fields: Any) -> AgentEntry:
        return AgentEntry(
            session_id=new,
            thread=fields.pop("thread", self._choices.choice(THREADS)),
            base_state="b",
            started_at=self.host.now().at,
            status=AgentStatus.ACTIVE,
            **fields,
        )

    def _session(self) -> tuple[str, str | None]:
        return self._choices.choice(self._sessions or [("agent-none", None)])

    def do_reserve(self) -> object:
        pid = self._choices.choice([None, *self._pids])
        thread = self._choices.choice(THREADS)
        terms = Terms(
            owner=self.registry.owner_for(pid) if pid is not None else None,
            ttl_s=None if pid is not None else 100.0,
            path=self._folder if self._choices.random() < 0.3 else None,
            force_reason="why not" if self._choices.random() < 0.1 else None,
        )
        build = attrs.evolve(self._entry("x", thread=thread), session_id="x")
        outcome, lock = self.registry.reserve_on_terms(
            thread, lambda new: attrs.evolve(build, session_id=new), terms
        )
        assert lock is None
        if isinstance(outcome, Reserved):
            self._sessions.append((outcome.entry.session_id, outcome.token))
        return outcome

    do_reserve_again = do_reserve

    def do_save(self) -> object:
        self._saved += 1
        key = self._choices.choice([None, "k1", "k2"])
        parent = self._choices.choice([None, "k1", "k2"])
        fields: dict[str, Any] = {"native_actor_key": key, "native_parent_actor_key": parent}
        if self._choices.random() < 0.5:
            fields["path"] = self._folder
        if self._choices.random() < 0.5:
            fields |= {"pid": self._choices.choice(self._pids), "boot_id": self.host.boot_id}
        entry = self._entry(f"agent-saved-{self._saved}", **fields)
        self._sessions.append((entry.session_id, None))
        return self.registry.save(entry)

    def do_heartbeat(self) -> object:
        return self.registry.heartbeat(*self._session())

    def do_release(self) -> object:
        session_id, token = self._session()
        status = self._choices.choice(["complete", "merged", "abandoned"])
        return self.registry.release(session_id, status, token=token)

    def do_hand_over(self) -> object:
        session_id, token = self._session()
        new = self.registry.hand_over(session_id, token, to_ttl_s=50.0)
        self._sessions.append((new.entry.session_id, new.token))
        return new

    def do_update(self) -> object:
        harness = self._choices.choice(["codex", "pi"])
        session_id = self._session()[0]
        return self.registry.update_entry(session_id, lambda e: attrs.evolve(e, harness=harness))

    def do_delete(self) -> object:
        session_id = self._session()[0]
        return self.registry.delete(session_id) if self._choices.random() < 0.3 else None

    def do_sweep(self) -> object:
        return self.registry.sweep(end_expired=self._choices.random() < 0.3)

    def do_time(self) -> object:
        self.host.advance(self._choices.choice([1, 60, 120, 8 * 86_400]))
        return None

    def do_die(self) -> object:
        pid = self._choices.choice(self._pids)
        self.host.kill(pid)
        self._pids.remove(pid)
        self._pids.append(self.host.spawn(["successor"]))
        return pid


@pytest.mark.parametrize("seed", range(12))
def test_memory_and_folder_tell_the_same_story(tmp_path: Path, seed: int) -> None:
    memory: dict[int, Store] = {}

    def in_memory(host: FakeHost) -> Store:
        return memory.setdefault(id(host), MemoryStore(host))

    def in_folder(host: FakeHost) -> Store:
        return DirectoryStore(str(tmp_path / ".heddle"), host, lock_timeout_s=30)

    one = Actor(seed, in_memory, tmp_path)
    other = Actor(seed, in_folder, tmp_path)
    for number in range(STEPS):
        assert one.step() == other.step(), f"step {number}"
        assert one.looks() == other.looks(), f"after step {number}"
