"""A crash, a full disk or a failing sync between any two steps of any operation.

Each operation is run once to count its steps (renames into, and removals from, the two folders of
records), then again for each step with a process that ends there.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry import (
    AgentRegistry,
    ClaimLost,
    LiveOwner,
    OutcomeUnknown,
    StoreUnavailable,
)
from heddle_registry.explain import why_branch
from heddle_registry.ports.query import Query
from tests.process_helpers import in_fork
from tests.registry.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="crashes are forked")

Operation = tuple["Callable[[World], Any]", "Callable[[World, Any], object]"]


def _held(world: World) -> Any:
    return world.reserve(pid=world.host.spawn(["holder"]), path=str(world.folder.parent))


def _expired(world: World) -> Any:
    held = world.reserve()
    world.host.advance(301)
    return held


def _with_dead(world: World) -> Any:
    held = _held(world)
    gone = world.host.spawn(["gone"])
    for name in ("agent-dead-a", "agent-dead-b"):
        world.present(name, pid=gone)
    world.host.kill(gone)
    world.host.kill(held.entry.pid)
    return held


def _take(world: World, _: Any) -> object:
    return world.reserve(pid=world.host.spawn(["taker"]))


OPERATIONS: dict[str, Operation] = {
    "first reserve": (lambda _: None, _take),
    "reserve over an expired claim": (_expired, _take),
    "reserve over the dead": (_with_dead, _take),
    "force": (_held, lambda w, _: w.on_terms(force_reason="x", ttl_s=60)),
    "heartbeat": (_held, lambda w, h: w.registry.heartbeat(h.entry.session_id, h.token)),
    "release": (_held, lambda w, h: w.registry.release(h.entry.session_id, token=h.token)),
    "hand over": (
        _held,
        lambda w, h: w.registry.hand_over(h.entry.session_id, h.token, to_ttl_s=60),
    ),
    "delete": (_held, lambda w, h: w.registry.delete(h.entry.session_id)),
    "sweep": (_with_dead, lambda w, _: w.registry.sweep()),
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World("directory", tmp_path)


class Steps:
    """Counts renames into and removals from the records' folders, and acts before number ``at``.

    ``after`` True acts when the step has been made.
    """

    def __init__(self, at: int, act: Callable[[str], None], *, after: bool = False) -> None:
        self.count = 0
        self._at, self._act, self._after = at, act, after
        for name in ("replace", "unlink"):
            setattr(os, name, self._counted(getattr(os, name), name == "replace"))

    def _counted(self, real: Callable[..., Any], is_rename: bool) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            path = os.fspath(given[1] if is_rename else given[0])
            folder = os.path.basename(os.path.dirname(path))
            if folder not in ("agents", "claims") or not path.endswith(".toml"):
                return real(*given, **named)
            self.count += 1
            if self.count == self._at and not self._after:
                self._act(path)
            answer = real(*given, **named)
            if self.count == self._at and self._after:
                self._act(path)
            return answer

        return step


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, getattr(os, name))
    yield
    monkeypatch.undo()


def _steps_of(name: str, folder: Path) -> int:
    setup, act = OPERATIONS[name]
    folder.mkdir()
    world = World("directory", folder)
    given = setup(world)

    def counted() -> int:
        steps = Steps(0, lambda _: None)
        act(world, given)
        return steps.count

    return int(in_fork(counted))


def _highest_fence(world: World) -> int:
    entries = world.store.look(Query(include_stale=True)).entries
    claims = world.store.peek(_keys())[0].claims
    fences = [entry.fence or 0 for entry in entries if entry.is_active]
    return max([0, *fences, *(claim.fence for claim in claims.values())])


def _keys() -> Any:
    from heddle_registry.core.transaction import Keys

    return Keys(threads=("main",))


def _seen_by_a_newcomer(world: World) -> World:
    # Nothing that the crashed process or this one still remembers may help.
    fresh = World("directory", world.folder.parent)
    fresh.host = world.host
    fresh.store = type(world.store)(str(world.folder), world.host, lock_timeout_s=30)  # type: ignore[call-arg]
    fresh.registry = AgentRegistry(store=fresh.store, host=world.host)
    return fresh


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_crash_at_any_step_leaves_one_owner_at_most_and_all_that_was_acknowledged(
    tmp_path: Path, name: str, after: bool
) -> None:
    setup, act = OPERATIONS[name]
    steps = _steps_of(name, tmp_path / "counted")
    assert steps >= 1
    for at in range(1, steps + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        world = World("directory", folder)
        given = setup(world)

        def crash(world: World = world, given: Any = given, at: int = at) -> None:
            Steps(at, lambda _: os._exit(0), after=after)
            act(world, given)
            raise AssertionError("it did not come to that step")

        with pytest.raises(AssertionError, match="died without an answer"):
            in_fork(crash)

        world = _seen_by_a_newcomer(world)
        look = world.registry.look()
        assert look.problems == ()
        state = why_branch(world.registry, "main").state
        assert state in ("free", "held", "expired"), (at, state)
        valid = [
            entry.session_id
            for entry in look.entries
            if entry.is_active
            and entry.fence is not None
            and world.registry.check("main", entry.fence).valid
        ]
        assert len(valid) <= 1
        if given is not None and valid != [given.entry.session_id]:
            with pytest.raises(ClaimLost):
                world.registry.heartbeat(given.entry.session_id, given.token)
            assert not world.registry.check("main", given.fence).valid
        elif name == "heartbeat":
            world.registry.heartbeat(given.entry.session_id, given.token)
        if valid and state == "held":
            assert isinstance(world.try_reserve(), LiveOwner)

        before = _highest_fence(world)
        for process in world.host.processes()[2:]:
            world.host.kill(process.pid)
        world.host.advance(10_000)
        taken = world.reserve(pid=world.host.own_pid())
        assert taken.fence > before
        assert [e.session_id for e in world.registry.list() if e.is_active] == [
            taken.entry.session_id
        ]
        tmp = world.folder / "tmp"
        assert not tmp.exists() or not list(tmp.iterdir())


def test_a_release_that_a_crash_cut_short_frees_the_branch_though_its_entry_grows_stale(
    world: World, untouched: None
) -> None:
    holder = world.host.spawn(["holder"])
    held = world.reserve(pid=holder)

    def crash() -> None:
        Steps(2, lambda _: os._exit(0))
        world.registry.release(held.entry.session_id, token=held.token)
        raise AssertionError("it did not come to that step")

    with pytest.raises(AssertionError, match="died without an answer"):
        in_fork(crash)
    world.host.advance(8 * 86_400)
    world = _seen_by_a_newcomer(world)
    world.reserve("other", pid=holder)  # a reservation prunes, but not what tells of the release
    assert why_branch(world.registry, "main").state == "free"
    assert world.registry.sweep().ended_claims == ("main",)
    assert why_branch(world.registry, "main").state == "free"
    assert held.entry.session_id not in [
        entry.session_id for entry in world.store.look(Query(include_stale=True)).entries
    ]
    with pytest.raises(ClaimLost, match="released"):
        world.registry.heartbeat(held.entry.session_id, held.token)
    assert world.reserve(pid=holder).fence == 2


def _contents(world: World) -> dict[str, bytes]:
    skipped = (".lock", ".gitignore", "index.sqlite", "index.sqlite-journal")
    return {
        str(path.relative_to(world.folder)): path.read_bytes()
        for path in world.folder.rglob("*")
        if path.is_file() and path.name not in skipped
    }


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_refused_by_the_disk_at_any_step_changes_nothing(
    tmp_path: Path, name: str, untouched: None
) -> None:
    setup, act = OPERATIONS[name]
    steps = _steps_of(name, tmp_path / "counted")
    refused = 0
    for at in range(1, steps + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        world = World("directory", folder)
        given = setup(world)
        before = _contents(world)

        def refuse(path: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", path)

        def attempt(
            world: World = world,
            given: Any = given,
            at: int = at,
            before: dict[str, bytes] = before,
        ) -> str:
            Steps(at, refuse)
            error = None
            try:
                act(world, given)
            except StoreUnavailable as raised:
                error = str(raised)
            if error is None:
                return "done"
            assert "the disk is full" in error
            assert "nothing was changed" in error
            assert _contents(world) == before
            return "refused"

        outcome = in_fork(attempt)
        refused += outcome == "refused"
        if outcome == "done":
            assert at > 2, "what comes before the commit may not be left out"
    assert refused >= 1


@pytest.mark.parametrize("name", ["release", "delete", "sweep"])
def test_where_even_the_way_back_is_refused_nobody_is_told_that_nothing_was_changed(
    tmp_path: Path, name: str
) -> None:
    setup, act = OPERATIONS[name]
    world = World("directory", tmp_path)
    given = setup(world)

    def attempt() -> str:
        steps = Steps(0, lambda _: None)

        def refuse(path: str) -> None:
            steps._at = steps.count + 1  # and every one after it
            raise OSError(errno.ENOSPC, "No space left on device", path)

        steps._at, steps._act = 2, refuse
        try:
            act(world, given)
        except OutcomeUnknown as error:
            return str(error)
        return "told otherwise"

    assert "so did undoing it" in in_fork(attempt)
    assert why_branch(_seen_by_a_newcomer(world).registry, "main").state in ("free", "held")


@pytest.mark.parametrize("fault", ["a folder that cannot be synced", "an interrupt"])
def test_a_reserve_that_cannot_tell_its_token_gives_the_branch_back(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reserve("other")
    real_fsync, faults = os.fsync, []

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}") and "claims" in os.readlink(f"/proc/self/fd/{fd}"):
            if fault != "an interrupt":
                raise OSError(errno.EIO, "Input/output error")
            if not faults:
                faults.append(fault)
                raise KeyboardInterrupt
        real_fsync(fd)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc/self/fd to tell descriptors by")
    monkeypatch.setattr(os, "fsync", fsync)
    pid = world.host.spawn(["agent"])
    expected = KeyboardInterrupt if fault == "an interrupt" else OutcomeUnknown
    with pytest.raises(expected):
        world.try_reserve(pid=pid)
    monkeypatch.undo()
    assert why_branch(world.registry, "main").state == "free"
    assert world.reserve().fence == 2, "the first one was visible for a moment"
