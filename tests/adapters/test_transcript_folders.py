"""What a path that a person names stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.transcript_folders import discover

if TYPE_CHECKING:
    from pathlib import Path

THREAD = "01a2029f-a41d-7f40-b78d-0bfe9ed57cf0"


def tree(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(harness: str, root: Path, path: str = "") -> list[str]:
    whole = discover(harness, str(root / path))
    return [one.removeprefix(f"{root}/") for one in whole]


def test_a_session_of_claude_code_brings_its_agents_from_both_places(tmp_path: Path) -> None:
    tree(
        tmp_path,
        **{
            "projects/p/s1.jsonl": "",
            "projects/p/s1/subagents/agent-a.jsonl": "",
            "projects/p/s1/subagents/agent-a.meta.json": "",
            "projects/p/agent-b.jsonl": '{"sessionId":"s1"}',
            "projects/p/agent-c.jsonl": '{"sessionId": "s2"}',
            "projects/p/s2.jsonl": "",
            "history.jsonl": "",
        },
    )
    assert found("claude-code", tmp_path, "projects/p/s1.jsonl") == [
        "projects/p/s1.jsonl",
        "projects/p/agent-b.jsonl",
        "projects/p/s1/subagents/agent-a.jsonl",
    ]
    assert len(found("claude-code", tmp_path)) == 5
    assert len(found("claude-code", tmp_path, "projects/p")) == 5


def test_a_thread_of_codex_brings_the_threads_that_name_it(tmp_path: Path) -> None:
    one = f"rollout-2026-11-22T09-39-06-{THREAD}.jsonl"
    tree(
        tmp_path,
        **{
            f"sessions/2026/11/22/{one}": "",
            "sessions/2026/11/22/rollout-b.jsonl": f'{{"parent_thread_id":"{THREAD}"}}',
            "sessions/2026/11/22/rollout-c.jsonl": "{}",
            "archived_sessions/rollout-d.jsonl": "",
            "history.jsonl": "",
        },
    )
    folder = "sessions/2026/11/22"
    assert found("codex", tmp_path, f"{folder}/{one}") == [
        f"{folder}/{one}",
        f"{folder}/rollout-b.jsonl",
    ]
    assert len(found("codex", tmp_path)) == 4


@pytest.mark.parametrize(
    ("harness", "files", "wanted"),
    [
        ("gemini-cli", ["tmp/p/chats/session-1.json", "tmp/p/logs.json"], 1),
        ("qwen-code", ["p/chats/s.jsonl", "p/subagents/s/agent-a.jsonl", "usage.jsonl"], 2),
        ("copilot-cli", ["session-state/s/events.jsonl", "session-state/s/other.jsonl"], 1),
        ("opencode", ["opencode.db", "opencode.db-wal", "storage/message/s/m.json"], 2),
        ("aider", ["r/.aider.chat.history.md", "r/README.md"], 1),
        ("pi", ["sessions/p/1.jsonl", "other/2.jsonl"], 1),
        ("acme", ["a/1.jsonl", "2.txt"], 1),
    ],
)
def test_a_folder_stands_for_the_transcripts_below_it(
    tmp_path: Path, harness: str, files: list[str], wanted: int
) -> None:
    tree(tmp_path, **dict.fromkeys(files, ""))
    assert len(found(harness, tmp_path)) == wanted


def test_a_path_with_nothing_is_kept_for_the_reader_to_report(tmp_path: Path) -> None:
    assert discover("codex", str(tmp_path / "none")) == [str(tmp_path / "none")]
    assert discover("codex", str(tmp_path)) == [str(tmp_path)]
