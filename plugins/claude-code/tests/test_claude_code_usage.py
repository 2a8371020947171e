from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from heddle_registry_claude_code.usage import records

from heddle_registry.adapters.usage_reader import read_usage

if TYPE_CHECKING:
    from pathlib import Path

ID = "msg_01AAAAAAAAAAAAAAAAAAAAAA"


def line(number: int, output: int = 10, **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 100, "output_tokens": output}
    message = {"id": f"{ID}{number}", "model": "claude-x", "content": [], "usage": usage}
    message |= more.pop("message", {})
    message["usage"] |= more.pop("usage", {})
    return {
        "type": "assistant",
        "sessionId": "s1",
        "requestId": f"req_{number}",
        "timestamp": f"2026-01-01T00:00:{number:02}Z",
        "isSidechain": False,
        "message": message,
    } | more


def tool(name: str, text: str = "") -> dict[str, Any]:
    return {"content": [{"type": "tool_use", "id": name, "input": {"command": text}}]}


def write(path: Path, *lines: Any, compact: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    separators = (",", ":") if compact else None
    path.write_text("".join(json.dumps(one, separators=separators) + "\n" for one in lines))
    return path


def rows(*paths: Path, state: Path | None = None) -> dict[str, Any]:
    sources = [("claude-code", str(path), None) for path in paths]
    report = read_usage(sources, {"claude-code": records}, state)
    assert report.faults == ()
    return {row.actor.removeprefix("claude-code:"): row for row in report.rows}


@pytest.mark.parametrize("compact", [True, False])
def test_the_lines_of_a_response_count_once_with_its_largest_output(
    tmp_path: Path, compact: bool
) -> None:
    path = write(
        tmp_path / "s1.jsonl",
        line(1, 1),
        line(1, 1, message=tool("t1")),
        line(1, 40, message=tool("t2")),
        line(2, 5, message=tool("t3")),
        compact=compact,
    )
    found = rows(path)["session:s1"].totals
    assert (found.output_tokens, found.input_tokens, found.cache_read_tokens) == (45, 6, 200)
    assert (found.tool_calls, found.requests) == (3, 2)
    assert found.reasoning_tokens is None


def test_a_response_read_line_by_line_keeps_all_its_tool_calls(tmp_path: Path) -> None:
    path = tmp_path / "s1.jsonl"
    path.touch()
    for one in (line(1, 1, message=tool("a")), line(1, 1, message=tool("b")), line(1, 9)):
        with path.open("a") as file:
            file.write(json.dumps(one) + "\n")
        found = rows(path, state=tmp_path)["session:s1"].totals
    assert (found.tool_calls, found.output_tokens, found.requests) == (2, 9, 1)


def test_null_ids_in_arguments_and_texts_about_usage_hide_no_record(tmp_path: Path) -> None:
    text = '{"id":null,"usage":{"output_tokens":99}}'
    path = write(
        tmp_path / "s1.jsonl",
        line(1, 7, message=tool("a", text), version="dev"),
        {"type": "user", "sessionId": "s1", "toolUseResult": {"usage": {"output_tokens": 99}}},
    )
    assert rows(path)["session:s1"].totals.output_tokens == 7


def test_a_sub_agents_usage_is_its_own_and_its_copies_in_the_parent_are_not_the_parents(
    tmp_path: Path,
) -> None:
    message = line(2, 30)["message"]
    copy = {"type": "assistant", "requestId": "req_2", "message": message}
    progress = {
        "type": "progress",
        "sessionId": "s1",
        "data": {"type": "agent_progress", "agentId": "a1", "message": copy},
    }
    parent = write(tmp_path / "s1.jsonl", line(1, 10), progress)
    child = write(
        tmp_path / "s1" / "subagents" / "agent-a1.jsonl",
        line(2, 30, isSidechain=True, agentId="a1"),
        line(3, 5, isSidechain=True, agentId="a1"),
    )
    found = rows(child, parent)
    assert found["session:s1"].totals.output_tokens == 10
    assert found["agent:a1"].totals.output_tokens == 35
    assert found["agent:a1"].parent == "claude-code:session:s1"
    # Without the agent's file, what its parent saw of it is still the agent's.
    assert rows(parent)["agent:a1"].totals.output_tokens == 30


def test_sidechain_lines_inside_the_parents_file_are_a_child_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "s1.jsonl", line(1, 10), line(2, 4, isSidechain=True))
    found = rows(path)
    assert found["session:s1"].totals.output_tokens == 10
    assert found["agent:sidechain-s1"].parent == "claude-code:session:s1"


def test_a_fork_counts_only_what_it_asked_itself(tmp_path: Path) -> None:
    first = write(tmp_path / "s1.jsonl", line(1, 10), line(2, 20))
    fork = write(
        tmp_path / "s2.jsonl",
        line(1, 10, sessionId="s2", requestSessionId="s1"),
        line(2, 20, sessionId="s2", requestSessionId="s1"),
        line(3, 5, sessionId="s2"),
    )
    for order in ([first, fork], [fork, first]):
        found = rows(*order)
        assert found["session:s1"].totals.output_tokens == 30
        assert found["session:s2"].totals.output_tokens == 5
    assert rows(fork)["session:s2"].totals.output_tokens == 5


def test_an_old_resume_that_copied_the_history_counts_it_once(tmp_path: Path) -> None:
    first = write(tmp_path / "s1.jsonl", line(1, 10), line(2, 20))
    resumed = write(
        tmp_path / "s0.jsonl",
        *(line(n, 10 * n, sessionId="s0") for n in (1, 2)),
        line(3, 5, sessionId="s0"),
    )
    os.utime(first, ns=(1, 1))
    found = rows(resumed, first)
    assert found["session:s1"].totals.output_tokens == 30
    assert found["session:s0"].totals.output_tokens == 5


def test_made_up_ids_of_gateways_do_not_join_different_sessions(tmp_path: Path) -> None:
    short = {"message": {"id": "msg_1"}, "requestId": None}
    one = write(tmp_path / "s1.jsonl", line(1, 10, **short))
    two = write(tmp_path / "s2.jsonl", line(1, 10, sessionId="s2", **short))
    assert sum(row.totals.output_tokens for row in rows(one, two).values()) == 20


def test_placeholders_for_output_are_a_lower_bound_and_synthetic_records_nothing(
    tmp_path: Path,
) -> None:
    text = {"content": [{"type": "text", "text": "word " * 100}]}
    path = write(tmp_path / "s1.jsonl", line(1, 2, message=text))
    assert rows(path)["session:s1"].totals.lower_bound
    zero = line(2, 0, message={"model": "<synthetic>"})
    path = write(tmp_path / "s1.jsonl", line(1, 90, message=text), zero)
    found = rows(path)["session:s1"]
    assert not found.totals.lower_bound
    assert (found.totals.requests, set(found.by_model)) == (1, {"claude-x"})


def test_cache_writes_by_their_lifetime_advisors_and_stated_cost(tmp_path: Path) -> None:
    advisor = {"type": "advisor_message", "model": "claude-y", "output_tokens": 3}
    repeated = {"type": "message", "output_tokens": 10}
    parts = {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 7}
    usage = {
        "cache_creation_input_tokens": 12,
        "cache_creation": parts,
        "iterations": [repeated, advisor],
        "output_tokens_details": {"thinking_tokens": 4},
    }
    path = write(tmp_path / "s1.jsonl", line(1, 10, usage=usage, costUSD=0.25))
    found = rows(path)["session:s1"]
    assert found.by_model["claude-x"].cache_creation_tokens == 12
    assert found.by_model["claude-x"].reasoning_tokens == 4
    assert found.by_model["claude-y"].output_tokens == 3
    assert found.by_model["claude-x"].cost_micros_usd == 250_000
