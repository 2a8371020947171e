from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.test_list import put

if TYPE_CHECKING:
    from tests.cli.conftest import Heddle


def test_a_heartbeat_renews_and_says_when_the_next_is_due(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    won = heddle.json("reserve", "main", "--ttl", "60")
    session_id = won["entry"]["session_id"]
    answer = heddle.json("heartbeat", session_id, "--token", won["token"])
    assert set(answer) == {"schema", "entry", "fence", "renew_within_s"}
    assert (answer["fence"], answer["renew_within_s"]) == (1, 60)
    assert answer["entry"]["heartbeat_at"] is not None
    monkeypatch.setenv("HEDDLE_AGENT_SESSION_ID", session_id)
    monkeypatch.setenv("HEDDLE_AGENT_TOKEN", won["token"])
    assert "60 s" in heddle("heartbeat").out


def test_a_presence_has_a_sign_of_life_and_no_fence(heddle: Heddle) -> None:
    answer = heddle.json("heartbeat", put(heddle).session_id)
    assert answer["fence"] is answer["renew_within_s"] is None


@pytest.mark.parametrize(
    ("session_id", "status"),
    [("../../etc/passwd", 2), ("a\nb", 2), ("", 2), ("a" * 201, 2), ("agent-x", 10)],
)
def test_ids_that_name_nobody_are_refused(heddle: Heddle, session_id: str, status: int) -> None:
    heddle("heartbeat", session_id, "--token", "t", status=status)
    assert not heddle.folder.exists()


def test_whoever_shows_no_good_token_learns_nothing(heddle: Heddle) -> None:
    session_id = heddle.json("reserve", "main", "--ttl", "60")["entry"]["session_id"]
    wrong = heddle.json("heartbeat", session_id, "--token", "wrong", status=11)
    assert wrong["error"]["code"] == "claim_lost"
    assert "token refused" in wrong["error"]["message"]
    assert "no token was shown" in heddle("heartbeat", session_id, status=11).err
