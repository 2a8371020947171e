"""Repairs that are killed, two at a time: no file is lost, and the next one ends the work."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from heddle_registry import AgentRegistry
from heddle_registry.adapters import examination
from heddle_registry.adapters.layout import thread_hash
from heddle_registry.core.transaction import Keys
from heddle_registry.diagnosis import mend
from heddle_registry.ports.query import Query
from tests.process_helpers import forks_with_threads

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.ports.findings import Check

ROUNDS = 100
AT_ONCE = 2

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    forks_with_threads,
]


def damage(heddle_dir: Path, number: int) -> list[bytes]:
    """Put three damaged files there, as if long ago; return what they hold."""
    claim = f"{thread_hash(f'b{number}')}.toml"
    files = {
        f"agents/bad-{number}.toml": f"= {number}",
        f"agents/else-{number}.toml": (
            f'session_id = "agent-{number}"\nthread = "t{number}"\nbase_state = "b"\n'
            f'started_at = "2026-07-01T12:00:00Z"\nstatus = "active"\n'
        ),
        f"claims/{claim}": f'schema = 1\nthread = "b{number}"\nfence = {number + 10}\n[holder\n',
    }
    for name, text in files.items():
        temp = heddle_dir.parent / "temp"
        temp.write_text(text)
        os.utime(temp, (1, 1))
        temp.rename(heddle_dir / name)
    return [text.encode() for text in files.values()]


def mendable(registry: AgentRegistry) -> list[Check]:
    return [c for c in registry.store.examine(registry.host) if c.repair is not None]


def everything(heddle_dir: Path) -> list[bytes]:
    files = (path for name in ("agents", "claims") for path in (heddle_dir / name).rglob("*"))
    return [path.read_bytes() for path in files if path.is_file()]


def test_killed_repairs_lose_no_file_and_let_no_fence_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heddle_dir = tmp_path / ".heddle"
    registry = AgentRegistry(heddle_dir, lock_timeout_s=60)
    monkeypatch.setattr(examination, "lock_fault", lambda _: None)  # it starts a process
    with registry.reserve("main"):
        pass
    damage(heddle_dir, 0)
    for check in mendable(registry):
        assert mend(check).done, "so that no child spends its life on imports"
    seed = random.randrange(1 << 32)
    print("seed", seed)
    choices = random.Random(seed)
    kept: list[bytes] = []
    cut_short = 0
    for number in range(1, ROUNDS):
        kept += damage(heddle_dir, number)
        pids = []
        for _ in range(AT_ONCE):
            pid = os.fork()
            if pid == 0:
                try:
                    while found := mendable(registry):
                        for check in found:
                            mend(check)
                    os._exit(0)
                finally:
                    os._exit(7)
            pids.append(pid)
        time.sleep(choices.random() * (0.03 if number % 2 else 0.005))  # quick machines, too
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a repair failed"
        found_now = everything(heddle_dir)
        assert all(data in found_now for data in kept[-9:]), "a damaged file is lost"
        cut_short += bool(mendable(registry))
    assert cut_short > ROUNDS / 10, "they came to be interrupted"
    while found := mendable(registry):
        results = [mend(check) for check in found]
        assert all(result.done for result in results), results
    look = registry.store.look(Query(include_stale=True))
    assert look.problems == ()
    assert {entry.session_id for entry in look.entries} >= {f"agent-{n}" for n in range(ROUNDS)}
    threads = tuple(f"b{number}" for number in range(ROUNDS))
    claims = registry.store.peek(Keys(threads=threads))[0].claims
    for number in range(ROUNDS):
        assert claims[f"b{number}"].fence > number + 10, "a fence fell"
    found_now = everything(heddle_dir)
    assert all(data in found_now for data in kept)
    assert list((heddle_dir / "tmp").iterdir()) == []
