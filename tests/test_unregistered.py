"""Harnesses that run here and told nobody: fake processes, and real ones for the first look."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.adapters.memory import MemoryStore
from heddle_registry.core.harness import SignalKind, base_name
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.detection import known_harnesses
from heddle_registry.opening import local_host
from heddle_registry.registry import AgentRegistry
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.scripting import build_entry
from heddle_registry.testing.fake_host import FakeHost
from heddle_registry.unregistered import _base_name, _Programs, unregistered_harnesses
from tests.process_helpers import until

if TYPE_CHECKING:
    from pathlib import Path


class Scenery:
    """A repository with a linked worktree, a neighbour, and a fake host."""

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        self.other = folder / "other"
        self.linked = folder / "linked"
        for place in (self.repo, self.other):
            (place / ".git").mkdir(parents=True)
        admin = self.repo / ".git" / "worktrees" / "linked"
        admin.mkdir(parents=True)
        (admin / "commondir").write_text("../..\n")
        self.linked.mkdir()
        (self.linked / ".git").write_text(f"gitdir: {admin}\n")
        self.host = FakeHost()
        self.host.home_directory = str(folder / "home")
        self.host.working_directory = str(self.repo)
        self.registry = AgentRegistry(store=MemoryStore(self.host), host=self.host)

    def start(self, *argv: str, cwd: Path | None = None, **more: Any) -> int:
        return self.host.spawn(argv, cwd=str(cwd or self.repo), **more)

    def found(self) -> list[tuple[str, int]]:
        return [(one.harness, one.pid) for one in self.all()]

    def all(self) -> Any:
        return unregistered_harnesses(self.registry, str(self.repo / ".heddle"))

    def home_file(self, path: str, content: Any) -> Path:
        file = self.repo.parent / "home" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        return file


@pytest.fixture
def scenery(tmp_path: Path) -> Scenery:
    return Scenery(tmp_path)


def test_harnesses_in_the_repository_and_its_worktrees_are_found_and_others_are_not(
    scenery: Scenery,
) -> None:
    claude = scenery.start("claude")
    below = scenery.repo / "src"
    below.mkdir()
    gemini = scenery.start("node", "--max-old-space-size=8", "/opt/n/.bin/gemini", cwd=below)
    linked = scenery.start("/x/claude/versions/2.1.330", cwd=scenery.linked)
    scenery.start("codex", cwd=scenery.other)
    scenery.start("vim", "claude")
    scenery.start("claude-notes")
    assert scenery.found() == [
        ("claude-code", claude),
        ("gemini-cli", gemini),
        ("claude-code", linked),
    ]
    assert {one.evidence for one in scenery.all()} >= {("program:claude",)}
    assert all(one.since is not None for one in scenery.all())


def test_a_launcher_and_what_it_starts_are_one_and_one_in_its_shell_is_another(
    scenery: Scenery,
) -> None:
    node = scenery.start("node", "/opt/n/.bin/codex", "exec")
    native = scenery.start("/opt/n/vendor/bin/codex", "exec", ppid=node)
    shell = scenery.start("bash", ppid=native)
    inner = scenery.start("codex", ppid=shell)
    assert scenery.found() == [("codex", node), ("codex", inner)]


def test_claude_codes_live_file_names_the_session_of_a_living_process_only(
    scenery: Scenery,
) -> None:
    claude = scenery.start("claude")
    ticks = scenery.host.owner_for(claude).start_ticks

    def live(pid: int, started: int, session: str) -> None:
        content = {"pid": pid, "procStart": str(started), "sessionId": session}
        folder = {"cwd": str(scenery.repo)}
        scenery.home_file(f".claude/sessions/{pid}.json", content | folder)

    live(claude, ticks, "s1")
    live(4242, 7, "gone")
    renamed = scenery.start("my-own-claude")
    live(renamed, scenery.host.owner_for(renamed).start_ticks + 1, "another-process")
    assert [(one.native_actor_key, one.pid) for one in scenery.all()] == [
        ("claude-code:session:s1", claude)
    ]
    live(renamed, scenery.host.owner_for(renamed).start_ticks, "s2")
    found = {one.native_actor_key: one.evidence for one in scenery.all()}
    assert found["claude-code:session:s2"] == ("live_file",)
    assert found["claude-code:session:s1"] == ("program:claude", "live_file")


def test_a_runtime_file_that_qwen_code_left_behind_names_nobody(scenery: Scenery) -> None:
    qwen = scenery.start("node", "/opt/n/.bin/qwen")
    slug = "".join(c if c.isalnum() else "-" for c in str(scenery.repo))
    content = {"pid": qwen, "session_id": "q1"}
    file = scenery.home_file(f".qwen/projects/{slug}/chats/q1.runtime.json", content)
    os.utime(file, (1, 1))
    assert [one.native_actor_key for one in scenery.all()] == [None]
    os.utime(file, (2**32, 2**32))
    assert [one.native_actor_key for one in scenery.all()] == ["qwen-code:session:q1"]


def test_what_an_entry_speaks_of_is_not_listed_again_until_the_entry_ends(
    scenery: Scenery,
) -> None:
    reserve = scenery.registry.reserve_on_terms
    alone = scenery.start("codex")
    build = build_entry(scenery.registry, "a")
    held, _ = reserve("a", build, Terms(owner=scenery.host.owner_for(alone)))
    # `run -- sh -c codex`: the command is the shell, and the agent in it is the entry's.
    shell = scenery.start("sh")
    scenery.start("codex", ppid=shell)
    build = build_entry(scenery.registry, "b")
    reserve("b", build, Terms(owner=scenery.host.owner_for(shell), runner_pid=shell))
    assert scenery.found() == []
    scenery.registry.release(held.entry.session_id, AgentStatus.COMPLETE, token=held.token)
    assert scenery.found() == [("codex", alone)]


def test_an_agent_that_a_registered_agent_started_is_not_taken_for_it(scenery: Scenery) -> None:
    claude = scenery.start("claude")
    build = build_entry(scenery.registry, "a", harness="claude-code")
    owner = Terms(owner=scenery.host.owner_for(claude))
    scenery.registry.reserve_on_terms("a", build, owner)
    shell = scenery.start("bash", ppid=claude)
    codex = scenery.start("codex", ppid=shell)
    assert scenery.found() == [("codex", codex)]


def test_switched_off_nobody_is_looked_for(scenery: Scenery) -> None:
    scenery.start("claude")
    scenery.host.variables = {"HEDDLE_REGISTRY_DETECTION": "off"}
    assert scenery.found() == []


def test_the_first_look_lets_every_program_in_the_table_through() -> None:
    is_wanted = _Programs()
    names = set()
    for harness in known_harnesses():
        for signal in harness.signals:
            if signal.kind is not SignalKind.PROGRAM or signal.source != "program":
                continue
            if signal.path is None:
                names.add(signal.name)
                assert is_wanted((f"/opt/bin/{signal.name}", "-p"))
                assert is_wanted(("node", "--flag", f"/opt/.bin/{signal.name}"))
            else:
                path = signal.path.replace("[0-9]*", "1").replace("*", "any")
                assert is_wanted(("/usr/bin/node", f"/opt{path}")), signal.path
    assert is_wanted.names == names
    for path in ("claude", "-bash", "/x/claude.exe", "a/cli.js", "/", ""):
        assert _base_name(path) == base_name(path)
    assert not is_wanted(())
    assert not is_wanted(("grep", "claude"))


def test_of_real_processes_only_the_wanted_and_their_ancestors_are_read() -> None:
    command = "exec -a claude sleep 60"
    with subprocess.Popen(["bash", "-c", command]) as child:
        try:
            seen = until(
                lambda: [
                    info
                    for info in local_host().processes(lambda a: a[:1] == ("claude",))
                    if info.pid == child.pid or info.pid == os.getpid()
                ],
                "the process under its new name",
            )
        finally:
            child.kill()
    assert {info.pid for info in seen} == {child.pid, os.getpid()}
