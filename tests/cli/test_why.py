from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_list import put
from tests.process_helpers import python

if TYPE_CHECKING:
    from tests.cli.conftest import Heddle

BRANCH_KEYS = {
    "schema", "thread", "state", "entry", "liveness", "claim", "others", "frees_when", "why",
}  # fmt: skip
CLAIM_KEYS = {
    "state", "fence", "path", "holder", "ttl_s", "ttl_left_s", "granted_at", "renewed_at", "past",
}  # fmt: skip


def test_a_branch_nobody_heard_of_is_free(heddle: Heddle) -> None:
    answer = heddle.json("why", "feature/x")
    assert set(answer) == BRANCH_KEYS
    assert answer["state"] == "free"
    assert answer["entry"] is answer["claim"] is answer["liveness"] is None


def test_a_held_branch_names_its_holder_and_what_frees_it(heddle: Heddle) -> None:
    reserved = heddle.json("reserve", "main", "--ttl", "60", "--path", heddle.folder.parent)
    answer = heddle.json("why", "main")
    assert answer["state"] == "held"
    assert answer["entry"]["session_id"] == reserved["entry"]["session_id"]
    assert set(answer["claim"]) == CLAIM_KEYS
    assert answer["claim"]["path"] == str(heddle.folder.parent.resolve())
    assert 0 < answer["claim"]["ttl_left_s"] <= answer["claim"]["ttl_s"] == 60
    assert "TTL" in answer["frees_when"]
    said = heddle("why", "main").out
    assert "main is held" in said
    assert reserved["entry"]["session_id"] in said


def test_a_dead_owner_frees_the_branch_and_the_story_is_kept(heddle: Heddle) -> None:
    with python("print('up', flush=True); input()") as owner:
        owner.line()
        heddle("reserve", "main", "--owner-pid", owner.pid)
        assert heddle.json("why", "main")["liveness"]["verdict"] == "alive"
        owner.kill()
    free = heddle.json("why", "main")
    assert free["state"] == "free"
    assert free["claim"]["state"] == "none"
    assert free["claim"]["holder"] is None
    heddle("reserve", "main", "--ttl", "60")
    past = heddle.json("why", "main")["claim"]["past"]
    assert past[0]["cause"] == "dead"
    assert set(past[0]) == {"session_id", "fence", "ended_at", "cause", "by", "reason"}


def test_presence_without_a_claim_occupies(heddle: Heddle) -> None:
    entry = put(heddle)
    answer = heddle.json("why", "main")
    assert answer["state"] == "occupied"
    assert answer["entry"]["session_id"] == entry.session_id
    assert answer["claim"] is None


def test_an_id_tells_the_sessions_own_story(heddle: Heddle) -> None:
    put(heddle, native_actor_key="k1")
    entry = put(
        heddle,
        thread="kid",
        native_actor_key="k2",
        native_parent_actor_key="k1",
        winning_attach_rule="native-actor-key",
        attach_reason="because",
        attach_precedence=("native-actor-key:k2:matched",),
    )
    answer = heddle.json("why", entry.session_id)
    assert set(answer) == BRANCH_KEYS | {"chain", "rule", "reason", "precedence"}
    assert [node["native_actor_key"] for node in answer["chain"]] == ["k1", "k2"]
    assert answer["rule"] == "native-actor-key"
    assert answer["reason"] == "because"
    assert answer["precedence"] == ["native-actor-key:k2:matched"]
    assert answer["thread"] == "kid"
    assert "k2:matched" in heddle("why", entry.session_id).out


def test_what_looks_like_an_id_can_be_forced_to_be_a_branch(heddle: Heddle) -> None:
    unknown = "agent-aaaaaaaaaaaaaaaaaaaa"
    assert heddle.json("why", unknown, status=10)["error"]["code"] == "unknown_entry"
    assert heddle.json("why", unknown, "--thread")["state"] == "free"
    heddle("reserve", unknown, "--ttl", "60")
    assert heddle.json("why", unknown)["state"] == "held"
    heddle("why", "main", "--id", status=10)
    heddle("why", "../main", "--id", status=2)


def test_a_damaged_claim_blocks_and_says_so(heddle: Heddle) -> None:
    heddle("reserve", "main", "--ttl", "60")
    claim = next((heddle.folder / "claims").glob("*.toml"))
    claim.write_text("not toml")
    answer = heddle.json("why", "main")
    assert answer["state"] == "blocked"
    assert answer["problem"]["code"] == "damaged"
    assert "doctor --fix" in answer["frees_when"]


def test_a_damaged_entry_is_an_error_only_for_who_asks_for_it(heddle: Heddle) -> None:
    entry = put(heddle)
    (heddle.agents / f"{entry.session_id}.toml").write_text("not toml")
    assert heddle.json("why", entry.session_id, status=6)["error"]["code"] == "damaged"
    assert heddle.json("why", "main")["state"] == "free"


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "", "x" * 1025, os.fsdecode(b"\xff")])
def test_what_can_be_no_branch_is_refused(heddle: Heddle, name: str) -> None:
    heddle("why", name, status=2)


def test_a_thread_that_only_the_rust_tool_would_take_still_has_its_story(heddle: Heddle) -> None:
    entry = put(heddle)
    path = heddle.agents / f"{entry.session_id}.toml"
    path.write_text(path.read_text().replace('"main"', '"a\\nb\\u001b"'))
    answer = heddle.json("why", entry.session_id)
    assert (answer["thread"], answer["state"]) == ("a\nb\x1b", "occupied")
    assert "a\\x0ab\\x1b" in heddle("why", entry.session_id).out
