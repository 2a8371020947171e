"""Registries of a given size, and a process beside us that changes them."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import attrs

from heddle_registry import AgentStatus
from heddle_registry.adapters.layout import Layout, thread_hash
from heddle_registry.codec import claim_to_toml, entry_from_toml, entry_to_toml
from heddle_registry.core.claim import Claim, EndCause, PastHolder
from heddle_registry.core.timestamp import Timestamp

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "data" / "golden" / "golden-full.toml"

CHANGER = """
import attrs, os, sys
from heddle_registry import AgentRegistry
from heddle_registry.codec import entry_from_toml, entry_to_toml
heddle = sys.argv[1]
registry = AgentRegistry(heddle)
for line in sys.stdin:
    how, session_id, model = line.split()
    if how == "ours":
        registry.update_entry(session_id, lambda entry: attrs.evolve(entry, model=model))
    else:
        # As a program that knows no index: replace the file, under the same lock.
        import fcntl
        with open(heddle + "/agents/.lock", "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = f"{heddle}/agents/{session_id}.toml"
            with open(path, "rb") as file:
                entry = entry_from_toml(file.read(), path)
            with open(path + ".tmp", "wb") as file:
                file.write(entry_to_toml(attrs.evolve(entry, model=model)))
                file.flush()
                os.fsync(file.fileno())
            os.rename(path + ".tmp", path)
    print("done", flush=True)
"""


def session_id(number: int) -> str:
    return f"agent-{number:06d}"


def fill(heddle: Path, count: int) -> None:
    """Write ``count`` entries of the size of golden-full, each with keys of its own."""
    agents = heddle / "agents"
    agents.mkdir(parents=True)
    heddle.chmod(0o700)
    golden = entry_from_toml(GOLDEN.read_bytes(), str(GOLDEN))
    for number in range(count):
        entry = attrs.evolve(
            golden,
            session_id=session_id(number),
            thread=f"feature/{number}",
            thread_id=f"feature/{number}",
            native_actor_key=f"codex:thread:{number}",
            client_instance_id=f"client-{number}",
            heddle_session_id=f"sess-{number}",
            path=f"/home/dev/work/{number}",
            pid=1,  # lives as long as the machine
            boot_id=None,
            status=AgentStatus.ACTIVE,
            reservation_token=None,
        )
        (agents / f"{entry.session_id}.toml").write_bytes(entry_to_toml(entry))


def fill_claims(heddle: Path, count: int) -> None:
    """Write ``count`` claims of branches that somebody had before; claims are never pruned."""
    claims = Path(Layout(str(heddle)).claims)
    for number in range(count):
        past = PastHolder(
            session_id=f"agent-past-{number}", fence=1, ended_at=Timestamp("2026-07-01T12:00:00Z"),
            cause=EndCause.RELEASED,
        )  # fmt: skip
        claim = Claim(thread=f"past/{number}", fence=1, past=(past,))
        (claims / f"{thread_hash(claim.thread)}.toml").write_bytes(claim_to_toml(claim))


@attrs.define
class Changer:
    """Another process that changes one random entry whenever it is told to."""

    process: subprocess.Popen[str]
    count: int
    chance: random.Random

    def change(self, how: str) -> tuple[int, str]:
        """Change a random entry; its number and its new model."""
        number = self.chance.randrange(self.count)
        model = f"model-{self.chance.randrange(10**9)}"
        self.process.stdin.write(f"{how} {session_id(number)} {model}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"
        return number, model


@contextlib.contextmanager
def changer(heddle: Path, count: int):
    process = subprocess.Popen(
        [sys.executable, "-c", CHANGER, str(heddle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield Changer(process, count, random.Random(count))
    finally:
        process.stdin.close()
        process.wait(20)


WRITER = """
import os, sys
from heddle_registry import AgentEntry, AgentRegistry, AgentStatus
registry = AgentRegistry(sys.argv[1])
def build(session_id):
    return AgentEntry(session_id=session_id, thread="busy", base_state="b", pid=os.getpid(),
                      started_at=registry.host.now().at, status=AgentStatus.ACTIVE)
while True:
    outcome = registry.try_reserve_thread("busy", build)
    registry.release(outcome.entry.session_id, token=outcome.token)
    registry.delete(outcome.entry.session_id)
    print("wrote", flush=True)
"""


@contextlib.contextmanager
def busy_writer(heddle: Path):
    """Another process that reserves, releases and deletes for as long as the body runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(heddle)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout.readline() == "wrote\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def seconds(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median(samples) -> float:
    ordered = sorted(samples)
    return ordered[len(ordered) // 2]
