"""The real Codex and the real Claude Code against a scripted model, wired by ``install``.

They need programs of several hundred MB: ``.ci/lab`` fetches them, says where they are in
HEDDLE_LAB_PREFIX, and which Python has this package and its plugins in HEDDLE_LAB_PYTHON. With
that set, nothing here is skipped.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = os.environ.get("HEDDLE_LAB_PREFIX")
LAB = ROOT.parent / "shared" / "lab" / "lab.py"

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not PREFIX, reason="the real programs are not installed: run .ci/lab"),
]


class Lab:
    """A home in which the harness is wired, a place to work, and what was seen meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.work = folder / "home", folder / "work"
        self.prefix = str(PREFIX)
        self.python = os.environ["HEDDLE_LAB_PYTHON"]
        self.home.mkdir()
        self.work.mkdir()
        (self.work / "README.md").write_text("# lab\n")
        self.call("git", "init", "-q", "-b", "main")
        self.call("git", "add", "-A")
        identity = ("-c", "user.name=lab", "-c", "user.email=lab@example.invalid")
        self.call("git", *identity, "commit", "-qm", "start")

    def call(self, *words: object, home: Path | None = None) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HEDDLE_", "GIT_"))}
        done = subprocess.run(
            [str(word) for word in words],
            cwd=self.work,
            env={**kept, "HOME": str(home or self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def heddle(self, *words: object) -> str:
        return self.call(self.python, "-I", "-m", "heddle_registry", *words)

    def entries(self) -> list[dict[str, Any]]:
        """Everybody, the oldest first."""
        return self.oldest_first(json.loads(self.heddle("list", "--all", "--json")))

    def oldest_first(self, listed: dict[str, Any]) -> list[dict[str, Any]]:
        assert listed["problems"] == []
        return sorted(listed["entries"], key=lambda entry: entry["started_at"])

    def look(self, name: str) -> str:
        """Return a shell command that writes down who is there."""
        command = shlex.join(
            [self.python, "-I", "-m", "heddle_registry", "list", "--all", "--json"]
        )
        return f"{command} >>{shlex.quote(str(self.folder / name))} 2>&1"

    def seen(self, name: str) -> list[list[dict[str, Any]]]:
        lines = (self.folder / name).read_text().splitlines()
        return [self.oldest_first(json.loads(line)) for line in lines]

    def run(self, harness: str, scenario: str, command: str, prefix: object = None) -> Any:
        """Run the real program once. Its model calls ``command`` by the program's own tool."""
        out = self.folder / "lab.json"
        words = ("--prefix", prefix or self.prefix, "--home", self.home, "--work", self.work)
        seen = [
            word
            for folder in (
                self.folder,
                os.path.dirname(os.path.dirname(self.python)),
                ROOT,
                self.prefix,
            )
            for word in ("--keep", folder)
        ]
        self.call(
            sys.executable,
            LAB,
            "run",
            harness,
            scenario,
            "--host-pids",
            *words,
            *seen,
            "--out",
            out,
            "--timeout",
            "60",
            "--tool-cmd",
            command,
            home=self.folder,  # the lab never works in its caller's own home
        )
        report = json.loads(out.read_text())
        ran = [call for request in report["requests"] for call in request["tool_calls"]]
        assert ran, "the model's script was not followed"
        return report


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


KINDS = {
    "codex": ("codex:thread:", "codex:thread:"),
    "claude-code": ("claude-code:session:", "claude-code:agent:"),
}


@pytest.mark.parametrize("harness", KINDS)
def test_a_run_is_listed_while_it_works_with_its_sub_agent_below_it(lab: Lab, harness: str) -> None:
    lab.heddle("install", harness)

    lab.run(harness, "subagent", lab.look("seen"))

    by_child, by_parent = lab.seen("seen")
    session, child = by_child
    session_kind, child_kind = KINDS[harness]
    assert session["native_actor_key"].startswith(session_kind)
    assert child["native_actor_key"].startswith(child_kind)
    assert child["native_parent_actor_key"] == session["native_actor_key"]
    for entry in by_child:
        assert (entry["status"], entry["harness"], entry["thread"]) == ("active", harness, "main")
        assert entry["liveness"]["verdict"] == "alive"
        assert entry["path"] == str(lab.work.resolve())
    assert [entry["status"] for entry in by_parent] == ["active", "complete"]
    ended = lab.entries()
    assert [entry["status"] for entry in ended] == ["complete", "complete"]
    assert [entry["session_id"] for entry in ended] == [e["session_id"] for e in by_child]


@pytest.mark.parametrize("harness", KINDS)
def test_under_run_the_agent_adopts_the_entry_that_run_made(lab: Lab, harness: str) -> None:
    lab.heddle("install", harness)
    program = {"claude-code": "claude"}.get(harness, harness)
    real = f"{lab.prefix}/{harness}/node_modules/.bin/{program}"
    wrapper = lab.folder / "prefix" / harness / "bin" / program
    wrapper.parent.mkdir(parents=True)
    run = shlex.join([lab.python, "-I", "-m", "heddle_registry", "run", "feature/x", "--", real])
    wrapper.write_text(f'#!/bin/sh\nexec {run} "$@"\n')
    wrapper.chmod(0o755)

    lab.run(harness, "subagent", lab.look("seen"), prefix=lab.folder / "prefix")

    by_child, _ = lab.seen("seen")
    session, child = by_child
    assert session["thread"] == "feature/x"
    assert session["claim"]["state"] == "held"
    assert session["claim"]["holder"] == session["session_id"]
    assert session["native_actor_key"].startswith(KINDS[harness][0])
    assert child["native_parent_actor_key"] == session["native_actor_key"]
    assert child["claim"] is None
    assert [entry["status"] for entry in lab.entries()] == ["complete", "complete"]
    assert json.loads(lab.heddle("why", "feature/x", "--json"))["state"] == "free"


def test_a_codex_that_claude_code_starts_is_its_child(lab: Lab) -> None:
    lab.heddle("install", "claude-code")
    lab.heddle("install", "codex")
    provider = (
        'model_providers.lab={name="lab",base_url="\'"$ANTHROPIC_BASE_URL"\'/v1",'
        'env_key="LAB_API_KEY",wire_api="responses"}'
    )
    script = lab.folder / "tool.sh"
    script.write_text(
        'if [ -n "$CODEX_THREAD_ID" ]; then\n'
        f"  {lab.look('seen')}\n"
        "else\n"
        f"  LAB_API_KEY=lab {lab.prefix}/codex/node_modules/.bin/codex exec"
        f" -c 'model_provider=\"lab\"' -c '{provider}' -m gpt-5.5 --json --skip-git-repo-check"
        " --dangerously-bypass-approvals-and-sandbox --dangerously-bypass-hook-trust"
        f" 'LAB:shell please' >{lab.folder}/codex.out 2>&1 </dev/null\n"
        "fi\n"
    )

    lab.run("claude-code", "shell", f"sh {shlex.quote(str(script))}")

    (by_codex,) = lab.seen("seen")
    outer, inner = by_codex
    assert (outer["harness"], inner["harness"]) == ("claude-code", "codex")
    assert inner["native_parent_actor_key"] == outer["native_actor_key"]
    assert [entry["status"] for entry in by_codex] == ["active", "active"]
    assert [entry["status"] for entry in lab.entries()] == ["complete", "complete"]
