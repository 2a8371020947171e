"""Histories of concurrent processes with kills and pauses past the TTL, by every door."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import attrs
import pytest

from heddle_registry import AgentRegistry
from tests.process_helpers import ROOT, Child, python
from tests.reliability.linearizability import NEVER, Call, drawn, faults_of, has_an_order

TTL_S = 1.0
EPOCH_S = 4.0
SEARCHED = 40
SAVED = Path(os.environ.get("HEDDLE_TEST_HISTORIES", tempfile.gettempdir()))

WORKER = """
import contextlib, json, os, random, subprocess, sys, time
from heddle_registry import AgentRegistry, ClaimLost, Held, Reserved
from heddle_registry.errors import RegistryError
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.reservation import HeldClaim
from heddle_registry.registry.scripting import build_entry

folder, log, name, seed, start, script = sys.argv[1:]
registry = AgentRegistry(folder, lock_timeout_s=60)
chance = random.Random(seed)
out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0

def note(**what):
    os.write(out, (json.dumps(what) + "\\n").encode())

@contextlib.contextmanager
def noted(kind, branch, fence=0, ttl_s=None, owned=True):
    global number
    number += 1
    this, answer = number, {}
    note(id=this, kind=kind, branch=branch, fence=fence, ttl_s=ttl_s, owned=owned,
         began=time.monotonic())
    yield answer
    note(id=this, ended=time.monotonic(), **answer)

plain_renew = HeldClaim.renew
def renew(claim):
    with noted("renew", claim.thread, claim.fence, 1.0) as answer:
        try:
            plain_renew(claim)
            answer.update(ok=True)
        except ClaimLost:
            answer.update(ok=False)
            lost = True
        except RegistryError:
            lost = False
        else:
            return
    if lost:
        raise ClaimLost(claim.thread)
HeldClaim.renew = renew

def branch():
    epoch = int((time.monotonic() - float(start)) / 4.0)
    return f"{epoch}/{chance.choice('ab')}"

def use(b, session, token, fence, renewing=True, heartbeat=None):
    # Some stay for longer than the first TTL, by renewals alone; of commands more.
    stays = renewing and chance.random() < (0.05 if heartbeat is None else 0.5)
    heartbeat = heartbeat or registry.heartbeat
    for _ in range(3 if stays else chance.randrange(4)):
        if stays or (renewing and chance.random() < 0.5):
            with noted("renew", b, fence) as answer:
                try:
                    heartbeat(session, token)
                    answer.update(ok=True)
                except ClaimLost:
                    answer.update(ok=False)
        with noted("check", b, fence) as answer:
            answer.update(ok=registry.check(b, fence).valid)
        time.sleep(0.45 if stays else chance.random() * 0.05)

def release(b, session, token, fence):
    with noted("release", b, fence) as answer:
        try:
            registry.release(session, token=token)
            answer.update(ok=True)
        except RegistryError:
            answer.update(ok=False)

def by_api(b):
    owned = chance.random() < 0.5
    terms = Terms(owner=registry.owner_for(os.getpid())) if owned else Terms(ttl_s=1.0)
    with noted("reserve", b, ttl_s=None if owned else 1.0, owned=owned) as answer:
        got = registry.reserve_on_terms(b, build_entry(registry, b, base_state="b"), terms)[0]
        answer.update(ok=isinstance(got, Reserved), fence=getattr(got, "fence", 0))
    if isinstance(got, Reserved):
        use(b, got.entry.session_id, got.token, got.fence)
        if owned or chance.random() < 0.6:
            release(b, got.entry.session_id, got.token, got.fence)

def by_block(b):
    with contextlib.ExitStack() as stack:
        with noted("reserve", b, ttl_s=1.0) as answer:
            try:
                claim = stack.enter_context(registry.reserve(b, ttl_s=1.0, base_state="b"))
                answer.update(ok=True, fence=claim.fence)
            except Held:
                answer.update(ok=False)
                claim = None
        if claim is None:
            return
        use(b, claim.session_id, claim.token, claim.fence, renewing=False)
        leaving = noted("release", b, claim.fence)
        answer = leaving.__enter__()
        try:
            stack.close()
            answer.update(ok=True)
        except RegistryError:
            answer.update(ok=False)
        leaving.__exit__(None, None, None)

def by_command(b):
    def run(*words):
        done = subprocess.run([sys.executable, script, *words, "--heddle-dir", folder, "--json"],
                              capture_output=True, text=True)
        return done.returncode, json.loads(done.stdout)
    def heartbeat(session, token):
        # Plain, as scripts run it: without the registry where that can be.
        words = ["heartbeat", session, "--token", token, "--heddle-dir", folder]
        done = subprocess.run([sys.executable, script, *words], capture_output=True)
        assert done.returncode in (0, 11), done
        if done.returncode:
            raise ClaimLost(b)
    with noted("reserve", b, ttl_s=1.0, owned=False) as answer:
        status, got = run("reserve", b, "--ttl", "1", "--base-state", "b")
        answer.update(ok=status == 0, fence=got.get("fence", 0))
        assert status in (0, 5), got
    if status == 0:
        session, token = got["entry"]["session_id"], got["token"]
        use(b, session, token, got["fence"], heartbeat=heartbeat)
        with noted("release", b, got["fence"]) as answer:
            ended, _ = run("release", session, "--status", "complete", "--token", token)
            answer.update(ok=ended == 0)

print("ready", flush=True)
doors = [by_api] * 5 + [by_block] * 4 + [by_command]
while True:
    chance.choice(doors)(branch())
    time.sleep(chance.random() * 0.02)
"""


def read_log(path: Path, who: str) -> list[Call]:
    """Return the calls of one process; one without an end was cut short by its death."""
    begun: dict[int, dict] = {}
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for line in lines:
        told = json.loads(line)
        begun.setdefault(told["id"], {}).update(told)
    return [
        Call(
            kind=told["kind"],
            who=who,
            branch=told["branch"],
            began=told["began"],
            ended=told.get("ended", NEVER),
            ok=told.get("ok"),
            fence=told["fence"],
            ttl_s=NEVER if told["ttl_s"] is None else told["ttl_s"],
            # A command that nobody is left to answer gives back what it was granted.
            dies_with=who if told["owned"] or "ended" not in told else "",
        )
        for told in begun.values()
    ]


@attrs.define
class Storm:
    """Workers on one registry, killed and stopped at random."""

    folder: Path
    seed: int
    kills: int = 0
    pauses: int = 0
    logs: dict[str, Path] = attrs.Factory(dict)
    deaths: dict[str, float] = attrs.Factory(dict)
    started: float = attrs.Factory(time.monotonic)

    def worker(self, stack: contextlib.ExitStack) -> tuple[str, Child]:
        name = f"w{len(self.logs)}"
        self.logs[name] = self.folder / f"{name}.log"
        script = ROOT / "heddle_registry" / "cli" / "heddle-registry"
        arguments = (self.folder / ".heddle", self.logs[name], name, f"{self.seed}{name}",
                     self.started, script)  # fmt: skip
        child = stack.enter_context(python(WORKER, *arguments))
        return name, child

    def end(self, name: str, child: Child) -> None:
        # The moment before: once it is dead, another may be granted what it held while we wait.
        self.deaths[name] = time.monotonic()
        child.kill()

    def blow(self, seconds: float, workers: int = 5) -> dict[str, list[Call]]:
        """Let it blow, then return the calls of each branch."""
        chance = random.Random(self.seed)
        with contextlib.ExitStack() as stack:
            running = [self.worker(stack) for _ in range(workers)]
            for _, child in running:
                assert child.line(60) == "ready"
            stopped: list[tuple[float, Child]] = []
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(0.1)
                now = time.monotonic()
                for until, child in [s for s in stopped if s[0] < now]:
                    child.send(signal.SIGCONT)
                    stopped.remove((until, child))
                at = chance.randrange(len(running))
                name, child = running[at]
                if any(child is paused for _, paused in stopped):
                    continue
                if chance.random() < 0.1:
                    self.end(name, child)
                    self.kills += 1
                    running[at] = self.worker(stack)
                elif chance.random() < 0.1:
                    child.send(signal.SIGSTOP)
                    self.pauses += 1
                    stopped.append((now + TTL_S * chance.choice([0.5, 1.5, 2.0]), child))
            for _, child in stopped:
                child.send(signal.SIGCONT)
            for name, child in running:
                self.end(name, child)
        branches: dict[str, list[Call]] = collections.defaultdict(list)
        for name, path in self.logs.items():
            for call in read_log(path, name):
                branches[call.branch].append(call)
        return branches


def beginning_of(calls: list[Call]) -> list[Call]:
    """Return the first calls, those that outlasted them as if they had been cut short."""
    ordered = sorted(calls, key=lambda call: call.began)
    until = ordered[SEARCHED].began if len(ordered) > SEARCHED else NEVER
    return [
        call if call.ended < until else attrs.evolve(call, ended=NEVER, ok=None)
        for call in ordered[:SEARCHED]
    ]


def check_history(branch: str, calls: list[Call], deaths: dict[str, float]) -> None:
    """Fail with a drawing, saved to a file, where the history could not have been."""
    faults = faults_of(calls, deaths)
    searched = None
    if not faults:
        # The search is a second opinion, on as much of the history as it can get through.
        searched = has_an_order(beginning_of(calls), deaths)
    if not faults and searched is not False:
        return
    text = drawn(calls, deaths, faults)
    saved = SAVED / f"history-{os.getpid()}-{branch.replace('/', '-')}.txt"
    saved.write_text(text)
    told = "; ".join(fault.what for fault in faults) or "no order of the calls explains it"
    raise AssertionError(f"branch {branch}: {told}. Drawn in {saved}:\n{text}")


def blow_and_check(folder: Path, seconds: float, seed: int) -> collections.Counter[str]:
    storm = Storm(folder, seed)
    branches = storm.blow(seconds)
    counts: collections.Counter[str] = collections.Counter(kills=storm.kills, pauses=storm.pauses)
    for branch, calls in branches.items():
        check_history(branch, calls, storm.deaths)
        for call in calls:
            answer = {True: "yes", False: "no", None: "cut short"}[call.ok]
            counts[f"{call.kind} {answer}"] += 1
        counts["branches"] += 1
    # Nothing is damaged, and the next writer finds no temp file.
    registry = AgentRegistry(folder / ".heddle")
    assert registry.look().problems == ()
    with registry.reserve("after the storm"):
        assert not list((folder / ".heddle" / "tmp").iterdir())
    return counts


def test_every_history_could_have_been_one_claims(tmp_path: Path) -> None:
    wanted = {"reserve yes", "reserve no", "renew yes", "check yes", "release yes", "kills",
              "pauses"}  # fmt: skip
    counts: collections.Counter[str] = collections.Counter()
    for number in range(8):  # once, but where the disk is so slow that little happens
        folder = tmp_path / str(number)
        folder.mkdir()
        counts.update(blow_and_check(folder, 16.0, seed=random.randrange(10**6)))
        if wanted <= (+counts).keys():
            break
    print(dict(counts))
    assert wanted <= (+counts).keys()


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_long_storm(tmp_path: Path) -> None:
    total: collections.Counter[str] = collections.Counter()
    for seed in range(12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        total.update(blow_and_check(folder, 30.0, seed))
    print(dict(total))


# -- the checker itself ------------------------------------------------------------------------


def call(kind: str, who: str, began: float, ended: float = NEVER, **told: object) -> Call:
    told.setdefault("ok", True)
    return Call(kind=kind, who=who, branch="b", began=began, ended=ended, **told)  # type: ignore[arg-type]


GOOD = [
    call("reserve", "a", 0, 1, fence=1, ttl_s=10, dies_with="a"),
    call("reserve", "b", 0.5, 2, ok=False),
    call("renew", "a", 3, 4, fence=1),
    call("check", "a", 5, 6, fence=1),
    call("reserve", "c", 12, 14, fence=2, ttl_s=10),  # the TTL passed at 13
    call("renew", "a", 15, 16, fence=1, ok=False),
    call("release", "c", 17, 18, fence=2),
    call("reserve", "d", 17.5, 19, fence=3),
]
BAD = {
    "one fence, two holders": [
        call("reserve", "a", 0, 1, fence=1, ttl_s=1), call("reserve", "b", 3, 4, fence=1),
    ],
    "a fence fell": [
        call("reserve", "a", 0, 1, fence=2, ttl_s=0.1), call("reserve", "b", 3, 4, fence=1),
    ],
    "granted while another held it": [
        call("reserve", "a", 0, 1, fence=1, ttl_s=100), call("reserve", "b", 3, 4, fence=2),
    ],
    "renew of a fence that was taken": [
        call("reserve", "a", 0, 1, fence=1, ttl_s=1), call("reserve", "b", 3, 4, fence=2),
        call("renew", "a", 5, 6, fence=1),
    ],
    "check of a fence that was taken": [
        call("reserve", "a", 0, 1, fence=1, ttl_s=1), call("reserve", "b", 3, 4, fence=2),
        call("check", "a", 5, 6, fence=1),
    ],
    "check refused to its holder": [
        call("reserve", "a", 0, 1, fence=1), call("check", "a", 5, 6, fence=1, ok=False),
    ],
    "renew refused to its holder": [
        call("reserve", "a", 0, 1, fence=1), call("renew", "a", 5, 6, fence=1, ok=False),
    ],
    "refused, though nobody can have held it": [
        call("reserve", "a", 0, 1, fence=1), call("release", "a", 2, 3, fence=1),
        call("reserve", "b", 4, 5, ok=False),
    ],
}  # fmt: skip


def test_the_checker_accepts_what_a_claim_can_do() -> None:
    assert faults_of(GOOD, {}) == []
    assert has_an_order(GOOD, {}) is True
    dead = [call("reserve", "a", 0, 1, fence=1, dies_with="a"), call("renew", "a", 2, ok=None),
            call("reserve", "b", 3, 4, fence=2)]  # fmt: skip
    assert faults_of(dead, {"a": 2.5}) == []
    assert has_an_order(dead, {"a": 2.5}) is True


@pytest.mark.parametrize("what", BAD)
def test_the_checker_and_the_search_each_find_what_no_claim_can_do(what: str) -> None:
    found = faults_of(BAD[what], {})
    assert what in [fault.what for fault in found]
    assert has_an_order(BAD[what], {}) is False
    text = drawn(BAD[what], {"a": 9}, found)
    assert f"WRONG: {what}" in text
    assert "<-- here" in text
    with pytest.raises(AssertionError, match="Drawn in"):
        check_history("b", BAD[what], {})
