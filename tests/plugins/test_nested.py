"""One harness inside another, and situations that look like it: made of the recorded runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.probe import probe_recorded
from tests.plugins import recordings

if TYPE_CHECKING:
    from pathlib import Path

PLUGINS = recordings.plugins()
WITH_IDS = [harness for harness in recordings.FOLDERS if harness != "aider"]


def keys(situation: dict[str, Any]) -> list[str | None]:
    return [link.native_actor_key for link in probe_recorded(situation, PLUGINS).chain]


@pytest.mark.parametrize("outer", WITH_IDS)
@pytest.mark.parametrize("inner", WITH_IDS)
def test_a_harness_inside_another_is_the_child_of_the_actor_that_started_it(
    outer: str, inner: str, tmp_path: Path
) -> None:
    for _, outer_situation, outer_case in recordings.commands(outer):
        for _, inner_situation, inner_case in recordings.commands(inner)[-3:]:
            if outer == inner and outer_case["run"] == inner_case["run"]:
                continue
            situation = recordings.inside(outer_situation, inner_situation, tmp_path)
            result = probe_recorded(situation, PLUGINS)
            found = [link.native_actor_key for link in result.chain]
            assert found[-len(inner_case["chain"]) :] == inner_case["chain"]
            around = found[: -len(inner_case["chain"])]
            first = result.chain[len(around)]
            # OpenCode runs the inner program itself: nothing of the outer command line is left in
            # these recordings. Silence, never another name.
            # Of two of one kind the inner one's variables are all that is left.
            unknown = outer in {"opencode", inner}
            assert around == outer_case["chain"] or (unknown and around == [None])
            assert first.native_parent_actor_key == around[-1]
            assert [link.harness for link in result.chain[: len(around)]] == [outer] * len(around)


def test_codex_started_by_a_sub_agent_of_claude_code_is_that_sub_agents_child(
    tmp_path: Path,
) -> None:
    claude = recordings.command("claude-code", "sub", "child-0")
    codex = recordings.command("codex", "sub", "child-0")
    result = probe_recorded(recordings.inside(claude, codex, tmp_path), PLUGINS)
    assert [link.native_actor_key for link in result.chain] == [
        "claude-code:session:c072d217-c527-4706-af07-e9001dcbf9ae",
        "claude-code:agent:a6e8beb0b3bd107e1",
        "codex:thread:01a2029f-b030-7622-8c35-31e90403fc67",
        "codex:thread:01a2029f-b10d-73a1-b3fb-00fecaae3de0",
    ]
    parents = [link.native_parent_actor_key for link in result.chain]
    assert parents == [None, *[link.native_actor_key for link in result.chain[:-1]]]
    assert result.candidates == ()


def test_a_hook_of_the_inner_harness_is_the_inner_harnesss(tmp_path: Path) -> None:
    claude = recordings.command("claude-code", "shell", "two-0-a")
    for name, hook in recordings.hooks("codex"):
        if "ancestors" not in hook or "SessionStart" not in name:
            continue
        situation = recordings.inside(claude, hook, tmp_path)
        result = probe_recorded(situation, PLUGINS)
        assert result.meaning == "opened"
        assert result.chain[result.speaker].harness == "codex"
        assert result.actor.native_parent_actor_key == (
            "claude-code:session:bfd50bda-f0a2-45fb-882b-818d86e98e5b"
        )


def test_in_codexs_sandbox_the_thread_is_known_and_the_outer_harness_only_a_candidate() -> None:
    codex = recordings.command("codex", "sub", "child-0")
    wall = {
        "pid": 1,
        "argv": ["codex-linux-sandbox", "--sandbox-policy-cwd", "/home/dev/project", "--", "bash"],
        "exe": "/opt/codex/vendor/bin/codex",
        "starttime": 9,
    }
    alone = {**codex, "ancestors": [{**codex["ancestors"][0], "pid": 2}, wall]}
    alone["environment"] = {**alone["environment"], "CODEX_SANDBOX_NETWORK_DISABLED": "1"}
    result = probe_recorded(alone, PLUGINS)
    assert [link.native_actor_key for link in result.chain] == [
        "codex:thread:01a2029f-b030-7622-8c35-31e90403fc67",
        "codex:thread:01a2029f-b10d-73a1-b3fb-00fecaae3de0",
    ]
    outer = recordings.command("claude-code", "shell", "two-0-a")["environment"]
    both = {**alone, "environment": {**outer, **alone["environment"]}}
    found = probe_recorded(both, PLUGINS)
    assert [link.harness for link in found.chain] == ["codex", "codex"]
    assert found.chain[0].native_parent_actor_key is None
    assert [link.harness for link in found.candidates] == ["claude-code"]


@pytest.mark.parametrize("harness", WITH_IDS)
def test_marks_that_a_terminal_multiplexer_leaked_put_nobody_into_the_chain(harness: str) -> None:
    shell = [
        {"pid": 41, "argv": ["-bash"], "starttime": 5},
        {"pid": 40, "argv": ["tmux", "new-session", "-d"], "starttime": 4},
        {"pid": 1, "argv": ["/sbin/init"], "starttime": 1},
    ]
    for _, situation, _ in recordings.commands(harness):
        result = probe_recorded({**situation, "ancestors": shell}, PLUGINS)
        assert result.chain == ()
        assert {link.harness for link in result.candidates} == {harness}
        assert all(link.confidence <= 0.5 for link in result.candidates)


def test_a_new_codex_below_a_leaky_multiplexer_is_not_the_old_sessions_child(
    tmp_path: Path,
) -> None:
    leaked = recordings.command("claude-code", "shell", "two-0-a")["environment"]
    codex = recordings.command("codex", "shell", "two-0-a")
    situation = {**codex, "environment": {**leaked, **codex["environment"]}}
    result = probe_recorded(situation, PLUGINS)
    assert [link.harness for link in result.chain] == ["codex"]
    assert result.actor.native_parent_actor_key is None
    assert [link.harness for link in result.candidates] == ["claude-code"]


def test_a_stale_claude_pid_takes_nobodys_place() -> None:
    situation = recordings.command("claude-code", "shell", "two-0-a")
    stale = {**situation["environment"], "CLAUDE_PID": "31337"}
    assert keys({**situation, "environment": stale}) == [None]


def test_without_variables_claude_codes_own_live_file_says_which_session_runs(
    tmp_path: Path,
) -> None:
    live = json.loads((recordings.DATA / "claude" / "live_registry.json").read_text())
    content = live["interactive"]["content"]
    path = tmp_path / ".claude" / "sessions" / "8.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    situation = recordings.command("claude-code", "shell", "two-0-a")
    claude = {**situation["ancestors"][2], "starttime": int(content["procStart"])}
    seen = {
        **situation,
        "environment": {"HOME": "/home/dev"},
        "home": str(tmp_path),
        "ancestors": [*situation["ancestors"][:2], claude],
    }
    assert keys(seen) == [f"claude-code:session:{content['sessionId']}"]
    # The pid was used again: another start time, another process.
    other = {**claude, "starttime": claude["starttime"] + 1}
    assert keys({**seen, "ancestors": [*situation["ancestors"][:2], other]}) == [None]


def test_switched_off_nobody_is_found() -> None:
    situation = recordings.command("codex", "shell", "two-0-a")
    off = {**situation["environment"], "HEDDLE_REGISTRY_DETECTION": "off"}
    result = probe_recorded({**situation, "environment": off}, PLUGINS)
    assert (result.chain, result.candidates) == ((), ())
