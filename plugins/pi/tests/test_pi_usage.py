from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import heddle_registry_pi
from heddle_registry_pi.usage import records

from heddle_registry.adapters.usage_reader import read_usage
from heddle_registry.testing.probe_kit import probe_contract
from heddle_registry.testing.usage_kit import Transcript, usage_contract

if TYPE_CHECKING:
    from pathlib import Path

TestContract = probe_contract(heddle_registry_pi)


def answer(name: str, usd: float, **more: Any) -> dict[str, Any]:
    usage = {"input": 10, "output": 4, "cacheRead": 2, "cacheWrite": 1, "cost": {"total": usd}}
    content = [{"type": "toolCall", "id": "t"}, {"type": "text", "text": "x"}]
    message = {"role": "assistant", "model": "m", "content": content, "usage": usage}
    line = {"type": "message", "id": name, "timestamp": f"2026-01-01T00:00:00.{name}Z"}
    return line | {"message": message} | more


def write(path: Path, *lines: Any) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return str(path)


SESSION = [{"type": "session", "id": "s1"}, *(answer(f"00{n}", 0.5) for n in range(1, 5))]
TestUsage = usage_contract(
    heddle_registry_pi,
    [
        Transcript(
            "pi",
            "a.jsonl",
            "".join(json.dumps(one) + "\n" for one in SESSION).encode(),
            {"pi:session:s1": {"input_tokens": 40, "output_tokens": 16, "tool_calls": 4}},
        )
    ],
)


def test_every_branch_counts_and_a_session_branched_off_counts_its_own_only(
    tmp_path: Path,
) -> None:
    lines = [answer("001", 0.5), answer("002", 0.25, parentId="001")]
    user = {"type": "message", "id": "003", "message": {"role": "user", "content": '"usage"'}}
    first = write(tmp_path / "a.jsonl", {"type": "session", "id": "s1"}, *lines, user)
    second = write(
        tmp_path / "b.jsonl", {"type": "session", "id": "s2"}, lines[0], answer("004", 1)
    )
    report = read_usage([("pi", first, None), ("pi", second, None)], {"pi": records})
    found = {row.actor: row.totals for row in report.rows}
    assert sum(totals.known_cost_micros_usd for totals in found.values()) == 1_750_000
    assert sum(totals.requests for totals in found.values()) == 3
    assert found["pi:session:s1"].tool_calls == 2
    assert found["pi:session:s1"].cost_source == "transcript"


def test_a_cost_of_nothing_for_something_is_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"type": "session", "id": "s1"}, answer("001", 0))
    report = read_usage([("pi", path, None)], {"pi": records})
    assert report.totals.cost_micros_usd is None


def test_answers_without_ids_and_times_count_one_by_one_however_they_arrive(
    tmp_path: Path,
) -> None:
    bare = answer("", 0.5) | {"id": None, "timestamp": None}
    path = write(tmp_path / "a.jsonl", {"type": "session", "id": "s1"}, bare, bare)
    sources = [("pi", path, None)]
    assert read_usage(sources, {"pi": records}, tmp_path).totals.requests == 2
    write(tmp_path / "a.jsonl", {"type": "session", "id": "s1"}, bare, bare, bare)
    assert read_usage(sources, {"pi": records}, tmp_path).totals.requests == 3
