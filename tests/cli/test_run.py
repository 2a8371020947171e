"""``run``: the main job, with real commands, signals and kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heddle_registry import AgentRegistry, AgentStatus, Held
from heddle_registry.explain import why_branch
from tests.process_helpers import until

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="run needs fork")
pytestmark = POSIX


@pytest.fixture
def heddle(tmp_path):
    return tmp_path / ".heddle"


@pytest.fixture
def start(heddle, tmp_path):
    """Start ``heddle-registry run``; whatever still lives at the end of the test is killed."""
    started = []

    def begin(*words, **options):
        process = subprocess.Popen(
            [sys.executable, "-m", "heddle_registry", "--heddle-dir", str(heddle), "run", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finished(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def command_pid(process):
    """Wait until the command has announced itself and return its pid."""
    return int(process.stdout.readline())


SLEEPER = ("sh", "-c", "echo $$; exec sleep 100")


@pytest.mark.parametrize(
    ("script", "status", "ended"),
    [("exit 0", 0, "complete"), ("exit 3", 3, "abandoned"), ("kill -9 $$", 137, "abandoned")],
)
def test_the_status_is_the_commands_own_and_the_claim_ends_with_it(
    start, heddle, script, status, ended
):
    assert finished(start("feature/x", "--", "sh", "-c", script))[0] == status
    registry = AgentRegistry(heddle)
    [entry] = registry.list()
    assert entry.status == AgentStatus(ended)
    assert why_branch(registry, "feature/x").state == "free"


def test_the_command_gets_what_scripts_need_and_not_the_marks_of_harnesses_around(start, heddle):
    process = start(
        "feature/x", "--", sys.executable, "-c",
        "import os, json; print(json.dumps({k: v for k, v in os.environ.items()"
        " if k.startswith(('HEDDLE', 'CLAUDE'))}))",
    )  # fmt: skip
    status, out, err = finished(process)
    assert status == 0, err
    variables = json.loads(out)
    [entry] = AgentRegistry(heddle).list()
    assert variables["HEDDLE_DIR"] == str(heddle)
    assert variables["HEDDLE_THREAD"] == "feature/x"
    assert variables["HEDDLE_AGENT_SESSION_ID"] == entry.session_id
    assert variables["HEDDLE_AGENT_FENCE"] == "1"
    assert len(variables["HEDDLE_AGENT_TOKEN"]) == 40
    assert not [name for name in variables if name.startswith("CLAUDE")]


def test_a_second_run_is_told_who_holds_the_branch(start, heddle):
    first = start("feature/x", "--", *SLEEPER)
    pid = command_pid(first)
    status, out, err = finished(start("feature/x", "--json", "--", "true"))
    assert status == 75
    assert err.startswith("heddle-registry: ")
    assert f"process {pid} (sh) runs" in err
    assert json.loads(out)["error"]["code"] == "held"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["feature/x", "--", "no-such-program-here"], 127),
        (["feature/x", "--", "/"], 126),
        (["feature/x"], 125),
        (["feature/x", "--force", "--", "true"], 125),
        (["two\nlines", "--", "true"], 125),
        (["feature/x", "--wait", "-1", "--", "true"], 125),
    ],
)
def test_our_own_failures_have_statuses_of_their_own_and_leave_the_branch_free(
    start, heddle, words, status
):
    code, _, err = finished(start(*words))
    assert (code, err.startswith("heddle-registry: ")) == (status, True)
    assert why_branch(AgentRegistry(heddle), "feature/x").state == "free"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_runner_reaches_the_command(start, heddle, number):
    process = start(
        "feature/x", "--", "sh", "-c",
        f"trap 'echo got; exit 42' {int(number)}; echo $$; while :; do sleep 0.05; done",
    )  # fmt: skip
    command_pid(process)
    os.kill(process.pid, number)
    status, out, _ = finished(process)
    assert (status, out) == (42, "got\n")


def test_without_the_runner_the_claim_stands_until_the_command_ends(start, heddle):
    process = start("feature/x", "--", *SLEEPER)
    pid = command_pid(process)
    runner = process.pid
    os.kill(runner, signal.SIGKILL)
    process.wait(60)

    registry = AgentRegistry(heddle)
    with pytest.raises(Held), registry.reserve("feature/x"):
        pass
    story = why_branch(registry, "feature/x")
    assert story.state == "held"
    assert any(
        f"runner (process {runner}) is gone" in s and f"process {pid} of its command lives" in s
        for s in story.sentences
    )

    os.kill(pid, signal.SIGKILL)
    until(lambda: why_branch(registry, "feature/x").state == "free", "the branch")
    with registry.reserve("feature/x") as claim:
        assert claim.fence == 2


def test_runner_and_command_killed_at_once_free_the_branch_at_once(start, heddle):
    process = start("feature/x", "--", *SLEEPER)
    command_pid(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    until(lambda: why_branch(AgentRegistry(heddle), "feature/x").state == "free", "the branch")


def test_a_child_that_outlives_the_command_is_named_and_holds_nothing(start, heddle):
    process = start(
        "feature/x", "--", "sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $!; exit 0"
    )  # fmt: skip
    pid = command_pid(process)
    status, _, err = finished(process)
    assert status == 0
    assert f"process {pid} of it lives on without the claim" in err
    assert why_branch(AgentRegistry(heddle), "feature/x").state == "free"


def test_a_child_that_outlives_runner_and_command_keeps_the_branch(start, heddle):
    process = start("feature/x", "--", "sh", "-c", "sleep 100 & echo $$ $!; exec sleep 100")
    command, child = map(int, process.stdout.readline().split())
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    os.kill(command, signal.SIGKILL)
    registry = AgentRegistry(heddle)
    until(
        lambda: any(
            f"is gone, and process {child} of its command lives" in sentence
            for sentence in why_branch(registry, "feature/x").sentences
        ),
        "the runner's and its command's end",
    )
    assert why_branch(registry, "feature/x").state == "held"
    os.kill(child, signal.SIGKILL)
    until(lambda: why_branch(registry, "feature/x").state == "free", "the branch")


def test_a_command_that_closes_every_descriptor_still_holds_its_branch(start, heddle):
    process = start(
        "feature/x", "--", sys.executable, "-c",
        "import os; os.closerange(3, 100); print(os.getpid(), flush=True); "
        "import time; time.sleep(100)",
    )  # fmt: skip
    pid = command_pid(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert why_branch(AgentRegistry(heddle), "feature/x").state == "held"
    os.kill(pid, signal.SIGKILL)
    registry = AgentRegistry(heddle)
    until(lambda: why_branch(registry, "feature/x").state == "free", "the branch")


def test_a_run_that_lost_its_claim_says_so_and_gives_the_commands_status(start, heddle):
    process = start("feature/x", "--", "sh", "-c", "echo $$; read line; exit 7", stdin=-1)
    command_pid(process)
    registry = AgentRegistry(heddle)
    with registry.reserve("feature/x", force_reason="urgent fix") as claim:
        assert claim.fence == 2
        process.stdin.write("\n")
        process.stdin.flush()
        status, _, err = finished(process)
    assert status == 7
    assert "taken by force" in err
    assert "urgent fix" in err


def test_run_waits_in_line_when_asked_to(start, heddle):
    first = start("feature/x", "--", "sh", "-c", "echo $$; read line", stdin=-1)
    command_pid(first)
    second = start("feature/x", "--wait", "50", "--", "sh", "-c", "echo mine")
    wait_dir = heddle / "wait"
    until(lambda: any(wait_dir.rglob("*.wake")), "the second in line")
    first.stdin.write("\n")
    first.stdin.flush()
    assert finished(second)[:2] == (0, "mine\n")


def test_an_interrupt_while_waiting_starts_nothing_and_leaves_the_line(start, heddle):
    first = start("feature/x", "--", *SLEEPER)
    command_pid(first)
    second = start("feature/x", "--wait", "50", "--", "sh", "-c", "echo started")
    until(lambda: any((heddle / "wait").rglob("*.wake")), "the second in line")
    os.kill(second.pid, signal.SIGINT)
    status, out, _ = finished(second)
    assert (status, out) == (130, "")
    os.killpg(first.pid, signal.SIGKILL)
    assert finished(start("feature/x", "--wait", "20", "--", "true"))[0] == 0
