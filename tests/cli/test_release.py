from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_list import put
from tests.process_helpers import python

if TYPE_CHECKING:
    from tests.cli.conftest import Heddle


@pytest.mark.parametrize("ended_as", ["complete", "merged", "abandoned"])
def test_releasing_ends_the_entry_and_frees_the_branch(heddle: Heddle, ended_as: str) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    session_id = won["entry"]["session_id"]
    heddle("release", session_id, "--status", ended_as, status=11)
    answer = heddle.json("release", session_id, "--status", ended_as, "--token", won["token"])
    assert set(answer) == {"schema", "entry"}
    assert answer["entry"]["status"] == ended_as
    assert answer["entry"]["completed_at"] is not None
    assert heddle.json("why", "main")["state"] == "free"
    assert heddle.json("reserve", "main", "--ttl", "60")["fence"] == 2


def test_complete_becomes_merged_without_a_token_and_nothing_else_goes_back(
    heddle: Heddle,
) -> None:
    session_id = put(heddle).session_id
    assert heddle.json("release", session_id)["entry"]["status"] == "complete"
    assert heddle.json("release", session_id, "--status", "merged")["entry"]["status"] == "merged"
    refused = heddle.json("release", session_id, "--status", "complete", status=4)
    assert refused["error"]["code"] == "illegal_transition"


def test_a_claim_is_handed_over_with_a_new_token_and_fence(heddle: Heddle) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60", "--path", ".")
    old_id = won["entry"]["session_id"]
    with python("print('up', flush=True); input()") as heir:
        heir.line()
        answer = heddle.json("release", old_id, "--to-pid", heir.pid, "--token", won["token"])
        assert answer["outcome"] == "reserved"
        assert answer["fence"] == won["fence"] + 1
        assert answer["token"] not in (None, won["token"])
        assert answer["entry"]["extension"]["continues"] == old_id
        assert heddle.json("why", "main")["claim"]["path"] == os.path.realpath(".")
        told = heddle("heartbeat", old_id, "--token", won["token"], status=11).err
        assert "handed over" in told
    assert heddle.json("why", "main")["state"] == "free"


def test_handing_over_to_nobody_changes_nothing(heddle: Heddle) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    session_id, token = won["entry"]["session_id"], won["token"]
    for words in (["--to-pid", "0"], ["--to-ttl", "0"], ["--to-pid", "1", "--to-ttl", "9"]):
        heddle("release", session_id, "--token", token, *words, status=2)
    heddle("release", session_id, "--token", token, "--status", "active", status=2)
    heddle("release", session_id, "--token", "", status=2)
    assert heddle.json("check", "main", "--fence", won["fence"])["valid"]
    assert heddle.json("release", session_id, "--token", token, "--to-ttl", "9")["fence"] == 2
