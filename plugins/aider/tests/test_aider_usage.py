from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from heddle_registry_aider.usage import records

from heddle_registry.adapters.usage_reader import read_usage

if TYPE_CHECKING:
    from pathlib import Path

HISTORY = """
# aider chat started at 2026-01-02 03:04:05

> /usr/bin/aider --model openai/gpt-x --analytics-log {log}
> Main model: openai/gpt-x with diff edit format

#### what does "> Tokens: 9k sent, 9k received." mean?

> Tokens: 2.1k sent, 326 received. Cost: $0.01 message, $0.01 session.
> Tokens: 12k sent, 1.0k cache write, 2.0k cache hit, 40 received.{cost}

# aider chat started at 2026-01-03 03:04:05

> Model: local/llama with whole edit format
> Tokens: 500 sent, 7 received.
> Tokens: 600 sent, 7 rec"""


COST = " Cost: $0.0050 message, $0.015 session."


def event(sent: int, received: int, cost: float, name: str = "message_send") -> dict[str, Any]:
    properties = {"main_model": "openai/gpt-x", "prompt_tokens": sent}
    properties |= {"completion_tokens": received, "cost": cost}
    return {"event": name, "properties": properties, "time": 1767322000}


def row(path: Path) -> Any:
    (found,) = read_usage([("aider", str(path), None)], {"aider": records}).rows
    return found


def test_the_lines_of_a_history_count_and_a_message_without_a_price_is_unknown(
    tmp_path: Path,
) -> None:
    path = tmp_path / ".aider.chat.history.md"
    path.write_text(HISTORY.format(log="/nowhere/log.jsonl", cost=COST))
    found = row(path)
    totals = found.by_model["gpt-x"]
    assert found.actor == f"aider:path:{path}"
    assert (totals.input_tokens, totals.output_tokens) == (2100 + 9000, 366)
    assert (totals.cache_creation_tokens, totals.cache_read_tokens) == (1000, 2000)
    assert totals.cost_micros_usd == 15_000
    assert found.by_model["llama"].cost_micros_usd is None
    assert found.totals.requests == 3


def test_a_log_that_agrees_gives_the_exact_figures_and_one_that_does_not_gives_none(
    tmp_path: Path,
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    path, log = repository / ".aider.chat.history.md", tmp_path / "log.jsonl"
    path.write_text(HISTORY.format(log=log, cost=COST))
    events = [event(2059, 326, 0.0101), event(9, 9, 9.0, "launched"), event(77, 7, 0.1)]
    log.write_text("".join(json.dumps(one) + "\n" for one in events))
    totals = row(path).by_model["gpt-x"]
    assert totals.input_tokens == 2059 + 9000
    assert totals.cost_micros_usd == 10_100 + 5_000
    assert row(log).totals.input_tokens == 2059 + 77
