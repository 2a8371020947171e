from __future__ import annotations

import pytest

from heddle_registry.core.chain import locate
from heddle_registry.core.harness import PROBABLE, Process, SignalKind
from heddle_registry.detection import harness_of, known_harnesses, scrub_env
from heddle_registry.detection import harnesses as table
from heddle_registry.detection.harnesses import HARNESSES

VERIFIED = {"claude-code", "codex", "opencode", "gemini-cli", "qwen-code", "copilot-cli", "aider"}


def candidates(environ: dict[str, str], *argv: str) -> set[str]:
    ancestors = [Process(pid=9, argv=argv)] if argv else None
    found = locate(environ=environ, ancestors=ancestors, harnesses=known_harnesses())
    return {layer.harness.name for layer in (*found.layers, *found.candidates)}


def test_only_what_was_seen_on_the_real_program_is_verified() -> None:
    tiers = {h.name: h.tier for h in known_harnesses()}
    assert {name for name, tier in tiers.items() if tier == "verified"} == VERIFIED
    assert all(h.ceiling <= PROBABLE for h in known_harnesses() if h.tier == "unverified")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CLAUDE_CODE_CHILD_SESSION": "1", "CLAUDECODE": "1"}, {"claude-code"}),
        ({"CLAUDE_CODE_CHILD_SESSION": "1", "CLAUDE_CODE_IS_COWORK": "1"}, {"claude-cowork"}),
        ({"CLAUDE_CODE_CHILD_SESSION": "1", "CODEBUDDY": "1"}, {"codebuddy"}),
        ({"GEMINI_CLI": "1", "QWEN_CODE": "1"}, {"qwen-code"}),
        ({"GEMINI_CLI": "1", "VECLI_DIR": "/x"}, {"vecli"}),
        ({"AI_AGENT": "amp"}, {"amp"}),
        ({"AI_AGENT": "github_copilot_vscode_agent"}, {"copilot-vscode"}),
        ({"AI_AGENT": "claude-code_2-1-330_harness"}, {"claude-code"}),
        ({"AGENT": "goose"}, {"goose"}),
        ({"AGENT": "1"}, set()),
        ({"AGENT": "somebody"}, set()),
        ({"OPENCLAW_SHELL": "exec"}, {"openclaw"}),
        ({"OPENCLAW_SHELL": "EXEC"}, set()),
        ({"GROK_AGENT": "/home/dev/profile"}, set()),
        ({"AWS_EXECUTION_ENV": "AmazonQ-For-CLI Version/1"}, {"amazon-q"}),
        ({"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"}, set()),
        ({"REPL_ID": "x"}, set()),
        ({"REPL_ID": "x", "REPLIT_MODE": "assistant"}, {"replit"}),
        ({"AGENT_CONTEXT_OUT": "x"}, set()),
        ({"AGENT_CONTEXT_OUT": "x", "AGENT_DISPLAY_OUT": "y"}, {"kiro"}),
        ({"PAGER": "head -n 10000 | cat", "CURSOR_TRACE_ID": "x"}, {"cursor"}),
        ({"CURSOR_TRACE_ID": "x", "TERM_PROGRAM": "zed"}, set()),
        ({"CLAUDE_PROJECT_DIR": "/x", "GEMINI_PROJECT_DIR": "/x"}, set()),
        ({"CLAUDECODE": "1", "CLAUDE_CODE_SSE_PORT": "9"}, set()),
        ({"CLINE_ACTIVE": "false", "VTCODE": "0", "AUGMENT_AGENT": "no"}, set()),
    ],
)
def test_marks_name_their_harness_and_nobody_else(
    environ: dict[str, str], expected: set[str]
) -> None:
    assert candidates(environ) == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/home/d/.local/share/claude/versions/2.1.330"], {"claude-code"}),
        (["node", "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js"], {"claude-code"}),
        (["/home/d/.local/share/claude/versions/2.1.330/rg"], set()),
        (["claude-squad"], set()),
        (["q"], set()),
        (["pi"], set()),
        (["goose", "up"], set()),
        (["/usr/bin/gemini-cli-helper"], set()),
    ],
)
def test_programs_are_known_by_exact_names_and_everyday_ones_not_at_all(
    argv: list[str], expected: set[str]
) -> None:
    assert candidates({}, *argv) == expected


def test_forks_stand_before_what_they_are_forks_of() -> None:
    names = {h.name for h in known_harnesses()}
    assert all(parent in names for h in known_harnesses() for parent in h.fork_of)


def test_scrubbing_leaves_no_harness_visible_and_the_users_settings_alone() -> None:
    marked = {
        s.name: s.equals or s.agent_name or s.contains or "x"
        for h in known_harnesses()
        for s in h.signals
        if s.source == "env" and s.kind in {SignalKind.STRONG, SignalKind.SESSION}
    }
    mine = {"ANTHROPIC_API_KEY": "k", "CLAUDE_CODE_USE_BEDROCK": "1", "PATH": "/bin", "HOME": "/h"}
    clean = scrub_env({**marked, **mine, "CLAUDE_CODE_MESSAGING_TOKEN": "t", "CLAUDE_PID": "8"})
    left = candidates(clean)
    assert left <= {"openhands", "bolt", "jules"}  # those are HOME, SHELL and PS1 themselves
    assert mine.items() - {("HOME", "/h")} <= clean.items()
    assert not {"CLAUDE_CODE_MESSAGING_TOKEN", "CLAUDE_PID", "AI_AGENT"} & set(clean)


def test_the_table_names_nobody_twice_and_says_nothing_that_is_not_read() -> None:
    names = [row["name"] for row in HARNESSES]
    assert sorted(names) == sorted({*names})
    explained = {
        key.strip("` ")
        for line in (table.__doc__ or "").splitlines()
        if line.startswith("| ``")
        for key in line.split("|")[1].split(",")
    }
    assert {key for row in HARNESSES for key in row} <= {"name", "tier", *explained}
    for row in HARNESSES:
        for key, value in row.items():
            assert isinstance(value, str if key in {"name", "tier", "actor_kind"} else tuple), key


@pytest.mark.parametrize(
    ("environ", "seen"),
    [
        ({"ACME": "1"}, True),
        ({"ACME": "0"}, False),
        ({"ACME_MODE": "agent"}, True),
        ({"ACME_MODE": "agents"}, False),
        ({"ACME_PATH": "/acme/bin"}, True),
        ({"ACME_PATH": "/bin/acme/"}, False),
        ({"PROMPT": "x acme> "}, True),
        ({"PROMPT": "x"}, False),
        ({"JOB": "run"}, False),
        ({"JOB": "run", "HOST_A": "1", "HOST_B": "1"}, True),
        ({"JOB": "walk", "HOST_A": "1", "HOST_B": "1"}, False),
    ],
)
def test_a_variable_is_read_as_the_table_writes_it(environ: dict[str, str], *, seen: bool) -> None:
    written = ("ACME_MODE=agent", "ACME_PATH^=/acme", "PROMPT*=acme>", "JOB=run+HOST_A+HOST_B")
    harness = harness_of({"name": "acme", "strong": ("ACME", *written)})
    assert any(signal.seen_in(environ) for signal in harness.signals) == seen
