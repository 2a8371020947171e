"""Several processes at once: how much they do together, and whether each gets its share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.folders import ROOT

WORKER = """
import json, os, sys, time
from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, Reserved
heddle, branch, span, in_line = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "line"
registry = AgentRegistry(heddle)
registry.load("agent-none")
print("ready", flush=True)
sys.stdin.readline()
def build(session_id):
    return AgentEntry(session_id=session_id, thread=branch, base_state="b", pid=os.getpid(),
                      started_at=registry.host.now().at, status=AgentStatus.ACTIVE)
done, worst, fences = 0, 0.0, []
end = time.perf_counter() + span
asked = time.perf_counter()
while time.perf_counter() < end:
    if in_line:
        with registry.reserve(branch, wait_s=600) as claim:
            worst = max(worst, time.perf_counter() - asked)
            fences.append(claim.fence)
    else:
        outcome = registry.try_reserve_thread(branch, build)
        assert isinstance(outcome, Reserved)
        worst = max(worst, time.perf_counter() - asked)
        registry.release(outcome.entry.session_id, token=outcome.token)
        fences.append(outcome.fence)
    done += 1
    asked = time.perf_counter()
print(json.dumps([done, worst, fences]), flush=True)
"""


def measure(base: Path, processes: int, *, one_branch: bool, span_s: float) -> dict[str, float]:
    """Reserve and release as often as possible; every fence is checked to be given once.

    On one branch each waits in line for its turn.
    """
    heddle = base / f"c{processes}{'one' if one_branch else 'many'}" / ".heddle"
    heddle.mkdir(parents=True)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(heddle),
             "branch" if one_branch else f"branch-{number}", str(span_s),
             "line" if one_branch else "alone"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in range(processes)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    answers = [json.loads(worker.communicate()[0]) for worker in workers]
    done = [answer[0] for answer in answers]
    if one_branch:
        fences = [fence for answer in answers for fence in answer[2]]
        assert len(fences) == len(set(fences)), "a fence was given twice"
    share = sum(done) / processes
    return {
        "rate": sum(done) / span_s,
        "luckiest": max(done) / share if share else 0.0,
        "unluckiest": min(done) / share if share else 0.0,
        "worst wait": max(answer[1] for answer in answers),
    }
