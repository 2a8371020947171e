from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from heddle_registry_gemini_cli.usage import records

from heddle_registry.adapters.usage_reader import read_usage

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.adapters.usage_report import UsageReport

HEAD = {"sessionId": "s1", "projectHash": "h", "kind": "main"}


def answer(name: str, **more: Any) -> dict[str, Any]:
    tokens = {"input": 100, "output": 10, "cached": 40, "thoughts": 5, "tool": 0, "total": 115}
    tokens |= more.pop("tokens", {})
    return {"id": name, "type": "gemini", "model": "gemini-x", "tokens": tokens} | more


def lines(path: Path, *found: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in found))
    return path


def read(*paths: Path, state: Path | None = None) -> UsageReport:
    return read_usage([("gemini-cli", str(p), None) for p in paths], {"gemini-cli": records}, state)


def test_a_message_written_again_counts_once_with_its_tools(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "session-1.jsonl",
        HEAD,
        {"$set": {"messages": [answer("m1")]}},
        answer("m2"),
        {"$set": {"lastUpdated": "…"}},
        answer("m2", toolCalls=[{"id": "1"}, {"id": "2"}]),
        {"$rewindTo": "m1"},
    )
    (row,) = read(path).rows
    found = row.totals
    assert row.actor == "gemini-cli:session:s1"
    assert (found.input_tokens, found.cache_read_tokens) == (120, 80)
    assert (found.output_tokens, found.reasoning_tokens) == (30, 10)
    assert (found.tool_calls, found.requests) == (2, 2)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["session-1.json", "full.jsonl"])
def test_the_old_document_is_read_whatever_its_name_and_however_often_it_is_rewritten(
    tmp_path: Path, indent: int | None, name: str
) -> None:
    path = tmp_path / name
    messages: list[dict[str, Any]] = [{"id": "u", "type": "user", "content": '"tokens"' * 9000}]
    for number in range(3):
        messages.append(answer(f"m{number}"))
        path.write_text(json.dumps({"sessionId": "s1", "messages": messages}, indent=indent))
        report = read(path, state=tmp_path)
    assert report.faults == ()
    assert report.totals.output_tokens == 45
    path.write_text(path.read_text()[:-40])
    torn = read(path, state=tmp_path)
    assert torn.totals.output_tokens == 30
    assert [fault.code for fault in torn.faults] == ["torn"]


def test_a_sub_agents_file_names_it_even_where_it_has_its_parents_id(tmp_path: Path) -> None:
    for own in ("a1", "s1"):
        head = HEAD | {"sessionId": own, "kind": "subagent"}
        path = lines(tmp_path / "chats" / "s1" / "a1.jsonl", head, answer("m1"))
        (row,) = read(path).rows
        assert (row.actor, row.parent) == ("gemini-cli:agent:a1", "gemini-cli:session:s1")


def test_cached_and_tool_tokens_lie_where_the_total_says(tmp_path: Path) -> None:
    apart = {"total": 155}
    tool = {"tool": 7, "total": 122}
    path = lines(tmp_path / "s.jsonl", HEAD, answer("m1", tokens=apart), answer("m2", tokens=tool))
    assert read(path).totals.input_tokens == 100 + 67


@pytest.mark.parametrize("first", ["", "{", '{"sess'])
def test_a_document_that_was_seen_before_it_was_written_is_read_when_it_is(
    tmp_path: Path, first: str
) -> None:
    path = tmp_path / "session-1.json"
    path.write_text(first)
    read(path, state=tmp_path)
    whole = json.dumps({"sessionId": "s1", "messages": [answer("m1")]}, indent=1)
    with path.open("a") as file:
        file.write(whole.removeprefix(first))
    if not whole.startswith(first):
        path.write_text(whole)
    assert read(path, state=tmp_path).totals.requests == 1
