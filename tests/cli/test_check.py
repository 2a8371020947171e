from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import Heddle


def test_only_the_newest_fence_of_a_held_claim_is_good(heddle: Heddle) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    answer = heddle.json("check", "main", "--fence", "1")
    assert set(answer) == {"schema", "valid", "fence", "holder", "why"}
    assert answer["valid"]
    assert answer["holder"] == won["entry"]["session_id"]
    bad = heddle.json("check", "main", "--fence", "2", status=11)
    assert not bad["valid"]
    assert bad["fence"] == 1
    heddle("release", won["entry"]["session_id"], "--token", won["token"])
    assert "released" in heddle("check", "main", "--fence", "1", status=11).err
    heddle("check", "nobody-heard-of-it", "--fence", "0", status=11)


def test_a_token_must_be_the_holders_own(heddle: Heddle) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    assert heddle.json("check", "main", "--token", won["token"])["fence"] == 1
    assert "token refused" in heddle("check", "main", "--token", "x", status=11).err
    heddle("check", "main", "--fence", "1", "--token", "x", status=11)
    heddle("reserve", "main", "--ttl", "60", "--force", "--reason", "I say so")
    assert "I say so" in heddle("check", "main", "--token", won["token"], status=11).err


def test_variables_stand_in_for_what_is_left_out(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    heddle("reserve", "other", "--ttl", "60")
    heddle("check", status=2)
    heddle("check", "main", status=2)
    monkeypatch.setenv("HEDDLE_THREAD", "main")
    monkeypatch.setenv("HEDDLE_AGENT_TOKEN", won["token"])
    assert heddle.json("check")["valid"]
    monkeypatch.setenv("HEDDLE_AGENT_FENCE", "1")
    assert heddle.json("check")["valid"]
    # A named branch and fence are judged as such: the variable's token is another branch's.
    assert heddle.json("check", "other", "--fence", "1")["valid"]
    monkeypatch.setenv("HEDDLE_AGENT_FENCE", "one")
    assert "HEDDLE_AGENT_FENCE" in heddle("check", status=2).err
