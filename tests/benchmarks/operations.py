"""Every operation in one process, beside the floor and the scan timed in the same run."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import tomli

from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, Query, Reserved
from tests.benchmarks.folders import (
    ROOT,
    busy_writer,
    changer,
    fill,
    fill_claims,
    median,
    seconds,
    session_id,
)

REBUILD = """
import os, sys, time
from heddle_registry import AgentRegistry, Query
registry = AgentRegistry(sys.argv[1])
registry.load("agent-none")            # imports paid
for name in os.listdir(sys.argv[1]):
    if name.startswith("index.sqlite"):
        os.unlink(os.path.join(sys.argv[1], name))
started = time.perf_counter()
found = registry.look(Query(thread="feature/1"))
print(time.perf_counter() - started, len(found.entries))
"""

FRESH_LIST = """
import json, sys, time
from heddle_registry import AgentRegistry, Query
registry = AgentRegistry(sys.argv[1])
registry.load("agent-none")            # imports paid: this is about reading
started = time.perf_counter()
entries = registry.list()
print(time.perf_counter() - started, len(entries))
"""


def floor_in(folder: Path):
    """Return a call that does the least: one file of 1.5 KB made durable under a lock."""
    folder.mkdir(exist_ok=True)
    data = b"x" * 1500

    def once() -> None:
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        fd = os.open(folder / "temp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        os.rename(folder / "temp", folder / "file")
        parent = os.open(folder, os.O_RDONLY)
        os.fsync(parent)
        os.close(parent)
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)

    return once


def scan(agents: Path, samples: int) -> float:
    """Open, read and parse every file, as the original does for every question."""

    def once() -> None:
        for name in os.listdir(agents):
            if name.endswith(".toml"):
                with open(agents / name, encoding="utf-8") as file:
                    tomli.loads(file.read())

    return median(seconds(once) for _ in range(samples))


def measure(base: Path, count: int, samples: int) -> dict[str, float]:
    """Seconds of each operation at ``count`` entries; every answer is asserted."""
    heddle = base / f"n{count}" / ".heddle"
    fill(heddle, count)
    out: dict[str, float] = {}
    tries = 3 if count <= 10_000 else 1
    out["scan"] = scan(heddle / "agents", tries)
    registry = AgentRegistry(heddle)
    registry.load("agent-none")  # imports paid
    # The first question that needs it makes the index; this one has a short answer.
    out["rebuild"] = median(_in_new_process(REBUILD, heddle, 1) for _ in range(tries))
    with changer(heddle, count) as beside:
        out |= _claims(registry, beside, samples, floor_in(base / "floor"))
        looks = _look_ups(registry, beside, samples)
        out["load"] = median(_loads(heddle, beside, samples))
    if count <= 10_000:
        out["look-up, nobody writes"] = median(_quiet_look_ups(registry, count))
        with busy_writer(heddle):
            out["look-up beside a writer"] = median(_quiet_look_ups(registry, count))
    if count <= 10_000:
        registry.list()
        out["list again"] = median(seconds(registry.list) for _ in range(5))
        out["list fresh"] = median(_in_new_process(FRESH_LIST, heddle, count) for _ in range(7))
    # Again, some seconds later: what else the machine does comes and goes.
    with changer(heddle, count) as beside:
        for name, times in _look_ups(registry, beside, samples).items():
            out[name] = median([*looks[name], *times])
    if count <= 10_000:
        fill_claims(heddle, count)
        registry.list()
        with changer(heddle, count) as beside:
            among = _claims(registry, beside, samples, floor_in(base / "floor"))
        out["reserve, as many claims"] = among["reserve"]
    return out


def _claims(registry, beside, samples, least) -> dict[str, float]:
    def build(session_id: str) -> AgentEntry:
        return AgentEntry(
            session_id=session_id, thread="bench", base_state="b", pid=os.getpid(),
            started_at=registry.host.now().at, status=AgentStatus.ACTIVE,
        )  # fmt: skip

    times: dict[str, list[float]] = {"floor": [], "reserve": [], "heartbeat": [], "release": []}
    first = 0
    for number in range(samples):
        beside.change("ours")
        # Between the others, because a disk is as fast as its other users leave it.
        times["floor"] += [seconds(least), seconds(least)]
        outcome = None

        def reserve() -> None:
            nonlocal outcome
            outcome = registry.try_reserve_thread("bench", build)

        times["reserve"].append(seconds(reserve))
        assert isinstance(outcome, Reserved)
        entry, token, fence = outcome.entry, outcome.token, outcome.fence
        first = first or fence
        assert fence == first + number
        beat = seconds(lambda: registry.heartbeat(entry.session_id, token))
        times["heartbeat"].append(beat)
        assert registry.check("bench", fence).valid
        times["release"].append(seconds(lambda: registry.release(entry.session_id, token=token)))
        assert not registry.check("bench", fence).valid
        registry.delete(entry.session_id)
    return {name: median(samples) for name, samples in times.items()}


def _look_ups(registry, beside, samples) -> dict[str, list[float]]:
    questions = {
        "by native actor": lambda n: registry.find_active_by_native_actor_key(f"codex:thread:{n}"),
        "by client instance": lambda n: registry.find_active_by_client_instance_id(f"client-{n}"),
        "by heddle session": lambda n: registry.find_active_by_heddle_session_id(f"sess-{n}"),
        "by path": lambda n: registry.find_active_by_path(f"/home/dev/work/{n}"),
        "by thread": lambda n: registry.look(Query(thread=f"feature/{n}")).entries[0],
    }
    out = {}
    for who in ("ours", "stranger"):
        for name, question in questions.items():
            times = []
            for _ in range(samples if who == "ours" else max(3, samples // 4)):
                number, model = beside.change(who)
                answer = None

                def ask() -> None:
                    nonlocal answer
                    answer = question(number)

                times.append(seconds(ask))
                assert answer.session_id == session_id(number)
                assert answer.model == model
            out[f"{name}, {who}"] = times
    return out


def _quiet_look_ups(registry, count):
    times = []
    for number in range(200):
        key = f"codex:thread:{number % count}"
        times.append(seconds(lambda key=key: registry.find_active_by_native_actor_key(key)))
    return times


def _loads(heddle, beside, samples):
    # Of an entry that nobody changed: of a changed one the file must be read, whatever is kept.
    times = []
    for _ in range(samples):
        number, model = beside.change("ours")
        assert AgentRegistry(heddle).load(session_id(number)).model == model
        other = session_id((number + 1) % beside.count)
        AgentRegistry(heddle).load(other)
        times.append(seconds(lambda: AgentRegistry(heddle).load(other)))
    return times


def _in_new_process(code: str, heddle: Path, least: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", code, str(heddle)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    taken, found = done.stdout.split()
    assert int(found) >= least
    return float(taken)
