"""Every recorded run, judged by its right answers: wrong ones are none, coverage is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heddle_registry.errors import UsageError
from heddle_registry.probe import Link, _process, probe_process, probe_recorded
from tests.plugins import recordings

ROOT = Path(__file__).parents[1]
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


def test_a_live_process_is_found_below_a_real_harness_process(tmp_path: Path) -> None:
    """A program called codex runs a command that asks who it is."""
    codex = tmp_path / "codex"
    codex.symlink_to(sys.executable)
    ask_who = (
        "import json, sys; sys.path[:0] = sys.argv[1:]\n"
        "from heddle_registry.adapters.host import LocalHost\n"
        "from heddle_registry.probe import probe_host\n"
        "from tests.plugins.recordings import plugins\n"
        "print(json.dumps(probe_host(LocalHost(), plugins()).as_json()))\n"
    )
    run = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    thread = "01a2029f-a41d-7f40-b78d-0bfe9ed57cf0"
    environ = {
        "HOME": str(tmp_path),
        "CODEX_THREAD_ID": thread,
        "CODEX_SESSION_ID": thread,
        "CLAUDE_CODE_SESSION_ID": "leaked",
        "CLAUDE_PID": "1",
    }
    command = [sys.executable, "-c", ask_who, *(path for path in sys.path if path), str(ROOT)]
    done = subprocess.run(
        [str(codex), "-c", run, *command],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    result = json.loads(done.stdout)
    codex_links = [x for x in result["chain"] if x["harness"] == "codex"]
    assert [x["native_actor_key"] for x in codex_links][-1:] == [f"codex:thread:{thread}"]
    assert codex_links[-1]["native_instance_key"].startswith("codex:process:")
    everybody = [*result["chain"], *result["candidates"]]
    named = {x["native_actor_key"] for x in everybody if x["confidence"] > 0.5}
    assert "claude-code:session:leaked" not in named


def test_an_outer_harness_is_looked_for_in_the_home_it_was_started_with(tmp_path: Path) -> None:
    """Claude Code's sub-agent starts Codex with a home of its own."""
    situation = recordings.inside(
        recordings.command("claude-code", "sub", "child-0"),
        recordings.command("codex", "shell", "two-0-a"),
        tmp_path,
    )
    inner_home = recordings.home("codex")
    result = probe_process(
        environ=situation["environment"],
        ancestors=[_process(facts) for facts in situation["ancestors"]],
        plugins=PLUGINS,
        home=inner_home,
        home_of=lambda pid: recordings.home("claude-code") if pid == 8 else None,
    )
    assert [link.native_actor_key for link in result.chain] == [
        "claude-code:session:c072d217-c527-4706-af07-e9001dcbf9ae",
        "claude-code:agent:a6e8beb0b3bd107e1",
        "codex:thread:01a2029f-a41d-7f40-b78d-0bfe9ed57cf0",
    ]
    assert result.actor.transcript.startswith(inner_home)


def test_where_the_outer_harnesss_files_cannot_be_seen_its_session_is_only_probable(
    tmp_path: Path,
) -> None:
    situation = recordings.command("claude-code", "sub", "child-0")
    (link,) = ask({**situation, "home": str(tmp_path)}).chain
    assert link.native_actor_key == "claude-code:session:c072d217-c527-4706-af07-e9001dcbf9ae"
    assert link.confidence <= 0.75


@pytest.mark.parametrize("harness", recordings.FOLDERS)
def test_a_harness_may_be_called_by_its_short_name(harness: str) -> None:
    name, situation = next(
        (n, s) for n, s in recordings.hooks(harness) if s["payload"] or harness == "aider"
    )
    short = {**situation, "harness": recordings.FOLDERS[harness]}
    assert ask(short).as_json() == ask(situation).as_json(), name
