"""Lifecycle events as harnesses send them, through `relay` to the registry and back."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.errors import UsageError
from heddle_registry.faults import MAX_FAULTS, NAME, note_fault, noted_faults
from heddle_registry.hookspecs import hookimpl
from heddle_registry.plugins import Plugins
from heddle_registry.ports.query import Query
from heddle_registry.registry import AgentRegistry
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.scripting import build_entry
from heddle_registry.relay import MAX_PAYLOAD_BYTES, relay
from heddle_registry.testing.fake_host import FakeHost
from tests.plugins import recordings

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.identity import Identity

PLUGINS = recordings.plugins()
SECRET = "sk-this-is-nobody-elses-business"


@pytest.fixture(autouse=True)
def _no_faults_of_others() -> None:
    PLUGINS.faults.clear()  # or one fault would fail every later test of the process


class Scenery:
    """A repository, and harnesses in it whose hooks call `relay`."""

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        (self.repo / ".git").mkdir(parents=True)
        (self.repo / ".git" / "HEAD").write_text("ref: refs/heads/feature/x\n")
        self.host = FakeHost()
        self.host.working_directory = str(self.repo)
        self.host.home_directory = str(folder / "home")
        self.heddle = self.repo / ".heddle"

    @property
    def registry(self) -> AgentRegistry:
        return AgentRegistry(self.heddle, host=self.host)

    def hook(
        self,
        harness: str,
        event: str,
        payload: Any,
        *,
        below: int | None = None,
        environ: dict[str, str] | None = None,
        plugins: Plugins | None = None,
    ) -> str | None:
        self.host.advance(1)
        shell = self.host.spawn(["sh", "-c", "hook"], ppid=below or 1)
        self.host.spawn(["python", "relay"], ppid=shell, act_as=True, environment=environ or {})
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return relay(harness, event, data, host=self.host, plugins=plugins or PLUGINS)

    def entries(self, **query: Any) -> dict[str | None, AgentEntry]:
        found = self.registry.look(Query(**query)).entries
        assert len({e.native_actor_key for e in found}) == len(found)
        return {entry.native_actor_key: entry for entry in found}

    def active(self) -> dict[str | None, AgentEntry]:
        return self.entries(active_only=True)

    def faults(self) -> list[tuple[str, str, str]]:
        return [(f.plugin, f.hook, f.why) for f in noted_faults(str(self.heddle))]

    def run(self, thread: str) -> tuple[Any, int]:
        runner = self.host.spawn(["heddle-registry", "run"], ppid=1)
        command = self.host.spawn(["claude"], ppid=runner)
        terms = Terms(owner=self.host.owner_for(command), runner_pid=runner)
        build = build_entry(self.registry, thread, path=str(self.repo), task="the task")
        return self.registry.reserve_on_terms(thread, build, terms)[0], command


@pytest.fixture
def scenery(tmp_path: Path) -> Scenery:
    return Scenery(tmp_path)


def session(name: str, **more: Any) -> dict[str, Any]:
    return {"session_id": name, "prompt": SECRET, **more}


@pytest.mark.parametrize("harness", ["codex", "claude-code", "qwen-code", "copilot-cli"])
def test_a_recorded_run_leaves_its_actors_complete_under_their_true_parents(
    scenery: Scenery, harness: str
) -> None:
    seen: set[str | None] = set()
    for _, hook in recordings.hooks(harness):
        payload, event = hook["payload"], hook["event"]
        if payload is None or event not in PLUGINS.harnesses()[harness].events:
            continue
        outer = scenery.host.spawn([harness], ppid=1)
        program = next(
            s.name for s in PLUGINS.harnesses()[harness].signals if s.source == "program"
        )
        below = scenery.host.spawn([program], ppid=outer)
        scenery.host.home_directory = hook["home"]
        for _ in range(2):  # a hook that is wired twice, or sent again
            scenery.hook(harness, event, payload, below=below)
        seen |= set(scenery.active())
    actors = recordings.actors(harness)
    everybody = scenery.registry.list()
    by_key = {entry.native_actor_key: entry for entry in everybody}
    assert seen == set(by_key)
    assert set(by_key) <= set(actors)
    for key, entry in by_key.items():
        assert entry.native_parent_actor_key == actors[key]["parent_key"]
        # Qwen Code's plain runs send no end: a process that is gone ends them.
        assert not entry.is_active or harness == "qwen-code"
    assert [w for _, _, w in scenery.faults()] == []


def test_gemini_cli_ends_a_session_three_times_and_opencodes_children_are_sessions(
    scenery: Scenery,
) -> None:
    scenery.hook("gemini-cli", "SessionStart", session("g1", source="startup"))
    assert set(scenery.active()) == {"gemini-cli:session:g1"}
    for _ in range(3):
        scenery.hook("gemini-cli", "SessionEnd", session("g1", reason="exit"))
    assert scenery.active() == {}

    def created(name: str, parent: str | None) -> dict[str, Any]:
        info = {"id": name, "slug": "a-slug", "parentID": parent}
        return {"type": "session.created", "properties": {"sessionID": name, "info": info}}

    opencode = scenery.host.spawn(["opencode"], ppid=1)
    scenery.hook("opencode", "session.created", created("ses_a", None), below=opencode)
    scenery.hook("opencode", "session.created", created("ses_b", "ses_a"), below=opencode)
    active = scenery.active()
    assert active["opencode:session:ses_b"].native_parent_actor_key == "opencode:session:ses_a"
    gone = {"type": "session.deleted", "properties": {"sessionID": "ses_a"}}
    scenery.hook("opencode", "session.deleted", gone, below=opencode)
    assert scenery.active() == {}


def test_a_child_whose_session_began_before_the_hooks_did_is_no_orphan(scenery: Scenery) -> None:
    claude = scenery.host.spawn(["claude"], ppid=1)
    payload = session("s1", agent_id="a1", agent_type="general")
    scenery.hook("claude-code", "SubagentStart", payload, below=claude)
    active = scenery.active()
    assert set(active) == {"claude-code:session:s1", "claude-code:agent:a1"}
    child = active["claude-code:agent:a1"]
    assert child.native_parent_actor_key == "claude-code:session:s1"
    assert [n.native_actor_key for n in child.extension.ancestors] == ["claude-code:session:s1"]
    assert {entry.pid for entry in active.values()} == {claude}


def test_the_end_of_a_session_ends_the_sub_agents_that_nobody_stopped(scenery: Scenery) -> None:
    claude = scenery.host.spawn(["claude"], ppid=1)
    codex = scenery.host.spawn(["codex"], ppid=claude)
    scenery.hook("claude-code", "SessionStart", session("s1"), below=claude)
    scenery.hook("claude-code", "SubagentStart", session("s1", agent_id="a1"), below=claude)
    environ = {"CLAUDE_CODE_SESSION_ID": "s1", "CLAUDE_PID": str(claude)}
    scenery.hook("codex", "SessionStart", session("t1"), below=codex, environ=environ)
    inner = scenery.active()["codex:thread:t1"]
    assert inner.native_parent_actor_key == "claude-code:session:s1"
    scenery.hook("claude-code", "SessionEnd", session("s1", reason="other"), below=claude)
    # The other harness has hooks, or a death, of its own.
    assert set(scenery.active()) == {"codex:thread:t1"}


def test_under_run_the_entry_is_adopted_left_and_adopted_again_and_its_claim_stays(
    scenery: Scenery,
) -> None:
    reserved, claude = scenery.run("feature/x")
    environ = {
        "HEDDLE_AGENT_SESSION_ID": reserved.entry.session_id,
        "HEDDLE_AGENT_TOKEN": reserved.token,
    }

    def hook(event: str, **payload: Any) -> AgentEntry:
        assert (
            scenery.hook("claude-code", event, session(**payload), below=claude, environ=environ)
            is None
        )
        (entry,) = scenery.active().values()
        assert entry.session_id == reserved.entry.session_id
        return entry

    assert hook("SessionStart", name="s1").native_actor_key == "claude-code:session:s1"
    ended = hook("SessionEnd", name="s1", reason="clear")
    assert (ended.native_actor_key, ended.is_active) == (None, True)
    again = hook("SessionStart", name="s2", source="clear")
    assert again.native_actor_key == "claude-code:session:s2"
    assert again.attach_reason == "the task"
    assert scenery.registry.check("feature/x", reserved.fence).valid
    hook("SessionEnd", name="s2", reason="other")
    done = scenery.registry.release(reserved.entry.session_id, token=reserved.token)
    assert not done.is_active


def test_a_cleared_session_and_a_resumed_one_continue_what_they_go_on_from(
    scenery: Scenery,
) -> None:
    claude = scenery.host.spawn(["claude"], ppid=1)

    def hook(event: str, name: str, **more: Any) -> AgentEntry | None:
        scenery.hook("claude-code", event, session(name, **more), below=claude)
        return scenery.active().get(f"claude-code:session:{name}")

    first = hook("SessionStart", "s1", source="startup")
    hook("SessionEnd", "s1", reason="clear")
    second = hook("SessionStart", "s2", source="clear")
    assert second.extension.continues == first.session_id
    hook("SessionEnd", "s2", reason="resume")
    resumed = hook("SessionStart", "s1", source="resume")
    assert resumed.extension.continues == first.session_id
    hook("SessionEnd", "s1", reason="other")
    assert hook("SessionStart", "s3", source="startup").extension.continues is None


def test_the_end_of_a_session_leaves_what_it_spent_for_the_rust_tools(scenery: Scenery) -> None:
    session = "019c8a70-dda7-7f33-98ea-f30553347322"
    folder = f"{scenery.host.home_directory}/.codex/sessions/2026/11/22"
    os.makedirs(folder)
    rollout = f"{folder}/rollout-2026-11-22T09-39-06-{session}.jsonl"
    lines = [
        {"type": "session_meta", "payload": {"id": session}},
        {"type": "turn_context", "payload": {"model": "gpt-5.5"}},
        {"type": "event_msg", "payload": {"type": "token_count", "info": {
            "total_token_usage": {"input_tokens": 120, "cached_input_tokens": 20,
                                  "output_tokens": 7, "reasoning_output_tokens": 2,
                                  "total_tokens": 127}}}},
    ]  # fmt: skip
    with open(rollout, "w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"timestamp": "2026-11-22T09:39:07Z", **line}) + "\n" for line in lines
        )
    payload = {"session_id": session, "transcript_path": rollout, "cwd": str(scenery.repo)}
    scenery.hook("codex", "SessionStart", payload)
    scenery.hook("codex", "SessionEnd", payload)
    [entry] = scenery.entries().values()
    assert entry.status == "complete"
    spent = entry.usage_summary
    assert (spent.input_tokens, spent.output_tokens, spent.reasoning_tokens) == (100, 7, 2)
    assert entry.extension is not None
    assert entry.extension.cache_read_tokens == 20
    assert scenery.faults() == []


def test_waiting_is_a_sign_of_life_and_makes_nobody(scenery: Scenery) -> None:
    claude = scenery.host.spawn(["claude"], ppid=1)
    scenery.hook("claude-code", "Stop", session("s1"), below=claude)
    assert scenery.active() == {}
    scenery.hook("claude-code", "SessionStart", session("s1"), below=claude)
    scenery.hook("claude-code", "Stop", session("s1"), below=claude)
    (entry,) = scenery.active().values()
    assert entry.last_progress_at > entry.started_at


def test_at_the_start_of_a_session_one_line_says_who_holds_the_branch(scenery: Scenery) -> None:
    reserved, command = scenery.run("feature/x")
    holder = reserved.entry.session_id
    codex = scenery.host.spawn(["codex"], ppid=1)
    line = scenery.hook("codex", "SessionStart", session("t1"), below=codex)
    said = json.loads(line)["hookSpecificOutput"]
    assert said["hookEventName"] == "SessionStart"
    assert said["additionalContext"] == f"feature/x is held by {holder}; use a worktree"
    assert "\n" not in line
    # Whoever runs under the holder is its own; other events and harnesses are told nothing.
    for harness, event, below in (
        ("claude-code", "SessionStart", command),
        ("codex", "Stop", codex),
        ("copilot-cli", "sessionStart", None),
    ):
        payload = {**session("z"), "sessionId": "z"}
        environ = {"HEDDLE_AGENT_SESSION_ID": holder}
        assert scenery.hook(harness, event, payload, below=below, environ=environ) is None


def test_nothing_of_a_payload_is_kept_anywhere(scenery: Scenery) -> None:
    claude = scenery.host.spawn(["claude"], ppid=1)

    def curious(probe: Any) -> Identity:
        raise ValueError(probe.payload["prompt"])

    module = SimpleNamespace(
        heddle_harnesses=hookimpl(lambda: [PLUGINS.harnesses()["claude-code"]]),
        heddle_probe=hookimpl(curious),
    )
    plugins = Plugins([*recordings.all_modules(), ("curious", module)])
    for event in ("SessionStart", "SubagentStart", "Stop", "SessionEnd"):
        payload = session("s1", agent_id="a1", env={"KEY": SECRET})
        scenery.hook("claude-code", event, payload, below=claude, plugins=plugins)
    scenery.hook("claude-code", "SessionStart", f"{{{SECRET}".encode())
    assert ("curious", "heddle_probe", "it failed with ValueError") in [
        (plugin, hook, why.partition(" (last")[0]) for plugin, hook, why in scenery.faults()
    ]
    files = [path for path in scenery.heddle.rglob("*") if path.is_file()]
    assert len(files) > 2
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("harness", "event", "payload", "why"),
    [
        ("codex", "SessionStart", b"", "its payload is no JSON"),
        ("codex", "SessionStart", b"\xff\xfe{", "its payload is no JSON"),
        ("codex", "SessionStart", b"[" * 100_000, "its payload is no JSON"),
        ("codex", "SessionStart", b"[1]", "its payload is no JSON object"),
        ("codex", "SessionStart", b" " * (MAX_PAYLOAD_BYTES + 1), "its payload has more than"),
        ("codex", "SessionStart", {"session_id": 7}, "its payload names no session"),
        ("codex", "SessionEnd", {"prompt": SECRET}, "its payload names no session"),
        ("nobodys-agent", "SessionStart", session("s"), "nobody knows a harness of that name"),
        ("cursor", "SessionStart", session("s"), "nothing is known of its events"),
    ],
)
def test_a_payload_that_is_no_use_costs_one_fault_and_nothing_else(
    scenery: Scenery, harness: str, event: str, payload: Any, why: str
) -> None:
    for _ in range(3):
        assert scenery.hook(harness, event, payload) is None
    ((plugin, hook, told),) = scenery.faults()
    assert (plugin, hook) == (harness, f"relay {event}")
    assert told.startswith(why)
    assert scenery.entries() == {}


def test_a_wrong_config_file_is_a_fault_and_no_wrong_entry(scenery: Scenery) -> None:
    scenery.heddle.mkdir()
    (scenery.heddle / "config.toml").write_text("[[attach.rules]]\nname = 'x'\n")
    scenery.hook("codex", "SessionStart", session("t1"))
    ((_, _, why),) = scenery.faults()
    assert "attach_to: missing (line 1)" in why
    assert scenery.entries() == {}


def test_an_event_that_means_nothing_and_another_harnesss_payload_are_passed_over(
    scenery: Scenery,
) -> None:
    scenery.hook("codex", "PreToolUse", session("t1"))
    qwens = session("q1", transcript_path="/home/dev/.qwen/projects/p/chats/q1.jsonl")
    qwen = scenery.host.spawn(["node", "/opt/.bin/qwen"], ppid=1)
    scenery.hook("claude-code", "SessionStart", qwens, below=qwen)
    assert scenery.faults() == []
    assert scenery.entries() == {}


def test_outside_of_any_repository_nothing_happens(tmp_path: Path) -> None:
    host = FakeHost()
    host.working_directory = str(tmp_path)
    for data in (b"{", json.dumps(session("s1")).encode()):
        assert relay("codex", "SessionStart", data, host=host, plugins=PLUGINS) is None
    assert list(tmp_path.iterdir()) == []


def test_the_sessions_own_folder_is_where_it_belongs(scenery: Scenery, tmp_path: Path) -> None:
    scenery.host.working_directory = str(tmp_path)
    scenery.hook("codex", "SessionStart", session("t1", cwd=str(scenery.repo)))
    (entry,) = scenery.active().values()
    assert (entry.thread, entry.path) == ("feature/x", str(scenery.repo))


def test_the_file_of_faults_is_bounded_and_takes_no_harm(scenery: Scenery) -> None:
    at = scenery.host.now().at
    folder = str(scenery.heddle)
    for number in range(MAX_FAULTS + 5):
        note_fault(folder, f"plugin\n{number}", "hook", "w" * 10_000, at)
    assert len(noted_faults(folder)) == MAX_FAULTS
    assert (scenery.heddle / NAME).stat().st_size < 65_536
    (scenery.heddle / NAME).write_bytes(b'{"torn\n[]\n\xff\n' + b"x" * 200_000)
    assert noted_faults(folder) == ()
    note_fault(folder, "a", "b", "c", at)
    assert [f.plugin for f in noted_faults(folder)] == ["a"]
    (scenery.heddle / NAME).unlink()
    (scenery.heddle / NAME).symlink_to(scenery.repo / ".git" / "HEAD")
    note_fault(folder, "a", "b", "c", at)
    assert (scenery.repo / ".git" / "HEAD").read_text() == "ref: refs/heads/feature/x\n"
    assert noted_faults(folder) == ()


def test_a_registry_that_cannot_be_written_is_no_reason_to_stop_a_harness(
    scenery: Scenery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UsageError("no")

    monkeypatch.setattr("heddle_registry.registry.attaching.attach_situation", refuse)
    assert scenery.hook("codex", "SessionStart", session("t1")) is None
    assert [why.partition(" (")[0] for _, _, why in scenery.faults()] == ["no"]
