"""Whole commands beside a bare interpreter, by the processor time of the child."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from heddle_registry import AgentRegistry
from tests.benchmarks.folders import ROOT, fill, median


def _cpu(words, env, samples: int, stdin: str = "") -> float:
    times = []
    for _ in range(samples):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, env=env, input=stdin, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return median(times)


def measure(base: Path, samples: int) -> dict[str, float]:
    """Seconds of processor time of each command at 1,000 entries."""
    heddle = base / "commands" / ".heddle"
    fill(heddle, 1000)
    registry = AgentRegistry(heddle)
    registry.list()
    env = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        "HEDDLE_DIR": str(heddle),
        "PYTHONPATH": str(ROOT),
    }
    out = {"bare": _cpu([sys.executable, "-I", "-c", "pass"], env, samples)}
    out["import attrs"] = _cpu([sys.executable, "-I", "-c", "import attrs"], env, samples)
    script = Path(sys.executable).with_name("heddle-registry")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "heddle_registry"]
    with registry.reserve("held", ttl_s=3600) as claim:
        beat = {**env, "HEDDLE_AGENT_TOKEN": claim.token}
        subprocess.run([*program, "heartbeat", claim.session_id], env=beat, check=True,
                       capture_output=True)  # fmt: skip
        out["heartbeat"] = _cpu([*program, "heartbeat", claim.session_id], beat, samples)
        out["why"] = _cpu([*program, "why", "held"], env, samples)
    number = iter(range(10_000))
    out["reserve"] = median(
        _cpu([*program, "reserve", f"new/{next(number)}"], env, 1) for _ in range(samples)
    )
    out["relay"] = _cpu(
        [*program, "relay", "claude-code", "SessionStart"], env, samples,
        '{"session_id": "11111111-2222-3333-4444-555555555555", "hook_event_name": "SessionStart"}',
    )  # fmt: skip
    out["list, plain"] = _cpu([*program, "list"], env, samples)
    out["list, for people"] = _cpu(
        [*program, "list"], {**env, "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}, samples
    )
    return out
