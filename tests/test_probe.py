"""Every recorded run, judged by its right answers: wrong ones are none, coverage is printed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heddle_registry.errors import UsageError
from heddle_registry.probe import Link, probe_recorded
from tests.plugins import recordings

PLUGINS = recordings.plugins()
COMMANDS = [
    pytest.param(h, s, c, id=n) for h in recordings.FOLDERS for n, s, c in recordings.commands(h)
]


def ask(situation: dict[str, Any]) -> Any:
    result = probe_recorded(situation, PLUGINS)
    assert PLUGINS.faults == []
    return result


def wrong(harness: str, link: Link) -> list[str]:
    """Return what of an answer that names an actor is not as in expected.json."""
    actor = recordings.actors(harness).get(link.native_actor_key)
    if actor is None:
        return ["actor"]
    found = []
    if link.native_parent_actor_key != actor["parent_key"]:
        found.append("parent")
    if link.model is not None and link.model not in actor["models"]:
        found.append("model")
    if link.transcript is not None and not link.transcript.endswith(actor["transcript"]):
        found.append("transcript")
    return found


@pytest.mark.parametrize(("harness", "situation", "case"), COMMANDS)
def test_a_recorded_command_has_its_chain_model_and_transcript(
    harness: str, situation: dict[str, Any], case: dict[str, Any]
) -> None:
    result = ask(situation)
    assert [x.native_actor_key for x in result.chain if x.native_actor_key] == case["chain"]
    link = result.actor
    actor = recordings.actors(harness)[case["actor"]]
    assert link.harness == harness
    assert link.native_parent_actor_key == actor["parent_key"]
    assert link.model in actor["models"]
    assert link.transcript.endswith(actor["transcript"])
    assert result.candidates == ()


@pytest.mark.parametrize("harness", recordings.FOLDERS)
def test_a_recorded_hook_names_its_actor_or_nobody(harness: str) -> None:
    named = 0
    all_hooks = recordings.hooks(harness)
    for name, situation in all_hooks:
        link = ask(situation).actor
        if link is None or link.native_actor_key is None:
            continue
        named += 1
        assert wrong(harness, link) == [], name
        assert link.model is not None, name
        assert link.transcript is not None, name
        payload = situation["payload"]
        said = payload.get("agent_id") or payload.get("session_id") or payload.get("sessionId")
        assert said is None or link.native_actor_key.endswith(f":{said}"), name
    print(f"{harness}: {named} of {len(all_hooks)} hook calls named, 0 wrong")
    silent = {"opencode": 102, "aider": 1}  # events about no session; a harness without ids
    assert len(all_hooks) - named == silent.get(harness, 0)


def less(situation: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {**situation, **change}


def argv_only(situation: dict[str, Any]) -> dict[str, Any]:
    kept = [{"pid": p["pid"], "argv": p["argv"]} for p in situation["ancestors"] or []]
    return less(situation, ancestors=kept)


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda s: less(s, home=None), 15),
        (lambda s: less(s, ancestors=None), 15),
        (lambda s: less(s, ancestors=[]), 15),
        (lambda s: less(s, ancestors=None, home=None), 15),
        (lambda s: less(s, environment=None), 5),
        (lambda s: less(s, cwd=None), 24),
        (argv_only, 24),
        (lambda s: less(s, ancestors=s["ancestors"][1:]), 20),
    ],
    ids=["no-home", "no-ancestors", "empty", "variables", "no-variables", "no-cwd", "argv", "self"],
)
def test_with_less_to_go_by_fewer_commands_are_named_and_none_wrongly(
    change: Any, least: int
) -> None:
    named = 0
    for harness in recordings.FOLDERS:
        for name, situation, case in recordings.commands(harness):
            link = ask(change(situation)).actor
            if link is None or link.native_actor_key is None:
                continue
            named += 1
            allowed = {case["actor"], *case["env_alone"]}
            assert link.native_actor_key in allowed, name
            assert wrong(harness, link) == [], name
    print(f"{named} of {len(COMMANDS)} commands named, 0 wrong")
    assert named >= least


@pytest.mark.parametrize(
    "change",
    [
        lambda s: less(s, harness=None),
        lambda s: less(s, ancestors=None),
        lambda s: less(s, ancestors=None, environment=None),
        lambda s: less(s, ancestors=None, environment=None, harness=None),
    ],
    ids=["undeclared", "no-ancestors", "payload", "payload-undeclared"],
)
def test_with_less_to_go_by_no_hook_is_named_wrongly(change: Any) -> None:
    for harness in recordings.FOLDERS:
        for name, situation in recordings.hooks(harness):
            link = ask(change(situation)).actor
            if link is not None and link.native_actor_key is not None:
                assert wrong(harness, link) == [], name


def test_no_harness_takes_anothers_payload_for_its_own() -> None:
    for harness in recordings.FOLDERS:
        for name, hook in recordings.hooks(harness)[::9]:
            for other in recordings.FOLDERS:
                _, command, case = recordings.commands(other)[-1]
                if other == harness or not hook["payload"]:
                    continue
                taken = ask(less(command, payload=hook["payload"], harness=harness))
                assert taken.actor.native_actor_key in {None, case["actor"]}, (name, other)
                assert taken.speaker is None


def test_the_json_holds_what_the_design_says_and_no_value_of_a_variable() -> None:
    _, situation, _ = recordings.commands("claude-code")[2]
    situation = less(situation, environment={**situation["environment"], "X_API_KEY": "s3cret"})
    result = ask(situation).as_json()
    assert set(result) == {"chain", "candidates"}
    assert set(result["chain"][-1]) == {
        "harness",
        "native_actor_key",
        "native_parent_actor_key",
        "native_instance_key",
        "provider",
        "model",
        "thinking_level",
        "source",
        "confidence",
        "evidence",
        "transcript",
        "continues",
    }
    text = json.dumps(result)
    assert "s3cret" not in text
    assert "<redacted-ephemeral-token>" not in text
    assert "CLAUDE_CODE_SESSION_ID" in result["chain"][0]["evidence"]


def test_a_recording_of_the_wrong_kind_is_the_users_mistake() -> None:
    for bad in ({"environment": []}, {"ancestors": {}}, {"ancestors": ["x"]}, {"home": 1}):
        with pytest.raises(UsageError):
            probe_recorded(bad, PLUGINS)
    for odd in ({}, {"payload": "text"}, {"payload": [1]}, {"environment": {"A": None}}):
        assert probe_recorded(odd, PLUGINS).chain == ()
