from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from heddle_registry_qwen_code.usage import records

from heddle_registry.adapters.usage_reader import read_usage

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.adapters.usage_report import UsageReport

USAGE = {
    "promptTokenCount": 100,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 5,
    "cachedContentTokenCount": 40,
    "totalTokenCount": 120,
}


def line(uuid: str, *parts: Any, **more: Any) -> dict[str, Any]:
    message = {"role": "model", "parts": list(parts)}
    return {"uuid": uuid, "sessionId": "s1", "type": "assistant", "message": message} | more


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def read(*paths: Path) -> UsageReport:
    return read_usage([("qwen-code", str(path), None) for path in paths], {"qwen-code": records})


def test_answers_count_and_telemetry_about_them_does_not(tmp_path: Path) -> None:
    telemetry = {"uiEvent": {"event.name": "qwen-code.api_response", "output_token_count": 20}}
    path = write(
        tmp_path / "s1.jsonl",
        {"uuid": "t", "type": "system", "note": '"assistant"', "systemPayload": telemetry},
        line("a", {"functionCall": {"id": "c1"}}, usageMetadata=USAGE, model="q"),
        line("b", usageMetadata=USAGE | {"totalTokenCount": 125}, model="q"),
    )
    (row,) = read(path).rows
    found = row.totals
    assert row.actor == "qwen-code:session:s1"
    assert (found.input_tokens, found.cache_read_tokens, found.tool_calls) == (120, 80, 1)
    # In the second the total says that thoughts are apart from the candidates.
    assert (found.output_tokens, found.reasoning_tokens, found.requests) == (45, 10, 2)


def test_a_sub_agent_has_its_tool_calls_parent_and_model(tmp_path: Path) -> None:
    agent = {"agentId": "g-1", "isSidechain": True}
    path = write(
        tmp_path / "subagents" / "s1" / "agent-g-1.jsonl",
        line("a", usageMetadata=USAGE, **agent),
        line("b", {"functionCall": {"id": "c1"}}, **agent),
    )
    (row,) = read(path).rows
    assert (row.actor, row.parent) == ("qwen-code:agent:g-1", "qwen-code:session:s1")
    assert (row.totals.requests, row.totals.tool_calls) == (1, 1)
    meta = {"parentAgentId": "g-0", "persistedCliFlags": {"model": "q"}}
    path.with_suffix(".meta.json").write_text(json.dumps(meta))
    (row,) = read(path).rows
    assert (row.parent, set(row.by_model)) == ("qwen-code:agent:g-0", {"q"})
