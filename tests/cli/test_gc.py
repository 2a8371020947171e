from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from heddle_registry import AgentStatus, Timestamp
from tests.cli.test_list import put
from tests.process_helpers import python, until

if TYPE_CHECKING:
    from tests.cli.conftest import Heddle


def test_the_dead_are_reaped_the_stale_pruned_and_the_unknown_kept(heddle: Heddle) -> None:
    with python("print('up', flush=True); input()") as owner:
        owner.line()
        dead = heddle.json("reserve", "main", "--owner-pid", owner.pid)["entry"]["session_id"]
        owner.kill()
    unknown = put(heddle, thread="other").session_id
    stale = put(
        heddle, status=AgentStatus.MERGED, completed_at=Timestamp("2020-01-01T00:00:00Z")
    ).session_id
    (heddle.agents / ".x.toml.tmp-1-2-3").touch()
    before = sorted(path.name for path in heddle.agents.iterdir())
    wanted = {
        "reaped": [dead],
        "pruned": [stale],
        "kept": [{"session_id": unknown, "evidence": "no_process"}],
        "removed": ["agents/.x.toml.tmp-1-2-3"],
    }
    planned = heddle.json("gc", "--dry-run")
    assert {key: planned[key] for key in wanted} == wanted
    assert sorted(path.name for path in heddle.agents.iterdir()) == before
    assert "would be reaped" in heddle("gc", "--dry-run").out
    done = heddle.json("gc")
    assert {key: done[key] for key in wanted} == wanted
    assert done["dry_run"] is False
    left = {entry["session_id"] for entry in heddle.json("list", "--all")["entries"]}
    assert left == {dead, unknown}
    assert heddle.json("gc")["reaped"] == []


def test_an_expired_claims_holder_is_ended_only_when_asked_for(heddle: Heddle) -> None:
    session_id = heddle.json("reserve", "main", "--ttl", "1")["entry"]["session_id"]
    until(lambda: heddle.json("why", "main")["state"] == "expired", "the end of the TTL")
    kept = heddle.json("gc")
    assert (kept["reaped"], kept["kept"][0]["evidence"]) == ([], "expired")
    assert heddle.json("gc", "--expired")["reaped"] == [session_id]
    assert heddle.json("why", "main")["claim"]["past"][0]["cause"] == "expired"


@pytest.mark.parametrize("index", ["on", "off"])
@pytest.mark.parametrize("bad", ["not TOML", "another id", "a folder"])
def test_a_damaged_entry_of_one_holder_keeps_nobody_elses_dead(
    heddle: Heddle, bad: str, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_REGISTRY_INDEX", index)
    with python("print('up', flush=True); input()") as owner:
        owner.line()
        dead = heddle.json("reserve", "dead", "--owner-pid", owner.pid)["entry"]["session_id"]
        owner.kill()
    spoilt = heddle.json("reserve", "b", "--ttl", "600")["entry"]["session_id"]
    path = heddle.agents / f"{spoilt}.toml"
    text = path.read_text()
    path.unlink()
    if bad == "a folder":
        path.mkdir()
    else:
        path.write_text(text + "x = [" if bad == "not TOML" else text.replace(spoilt, "agent-z"))
    answer = heddle.json("gc")
    assert answer["reaped"] == [dead]
    assert [kept["session_id"] for kept in answer["kept"]] == [spoilt]
    # Its branch is blocked for the right reason, and stays so.
    why = heddle.json("why", "b")
    assert why["state"] == "blocked"
    assert spoilt in why["problem"]["message"]
    assert not any("ended the entry" in text for text in why["why"])
    assert "ended the entry" not in heddle("doctor", status=None).out
    heddle("reserve", "b", status=6)
