"""While one process makes a lost index again, everybody else goes on, and is told the truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from heddle_registry import AgentRegistry
from heddle_registry.adapters import reading
from tests.process_helpers import ROOT, python

ENTRIES = reading._FEW + 500
"""So many that nobody may make the index under the lock."""
REBUILDER = """
import sys
from heddle_registry import AgentRegistry
from heddle_registry.adapters import index_building
build = index_building.build_index

def held(place):
    print(place, flush=True)
    sys.stdin.readline()

def held_before(*given):
    held("read")
    fresh = build(*given)
    held("written")
    return fresh

index_building.build_index = held_before
registry = AgentRegistry(sys.argv[1])
print(len(registry.list()), flush=True)
print(len(registry.list()), flush=True)
"""


def text_of(number: int) -> str:
    return (
        f'session_id = "agent-{number:05d}"\nthread = "t/{number}"\nbase_state = "b"\n'
        f'started_at = "2026-07-01T12:{number // 60 % 60:02d}:{number % 60:02d}Z"\n'
        'status = "active"\n'
    )


@pytest.fixture
def heddle(tmp_path):
    heddle = tmp_path / ".heddle"
    (heddle / "agents").mkdir(parents=True)
    for number in range(ENTRIES):
        (heddle / "agents" / f"agent-{number:05d}.toml").write_text(text_of(number))
    return heddle


def command(heddle, *words, status=0, environment=()):
    done = subprocess.run(
        [sys.executable, "-m", "heddle_registry", "--heddle-dir", heddle, "--json", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **dict(environment)},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("place", ["read", "written"])
def test_commands_go_on_and_answer_rightly_while_another_process_rebuilds_the_index(heddle, place):
    with python(REBUILDER, heddle) as rebuilder:
        assert rebuilder.line(60) == "read"
        if place == "written":
            rebuilder.tell()
            assert rebuilder.line(60) == "written"
        taken = command(heddle, "reserve", "main", "--ttl", "600")
        session_id = taken["entry"]["session_id"]
        token = ("--token", taken["token"])
        assert command(heddle, "reserve", "main", "--ttl", "60", status=5)["outcome"] == (
            "live_owner"
        )
        assert command(heddle, "reserve", "t/17", "--ttl", "60", status=5)["state"] == "occupied"
        listed = command(heddle, "list")["entries"]
        assert {entry["session_id"] for entry in listed} == {
            session_id,
            *(f"agent-{number:05d}" for number in range(ENTRIES)),
        }
        story = command(heddle, "why", "main")
        assert (story["state"], story["entry"]["session_id"]) == ("held", session_id)
        assert command(heddle, "heartbeat", session_id, *token)["fence"] == 1
        command(heddle, "release", session_id, *token)
        assert command(heddle, "why", "main")["state"] == "free"
        (heddle / "agents" / "agent-00007.toml").unlink()  # by a program that knows no index
        assert not (heddle / "index.sqlite").exists()

        rebuilder.tell()
        if place == "read":
            assert rebuilder.line(60) == "written"
            rebuilder.tell()
        assert [rebuilder.line(60) for _ in range(2)] == [str(ENTRIES)] * 2
        assert rebuilder.ends() == 0
    # What changed meanwhile is in it, though the files were read before.
    by_index = command(heddle, "list")
    assert by_index == command(heddle, "list", environment={"HEDDLE_REGISTRY_INDEX": "off"})
    fresh = AgentRegistry(heddle)
    assert fresh.store.index.is_at(fresh.store.index.folder_stamps())


def test_a_rebuild_that_was_killed_is_made_by_the_next(heddle):
    for place in ("read", "written"):
        with python(REBUILDER, heddle) as rebuilder:
            assert rebuilder.line(60) == "read"
            if place == "written":
                rebuilder.tell()
                assert rebuilder.line(60) == "written"
            rebuilder.kill()
    assert not (heddle / "index.sqlite").exists()
    fresh = AgentRegistry(heddle)
    assert len(fresh.list()) == ENTRIES
    assert fresh.store.index.is_at(fresh.store.index.folder_stamps())
    assert not (heddle / "index.sqlite.building").exists()


@pytest.mark.nightly
def test_nobody_waits_for_a_rebuild_of_twenty_thousand(tmp_path):
    heddle = tmp_path / ".heddle"
    (heddle / "agents").mkdir(parents=True)
    for number in range(20_000):
        (heddle / "agents" / f"agent-{number:05d}.toml").write_text(text_of(number))
    with python(REBUILDER, heddle) as rebuilder:
        assert rebuilder.line(120) == "read"
        taken = command(heddle, "reserve", "main", "--ttl", "600")
        assert len(command(heddle, "list")["entries"]) == 20_001
        command(heddle, "heartbeat", taken["entry"]["session_id"], "--token", taken["token"])
        assert command(heddle, "why", "main")["state"] == "held"
        for _ in range(2):
            rebuilder.tell()
        assert rebuilder.line(120) == "written"
        assert rebuilder.line(120) == "20001"
