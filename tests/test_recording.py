from __future__ import annotations

import json
from typing import Any

from heddle_registry.detection import known_harnesses
from heddle_registry.probe import _process, probe_recorded
from heddle_registry.recording import LEFT_OUT, recording_of
from tests.plugins import recordings

PLUGINS = recordings.plugins()
SECRET = "s3cret-value"


def recorded(situation: dict[str, Any]) -> dict[str, Any]:
    ancestors = situation["ancestors"]
    return recording_of(
        environ=situation["environment"],
        ancestors=None if ancestors is None else [_process(facts) for facts in ancestors],
        harnesses=known_harnesses(),
        payload=situation["payload"],
        event=situation["event"],
        harness=situation["harness"],
        cwd=situation["cwd"],
        home=situation["home"],
    )


def test_a_recording_of_a_hook_gives_the_same_answer_as_the_hook() -> None:
    for harness in recordings.FOLDERS:
        for name, situation in recordings.hooks(harness):
            again = probe_recorded(recorded(situation), PLUGINS).actor
            first = probe_recorded(situation, PLUGINS).actor
            if first is not None and first.native_actor_key is not None:
                assert again is not None, name
                assert again.native_actor_key == first.native_actor_key, name
                assert again.native_parent_actor_key == first.native_parent_actor_key, name


def test_a_recording_of_a_command_never_gives_another_answer() -> None:
    for harness in recordings.FOLDERS:
        for name, situation, case in recordings.commands(harness):
            link = probe_recorded(recorded(situation), PLUGINS).actor
            assert link is not None, name
            allowed = {None, case["actor"], *case["env_alone"]}
            assert link.native_actor_key in allowed, name


def test_nothing_that_may_be_secret_is_written_down() -> None:
    environ = {
        "OPENAI_API_KEY": SECRET,
        "CLAUDE_CODE_MESSAGING_TOKEN": SECRET,
        "MY_NOTES": SECRET,
        "HOME": "/home/dev",
        "CODEX_THREAD_ID": "t-1",
    }
    argv = ["codex", "--api-key", SECRET, f"--token={SECRET}", "-m", "x", f"do {SECRET}"]
    payload = {
        "session_id": "t-1",
        "prompt": SECRET,
        "tool_input": {"command": f"curl -H {SECRET}", "call_id": "c"},
        "messages": [SECRET],
        "transcript_path": "/home/dev/.codex/sessions/x",
    }
    situation = {
        "environment": environ,
        "ancestors": [{"pid": 3, "argv": argv, "exe": "/opt/codex"}],
        "payload": payload,
        "event": "Stop",
        "harness": "codex",
        "cwd": "/home/dev/project",
        "home": "/home/dev",
    }
    written = recorded(situation)
    assert SECRET not in json.dumps(written)
    assert written["environment"] == {"HOME": "/home/dev", "CODEX_THREAD_ID": "t-1"}
    assert written["payload"] == {
        "session_id": "t-1",
        "tool_input": {"call_id": "c"},
        "transcript_path": "/home/dev/.codex/sessions/x",
    }
    assert written["ancestors"][0]["argv"][:4] == [
        "codex", "--api-key", LEFT_OUT, f"--token={LEFT_OUT}",
    ]  # fmt: skip
