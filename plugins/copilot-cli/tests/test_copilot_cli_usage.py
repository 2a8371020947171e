from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from heddle_registry_copilot_cli.usage import records

from heddle_registry.adapters.usage_reader import read_usage

if TYPE_CHECKING:
    from pathlib import Path

START = {"type": "session.start", "id": "e0", "data": {"sessionId": "s1"}}


def message(output: int, **more: Any) -> dict[str, Any]:
    return {"type": "assistant.message", "data": {"outputTokens": output}} | more


def shutdown(name: str, output: int, model: str = "claude-x", **more: int) -> dict[str, Any]:
    usage = {
        "inputTokens": 100,
        "outputTokens": output,
        "cacheReadTokens": 60,
        "cacheWriteTokens": 10,
    }
    metric = {"requests": {"count": 2, "cost": 1}, "usage": usage | more}
    return {"type": "session.shutdown", "id": name, "data": {"modelMetrics": {model: metric}}}


def told(call: str, output: int, **more: Any) -> dict[str, Any]:
    usage = {"model": "gpt-x", "inputTokens": 100, "outputTokens": output, "apiCallId": call}
    return {"type": "session.usage_record", "data": {"usage": usage}} | more


def rows(path: Path, *lines: Any) -> dict[str, Any]:
    with path.open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in lines)
    report = read_usage([("copilot-cli", str(path), None)], {"copilot-cli": records}, path.parent)
    return {row.actor.removeprefix("copilot-cli:"): row.totals for row in report.rows}


def test_live_output_is_a_lower_bound_until_the_process_tells_its_usage(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    found = rows(path, START, message(10), message(20))["session:s1"]
    assert (found.output_tokens, found.lower_bound) == (30, True)
    found = rows(path, shutdown("e9", 31))["session:s1"]
    assert (found.output_tokens, found.input_tokens, found.lower_bound) == (31, 30, False)
    assert (found.cache_read_tokens, found.cache_creation_tokens) == (60, 10)
    assert found.requests == 2
    found = rows(path, message(5))["session:s1"]
    assert (found.output_tokens, found.lower_bound) == (36, True)
    assert rows(path, shutdown("e10", 6))["session:s1"].output_tokens == 37


def test_a_killed_process_keeps_its_lower_bound_beside_the_next_ones_usage(tmp_path: Path) -> None:
    resume = {"type": "session.resume", "id": "e5", "data": {}}
    path = tmp_path / "events.jsonl"
    found = rows(path, START, message(10), resume, message(5), shutdown("e9", 6))["session:s1"]
    assert (found.output_tokens, found.lower_bound) == (16, True)


def test_a_text_about_a_shutdown_is_none(tmp_path: Path) -> None:
    data = {"toolCallId": "c1", "arguments": {"command": 'grep "session.shutdown" x'}}
    start = {"type": "tool.execution_start", "id": "e1", "data": data}
    found = rows(tmp_path / "events.jsonl", START, message(10), start, start)["session:s1"]
    assert (found.output_tokens, found.tool_calls) == (10, 1)


def test_calls_that_are_told_one_by_one_count_once_and_for_their_agent(tmp_path: Path) -> None:
    found = rows(
        tmp_path / "events.jsonl",
        START,
        message(10),
        told("r1", 10, id="e1"),
        message(10),
        told("r2", 7, agentId="a1"),
        message(7, agentId="a1"),
        told("r2", 7, agentId="a1"),
        shutdown("e9", 17),
    )
    assert found["session:s1"].output_tokens == 10
    assert found["agent:a1"].output_tokens == 7
    assert not found["session:s1"].lower_bound


def test_only_geminis_output_leaves_its_reasoning_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    found = rows(path, START, shutdown("e1", 10, "gemini-x", reasoningTokens=4))["session:s1"]
    assert (found.output_tokens, found.reasoning_tokens) == (14, 4)
