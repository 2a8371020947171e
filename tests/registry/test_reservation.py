"""The ``with`` block: what it holds, what it gives back, and what it says when it has lost."""

# ruff: noqa: PT012 - the body of the block that raises is what is tested
from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from heddle_registry import (
    AgentRegistry,
    AgentStatus,
    ClaimLost,
    Held,
    StoreUnavailable,
    UsageError,
)
from heddle_registry.adapters import line
from heddle_registry.core.transaction import Keys
from heddle_registry.registry import waiting
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.reservation import HeldClaim
from heddle_registry.registry.scripting import build_entry
from tests.process_helpers import forks_with_threads, in_fork, until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def registry(tmp_path: Path) -> AgentRegistry:
    return AgentRegistry(tmp_path / ".heddle", lock_timeout_s=30)


def status_of(registry: AgentRegistry, session_id: str) -> AgentStatus:
    found = registry.load(session_id)
    assert found is not None
    return found.status


def force(registry: AgentRegistry, reason: str = "needed") -> str:
    terms = Terms(ttl_s=60, force_reason=reason)
    outcome = registry.reserve_on_terms("main", build_entry(registry, "main"), terms)[0]
    assert outcome.entry is not None
    return outcome.entry.session_id


def test_the_body_holds_the_branch_and_leaving_gives_it_back(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    with registry.reserve("main", path=tmp_path, task="the login page", base_state="abc") as claim:
        claim.check()
        assert (claim.thread, claim.fence, claim.present) == ("main", 1, ())
        found = registry.load(claim.session_id)
        assert found is not None
        assert (found.pid, found.path) == (os.getpid(), str(tmp_path.resolve()))
        assert (found.base_state, found.attach_reason) == ("abc", "the login page")
        with pytest.raises(Held) as held, registry.reserve("main"):
            raise AssertionError("two holders")
        assert held.value.holder == found
        assert claim.session_id in held.value.explain()
        env = claim.child_env({"PATH": "/bin"})
        assert env == {
            "PATH": "/bin",
            "HEDDLE_DIR": str(tmp_path / ".heddle"),
            "HEDDLE_THREAD": "main",
            "HEDDLE_AGENT_SESSION_ID": claim.session_id,
            "HEDDLE_AGENT_TOKEN": claim.token,
            "HEDDLE_AGENT_FENCE": "1",
        }
    assert status_of(registry, claim.session_id) is AgentStatus.COMPLETE
    with pytest.raises(ClaimLost, match="it was released"):
        claim.check()
    with registry.reserve("main") as again:
        assert again.fence == 2


def test_a_body_that_raises_abandons_and_its_error_comes_through(registry: AgentRegistry) -> None:
    with pytest.raises(ZeroDivisionError), registry.reserve("main") as claim:
        raise ZeroDivisionError
    assert status_of(registry, claim.session_id) is AgentStatus.ABANDONED


def test_a_body_that_lost_the_branch_is_told_by_check_and_at_its_end(
    registry: AgentRegistry,
) -> None:
    with pytest.raises(ClaimLost) as lost, registry.reserve("main") as claim:
        taker = force(registry, "I need it")
        for _ in range(2):
            with pytest.raises(ClaimLost) as told:
                claim.check()
            assert "taken by force" in told.value.why
        assert claim.lost.is_set()
        with pytest.raises(ClaimLost):
            claim.renew()
    assert (lost.value.by, "I need it" in lost.value.why) == (taker, True)
    assert registry.check("main", 2).holder == taker, "its end harms nobody else's claim"


def test_a_release_that_fails_does_not_hide_what_the_body_raised(registry: AgentRegistry) -> None:
    with pytest.raises(ZeroDivisionError) as raised, registry.reserve("main") as claim:
        registry.delete(claim.session_id)
        raise ZeroDivisionError
    assert "releasing 'main' failed" in raised.value.__notes__[0]


def test_a_ttl_is_renewed_in_the_background_and_a_loss_is_told_without_asking(
    registry: AgentRegistry,
) -> None:
    with pytest.raises(ClaimLost), registry.reserve("main", ttl_s=1) as claim:

        def renewed() -> bool:
            found = registry.load(claim.session_id)
            return found is not None and found.heartbeat_at is not None

        until(renewed, "a renewal")
        force(registry)
        assert claim.lost.wait(60), "the next renewal finds out"
        with pytest.raises(ClaimLost, match="taken by force"):
            claim.check()
    assert not [one for one in threading.enumerate() if one.name == "renew main"]


def test_two_renewals_may_fail_before_the_ttl_passes(
    registry: AgentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    has_failed_thrice = threading.Event()

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            if len(waits) > 3:
                has_failed_thrice.set()
                return super().wait()
            return False

    def failing(_: object) -> None:
        raise StoreUnavailable("it", "is full")

    reservation = registry.reserve("main", ttl_s=60)
    reservation._stop = Clock()
    monkeypatch.setattr(HeldClaim, "renew", failing)
    with reservation as claim:
        assert has_failed_thrice.wait(60)
        claim.check()
    assert sum(waits[:2]) < 60
    assert sum(waits[:3]) <= 60


@pytest.mark.parametrize("options", [{"ttl_s": 0}, {"path": "a\0b"}, {"ttl_s": "9"}])
def test_a_mistake_is_a_usage_error_and_leaves_nothing(
    registry: AgentRegistry, tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(UsageError), registry.reserve("main", **options):  # type: ignore[arg-type]
        pass
    assert not (tmp_path / ".heddle").exists()


def test_a_reservation_can_be_entered_once(registry: AgentRegistry) -> None:
    reservation = registry.reserve("main")
    with reservation as claim:
        with pytest.raises(UsageError, match="entered before"), reservation:
            pass
        claim.check()
    with pytest.raises(UsageError, match="entered before"), reservation:
        pass


@forks_with_threads
def test_a_forked_child_that_leaves_the_block_gives_nothing_back(registry: AgentRegistry) -> None:
    with registry.reserve("main", ttl_s=60) as claim:

        def leave() -> str:
            try:
                claim._registry.reserve("other").__enter__()  # the child works on by itself
                return "left"
            finally:
                reservation.__exit__(None, None, None)

        reservation = registry.reserve("third")
        reservation.__enter__()
        assert in_fork(leave) == "left"
        claim.check()
        assert registry.check("third", 1).valid
        reservation.__exit__(None, None, None)
    assert status_of(registry, claim.session_id) is AgentStatus.COMPLETE


def test_without_an_os_thread_for_renewals_the_branch_is_given_back(
    registry: AgentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError), registry.reserve("main", ttl_s=60):
        pass
    monkeypatch.undo()
    with registry.reserve("main") as claim:
        assert claim.fence == 2


def contents(folder: Path) -> set[Path]:
    files = (folder / ".heddle").rglob("*")
    return {path for path in files if not path.name.startswith("index.sqlite")}


def test_a_refused_request_leaves_no_liveness_file(registry: AgentRegistry, tmp_path: Path) -> None:
    with registry.reserve("main"):
        before = contents(tmp_path)
        with pytest.raises(Held), registry.reserve("main"):
            pass
        claim_file = next((tmp_path / ".heddle" / "claims").glob("*.toml"))
        stored = claim_file.read_text()
        claim_file.write_text("schema = 99\n")
        with pytest.raises(StoreUnavailable), registry.reserve("main"):
            pass
        assert contents(tmp_path) == before
        claim_file.write_text(stored)


def test_the_same_for_async_callers(registry: AgentRegistry) -> None:
    async def work() -> str:
        async with registry.areserve("main", ttl_s=60) as claim:
            claim.check()
            with pytest.raises(Held):
                async with registry.areserve("main"):
                    raise AssertionError("two holders")
        return claim.session_id

    assert status_of(registry, asyncio.run(work())) is AgentStatus.COMPLETE


@pytest.mark.skipif(not line.HAS_LINES, reason="no lines on this system")
def test_an_async_wait_leaves_the_loop_free_and_a_cancelled_one_leaves_no_claim(
    registry: AgentRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 3600.0)

    def in_line() -> int:
        return len(registry.store.peek(Keys(line_of="main"))[0].line)

    async def hold_in_vain() -> None:
        async with registry.areserve("main", wait_s=600):
            raise AssertionError("it was cancelled")

    async def work() -> int:
        async with registry.areserve("main"):
            waiter = asyncio.ensure_future(hold_in_vain())
            await asyncio.to_thread(until, in_line, "its place in the line")
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
        # The wait goes on in its OS thread, gets the branch and gives it back.
        async with registry.areserve("main", wait_s=60) as claim:
            return claim.fence

    assert asyncio.run(work()) == 3
    assert [e.status for e in registry.list() if e.is_active] == []
