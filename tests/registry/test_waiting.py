"""The line for a branch: in order, without overtaking, woken by events and never by polling."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, LiveOwner, Reserved
from heddle_registry.adapters import line
from heddle_registry.core.transaction import Keys
from heddle_registry.registry import waiting
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.scripting import build_entry
from tests.process_helpers import Child, locked_elsewhere, python, until
from tests.registry.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.core.reserve import ReserveOutcome

pytestmark = pytest.mark.skipif(not line.HAS_LINES, reason="no lines on this system")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentRegistry:
    # Whoever is not woken by an event sleeps through the test.
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 3600.0)
    return AgentRegistry(tmp_path / ".heddle", lock_timeout_s=30)


class Waiter:
    """An OS thread in line."""

    def __init__(self, registry: AgentRegistry, **terms: Any) -> None:
        self.outcome: ReserveOutcome | None = None
        self._registry = registry
        self._terms = Terms(**(terms or {"ttl_s": 600.0}))
        self._has_joined = False
        self._watch_line()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()
        # On a busy machine the branch may be free before it comes to the line.
        until(lambda: self._has_joined or not self._thread.is_alive(), "its place in the line")

    def _watch_line(self) -> None:
        join_line = self._registry.store.join_line

        @contextmanager
        def joining(thread: str, deadline_s: float) -> Iterator[Any]:
            with join_line(thread, deadline_s) as place:
                self._has_joined = True
                yield place

        self._registry.store.join_line = joining

    def _wait(self) -> None:
        build = build_entry(self._registry, "main")
        outcome = self._registry.reserve_on_terms("main", build, self._terms, wait_s=600)
        self.outcome = outcome[0]

    def granted(self) -> Reserved:
        self._thread.join(60)
        assert isinstance(self.outcome, Reserved), "nobody woke it"
        return self.outcome

    @property
    def still_waits(self) -> bool:
        return self._thread.is_alive()


def in_line(registry: AgentRegistry) -> tuple[str, ...]:
    return registry.store.peek(Keys(line_of="main"))[0].line


def reserve(registry: AgentRegistry, **terms: Any) -> Reserved:
    build = build_entry(registry, "main")
    outcome = registry.reserve_on_terms("main", build, Terms(**(terms or {"ttl_s": 600.0})))[0]
    assert isinstance(outcome, Reserved)
    return outcome


def release(registry: AgentRegistry, held: Reserved) -> None:
    registry.release(held.entry.session_id, token=held.token)


def test_waiters_are_served_in_order_and_nobody_overtakes_them(registry: AgentRegistry) -> None:
    held = reserve(registry)
    first, second, third = (Waiter(registry) for _ in range(3))
    release(registry, held)
    for waiter, later in ((first, (second, third)), (second, (third,)), (third, ())):
        mine = waiter.granted()
        assert mine.fence > held.fence
        assert all(other.still_waits for other in later)
        held = mine
        release(registry, held)
    assert in_line(registry) == ()


def test_without_wait_nobody_overtakes_a_living_waiter_but_by_force(
    registry: AgentRegistry,
) -> None:
    held = reserve(registry)
    with registry.store.join_line("main", 60):
        release(registry, held)
        build = build_entry(registry, "main")
        refused = registry.reserve_on_terms("main", build, Terms(ttl_s=60))[0]
        assert isinstance(refused, LiveOwner)
        assert (refused.entry, refused.why) == (None, "1 waiting before you")
        forced = registry.reserve_on_terms("main", build, Terms(ttl_s=60, force_reason="now"))[0]
        assert isinstance(forced, Reserved)


@pytest.mark.parametrize("end", ["update_status", "delete", "by its own bearer"])
def test_whoever_ends_a_claim_wakes_the_first(registry: AgentRegistry, end: str) -> None:
    held = reserve(registry)
    session_id = held.entry.session_id
    waiter = Waiter(registry)
    match end:
        case "update_status":
            registry.update_status(session_id, AgentStatus.ABANDONED)
        case "delete":
            registry.delete(session_id)
        case "by its own bearer":
            release(registry, held)
    assert waiter.granted().fence > held.fence


def test_the_end_of_mere_presence_wakes_the_first(registry: AgentRegistry) -> None:
    def build(new: str) -> AgentEntry:
        return build_entry(registry, "main")(new)

    for end in (lambda i: registry.update_status(i, "complete"), registry.delete):
        present = registry.create_generated_entry(build)
        waiter = Waiter(registry)
        end(present.session_id)
        release(registry, waiter.granted())


@contextmanager
def owner() -> Iterator[Any]:
    with python("import sys; print('up', flush=True); sys.stdin.readline()") as child:
        child.line()
        yield child


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="deaths are looked for here")
def test_the_holders_death_wakes_the_waiter(registry: AgentRegistry) -> None:
    with owner() as child:
        reserve(registry, owner=registry.host.owner_for(child.pid))
        waiter = Waiter(registry)
        child.kill()
        waiter.granted()


HOLDER = """
import sys
from heddle_registry import AgentRegistry
with AgentRegistry(sys.argv[1]).reserve("main") as claim:
    print(claim.fence, flush=True)
    sys.stdin.readline()
"""


def test_a_liveness_lock_that_comes_free_wakes_the_waiter(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with python(HOLDER, tmp_path / ".heddle") as holder:
        holder.line()
        waiter = Waiter(registry)
        holder.kill()
        waiter.granted()


def test_a_ttl_that_passes_wakes_the_waiter(registry: AgentRegistry) -> None:
    reserve(registry, ttl_s=1.0)
    assert Waiter(registry).granted().fence == 2


def test_a_ttl_that_passes_before_the_waiter_sleeps_is_not_slept_through(tmp_path: Path) -> None:
    world = World("directory", tmp_path)
    held = world.reserve()
    refused = world.refused()
    assert held.entry == refused.entry
    assert waiting._awaited(world.registry, "main", refused)[1] == 300
    world.host.advance(299.5)
    assert waiting._awaited(world.registry, "main", refused)[1] == pytest.approx(0.5)
    world.host.advance(1)
    assert waiting._awaited(world.registry, "main", refused)[1] < 0.1


WAITER = """
import sys
from heddle_registry import AgentRegistry, Held
registry = AgentRegistry(sys.argv[1])
try:
    with registry.reserve("main", ttl_s=60, wait_s=float(sys.argv[2])) as claim:
        print("granted", flush=True)
        sys.stdin.readline()
except Held as held:
    print("held:", held, flush=True)
"""


def test_a_dead_waiter_is_passed_over(registry: AgentRegistry, tmp_path: Path) -> None:
    held = reserve(registry)
    with python(WAITER, tmp_path / ".heddle", 60) as first:
        until(lambda: len(in_line(registry)) == 1, "its place in the line")
        second = Waiter(registry)
        first.kill()
        assert len(in_line(registry)) == 1
        release(registry, held)
        held = second.granted()
    third = Waiter(registry)
    left = list((tmp_path / ".heddle" / "wait").rglob("*.wake"))
    assert len(left) == 1, "the dead one's ticket goes with the next who joins"
    release(registry, held)
    third.granted()


def stops_without_the_lock(child: Child, folder: Path) -> bool:
    child.send(signal.SIGSTOP)
    until(lambda: process_state(child.pid) in "TZ", "its stop")
    if not locked_elsewhere(folder / ".heddle" / "agents" / ".lock"):
        return True
    child.send(signal.SIGCONT)
    return False


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc/<pid>/stat to look at")
def test_a_stopped_waiter_holds_up_the_line_no_longer_than_it_meant_to_wait(
    registry: AgentRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "OVERDUE_AFTER_S", 0.0)
    held = reserve(registry)
    # Time enough to find it in line and to stop it there, and no more: it is slept through.
    with python(WAITER, tmp_path / ".heddle", 4) as stopped:
        until(lambda: len(in_line(registry)) == 1, "its place in the line")
        until(lambda: stops_without_the_lock(stopped, tmp_path), "its sleep")
        second = Waiter(registry)
        until(lambda: len(in_line(registry)) == 1, "the end of its time")
        release(registry, held)
        second.granted()
        stopped.send(signal.SIGCONT)
        assert stopped.line().startswith("held: branch 'main' is held")
    assert in_line(registry) == ()


def test_a_wait_that_ends_in_vain_says_who_holds_and_leaves_the_line(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    held = reserve(registry)
    build = build_entry(registry, "main")
    for wait_s in (0.01, float("nan"), -1.0):
        outcome = registry.reserve_on_terms("main", build, Terms(ttl_s=60), wait_s=wait_s)[0]
        assert isinstance(outcome, LiveOwner)
        assert outcome.entry == held.entry
    assert in_line(registry) == ()


def test_while_the_holder_lives_a_waiter_looks_when_it_comes_and_when_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the fixture's patch: how often it looks is what is asked.
    registry = AgentRegistry(tmp_path / ".heddle")
    attempts = 0
    attempt = AgentRegistry.attempt

    def counted(self: AgentRegistry, *given: Any, **named: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return attempt(self, *given, **named)

    reserve(registry, owner=registry.owner_for(os.getpid()))
    monkeypatch.setattr(AgentRegistry, "attempt", counted)
    build = build_entry(registry, "main")
    outcome = registry.reserve_on_terms("main", build, Terms(ttl_s=60), wait_s=1)[0]
    assert isinstance(outcome, LiveOwner)
    assert attempts <= 4, "once, in line, at the end"


@pytest.mark.parametrize("kept_by", ["presence beside an expired claim", "an earlier waiter"])
def test_a_waiter_sleeps_while_what_it_waits_for_has_come_but_something_else_keeps_the_branch(
    registry: AgentRegistry, kept_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    attempt = AgentRegistry.attempt

    def counted(self: AgentRegistry, *given: Any, **named: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return attempt(self, *given, **named)

    reserve(registry, ttl_s=1.0)
    with ExitStack() as stack:
        if kept_by == "an earlier waiter":
            stack.enter_context(registry.store.join_line("main", 60))
        else:
            registry.create_generated_entry(build_entry(registry, "main"))
        monkeypatch.setattr(AgentRegistry, "attempt", counted)
        build = build_entry(registry, "main")
        outcome = registry.reserve_on_terms("main", build, Terms(ttl_s=60), wait_s=2)[0]
    assert isinstance(outcome, LiveOwner)
    assert attempts <= 5, "once, in line, when the TTL passed, at the end"


def test_a_hand_over_tells_who_waits_whose_end_to_await_now(registry: AgentRegistry) -> None:
    idle = "import sys; print('ready', flush=True); sys.stdin.readline()"
    with python(idle) as old, python(idle) as new:
        assert (old.line(), new.line()) == ("ready", "ready")
        held = reserve(registry, owner=registry.owner_for(old.pid))
        waiter = Waiter(registry)
        registry.hand_over(held.entry.session_id, held.token, to_pid=new.pid)
        new.kill()
        assert waiter.granted().fence == held.fence + 2
