from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_list import put
from tests.process_helpers import ROOT, flock_holder, needs_proc_locks, python

if TYPE_CHECKING:
    from tests.cli.conftest import Heddle


def test_the_token_is_shown_once_and_the_next_asker_is_told_who_has_the_branch(
    heddle: Heddle,
) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    assert set(won) == {"schema", "outcome", "entry", "token", "fence", "present"}
    assert won["outcome"] == "reserved"
    assert won["fence"] == 1
    assert won["token"]
    lost = heddle.json("reserve", "main", "--ttl", "60", status=5)
    assert set(lost) == {
        "schema", "outcome", "state", "entry", "liveness", "why", "frees_when",
    }  # fmt: skip
    assert lost["outcome"] == "live_owner"
    assert lost["entry"]["session_id"] == won["entry"]["session_id"]
    assert lost["liveness"]["evidence"][0]["code"] == "ttl_running"
    told = heddle("reserve", "main", "--ttl", "60", status=5)
    assert told.out == ""
    assert won["entry"]["session_id"] in told.err
    assert won["token"] not in told.err + str(lost)


def test_the_bearer_gets_the_same_claim_again_but_the_variable_bears_nothing_here(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    monkeypatch.setenv("HEDDLE_AGENT_TOKEN", won["token"])
    heddle("reserve", "main", "--ttl", "60", status=5)
    again = heddle.json("reserve", "main", "--token", won["token"])
    assert again["fence"] == won["fence"]
    assert again["entry"]["session_id"] == won["entry"]["session_id"]
    file = heddle.folder.parent / "token"
    file.write_text(won["token"] + "\n")
    assert heddle.json("reserve", "main", "--token-file", file)["fence"] == won["fence"]
    piped = heddle.program(
        "--json", "reserve", "main", "--token", "-", stdin=None, input=won["token"].encode()
    )
    assert piped.json["fence"] == won["fence"]


def test_a_shell_can_eval_what_export_prints(heddle: Heddle) -> None:
    out = heddle("reserve", "it's a branch", "--ttl", "60", "--export").out
    lines = [shlex.split(line) for line in out.splitlines()]
    assert {words[0] for words in lines} == {"export"}
    variables = dict(words[1].split("=", 1) for words in lines)
    assert variables["HEDDLE_THREAD"] == "it's a branch"
    assert variables["HEDDLE_AGENT_FENCE"] == "1"
    script = (
        f"{out}\n{shlex.join([*_heddle(), 'heartbeat'])} && {shlex.join([*_heddle(), 'check'])}"
    )
    script += f" && {shlex.join([*_heddle(), 'release', '--status', 'merged'])}"
    done = subprocess.run(
        ["sh", "-ec", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert heddle.json("list", "--all")["entries"][0]["status"] == "merged"


def _heddle() -> list[str]:
    import sys

    return [sys.executable, "-m", "heddle_registry"]


def test_force_takes_the_branch_and_the_old_holder_is_told_who_when_and_why(
    heddle: Heddle,
) -> None:
    old = heddle.json("reserve", "main", "--owner-pid", os.getpid())
    heddle("reserve", "main", "--force", status=2)
    heddle("reserve", "main", "--reason", "x", status=2)
    heddle("reserve", "main", "--force", "--reason", " ", status=2)
    new = heddle.json("reserve", "main", "--ttl", "60", "--force", "--reason", "it hangs")
    assert new["fence"] == old["fence"] + 1
    told = heddle("heartbeat", old["entry"]["session_id"], "--token", old["token"], status=11).err
    assert new["entry"]["session_id"] in told
    assert "it hangs" in told
    assert "by force" in told
    heddle("check", "main", "--fence", old["fence"], status=11)


def test_living_strangers_stay_when_a_branch_is_forced_and_are_named(heddle: Heddle) -> None:
    with python("print('up', flush=True); input()") as stranger:
        stranger.line()
        there = put(heddle, pid=stranger.pid, boot_id=_boot_id())
        forced = heddle.json("reserve", "main", "--ttl", "60", "--force", "--reason", "now")
        assert [entry["session_id"] for entry in forced["present"]] == [there.session_id]


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


@pytest.mark.parametrize("ttl", ["0", "-1", "nan", "inf", "1e9", "0.5", "1e400", "x", ""])
def test_a_ttl_outside_of_its_bounds_changes_nothing(heddle: Heddle, ttl: str) -> None:
    assert heddle.json("reserve", "main", "--ttl", ttl, status=2)["error"]["code"] == "usage"
    assert not heddle.folder.exists()


@pytest.mark.parametrize("pid", ["0", "-1", "x", "4194305", "9" * 18, "9" * 400])
def test_a_dead_or_impossible_owner_is_refused(heddle: Heddle, pid: str) -> None:
    heddle("reserve", "main", "--owner-pid", pid, status=2)
    assert not heddle.folder.exists()


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "", "x" * 2048, os.fsdecode(b"\xff"), "\x9b"])
def test_a_name_that_can_be_no_branch_changes_nothing(heddle: Heddle, name: str) -> None:
    heddle("reserve", name, "--ttl", "60", status=2)
    assert not heddle.folder.exists()


@pytest.mark.parametrize("option", ["--task", "--base-state", "--reason", "--path"])
def test_texts_that_no_file_can_hold_change_nothing(heddle: Heddle, option: str) -> None:
    words = ["--force"] if option == "--reason" else []
    bad = "a\0b" if option == "--path" else os.fsdecode(b"\xff")
    heddle("reserve", "main", "--ttl", "60", *words, option, bad, status=2)
    heddle("reserve", "main", "--ttl", "60", *words, option, "", status=2)
    assert not heddle.folder.exists()


def test_a_claim_whose_token_could_not_be_told_is_given_back(heddle: Heddle) -> None:
    with open("/dev/full", "w") as full:
        told = heddle.program(
            "reserve", "main", "--ttl", "60", stdout=full, stderr=subprocess.PIPE, status=1
        )
    assert "cannot be written" in told.err
    assert heddle.json("why", "main")["state"] == "free"


def test_waiting_in_line_ends_when_the_branch_is_let_go(heddle: Heddle) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    code = (
        "import sys\n"
        "from heddle_registry.__main__ import main\n"
        "print('up', flush=True)\n"
        "sys.exit(main(['reserve', 'main', '--ttl', '60', '--wait', '20', '--json']))\n"
    )
    with python(code) as waiter:
        assert waiter.line() == "up"
        heddle("release", won["entry"]["session_id"], "--token", won["token"])
        assert '"fence": 2' in waiter.line()
        assert waiter.ends() == 0
    heddle("reserve", "main", "--ttl", "60", "--wait", "0.05", status=5)


@needs_proc_locks
def test_while_another_holds_the_lock_writers_give_up_in_time_and_looks_go_on(
    heddle: Heddle,
) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    session_id, token = won["entry"]["session_id"], won["token"]
    with flock_holder(heddle.agents / ".lock") as holder:
        for words in (
            ["reserve", "other", "--ttl", "60"],
            ["heartbeat", session_id, "--token", token],
            ["release", session_id, "--token", token],
            ["release", session_id, "--token", token, "--to-ttl", "60"],
        ):
            told = heddle(*words, "--lock-timeout", "0.2", status=9)
            assert f"process {holder.pid} " in told.err
        error = heddle.json("reserve", "x", "--ttl", "60", "--lock-timeout", "0", status=9)
        assert error["error"]["code"] == "lock_timeout"
        assert heddle.json("list")["entries"][0]["session_id"] == session_id
        assert heddle.json("why", "main")["state"] == "held"
        assert heddle.json("check", "main", "--fence", "1")["valid"]
        assert str(holder.pid) in heddle("doctor").out
    heddle("release", session_id, "--token", token)
