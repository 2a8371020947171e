"""What is read of many totals at once is what each of them tells when it is parsed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from heddle_registry_codex import usage
from heddle_registry_codex.totals import NONE_YET, readings_of

from heddle_registry.adapters.usage_reader import read_usage

if TYPE_CHECKING:
    from pathlib import Path

OLD = '{{"input_tokens":{},"cached_input_tokens":{},"output_tokens":{},\
"reasoning_output_tokens":{},"total_tokens":{}}}'
NEW = OLD.replace('"output', '"cache_write_input_tokens":{},"output', 1)
META = '{"timestamp":"2026-01-01T00:00:00.000Z","type":"session_meta","payload":{"id":"t1"}}'


def line(second: int, total: str, last: str = "null") -> str:
    return (
        f'{{"timestamp":"2026-01-01T00:00:{second:02}.000Z","type":"event_msg","payload":'
        f'{{"type":"token_count","info":{{"total_token_usage":{total},"last_token_usage":{last}}}}}}}'
    )


def totals(path: Path, lines: list[str], head: re.Pattern[bytes]) -> Any:
    path.write_text("".join(f"{one}\n" for one in (META, *lines)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usage, "_HEAD", head)
        report = read_usage([("codex", str(path), None)], {"codex": usage.records})
    return report.totals, [fault.code for fault in report.faults]


@pytest.mark.parametrize(
    "odd",
    [
        OLD.format(50, 10, 5, 1, 55).replace('"input', '"more":1,"input', 1),
        OLD.format(50, 10, 5, 1, 55).replace(":50", ": 50"),
        OLD.format(50, 10, "5.5", 1, 55),
        OLD.format(50, 10, "", 1, 55),
        OLD.format(50, 10, "05", 1, 55),
        OLD.format(50, 10, -5, 1, 55),
        OLD.format(50, 10, 1 << 50, 1, 55),
        OLD.format(50, 60, 5, 1, 55),
        NEW.format(50, 10, 7, 5, 1, 55),
        "null",
        "[1,2]",
    ],
)
def test_a_total_that_is_written_otherwise_is_read_as_if_it_was_parsed(
    tmp_path: Path, odd: str
) -> None:
    first, later = OLD.format(40, 9, 4, 1, 44), OLD.format(90, 20, 9, 2, 99)
    for lines in (
        [line(1, first, first), line(2, odd), line(3, later)],
        [line(1, odd, odd), line(2, odd, odd), line(3, later, later)],
    ):
        path = tmp_path / "rollout.jsonl"
        quick, slow = (totals(path, lines, head) for head in (usage._HEAD, re.compile(rb"(?!)")))
        assert quick == slow


def test_totals_are_read_without_parsing_and_once_if_they_come_again() -> None:
    first, later = NEW.format(40, 9, 3, 4, 1, 44), NEW.format(90, 20, 5, 9, 2, 99)
    nothing = line(0, "x").replace('{"total_token_usage":x,"last_token_usage":null}', "null")
    told = [line(1, first, first), nothing, line(2, first, first), line(3, later, first)]
    lines = [one.encode() + b"\n" for one in told]
    assert (found := readings_of(lines, NONE_YET, json.loads)) is not None
    assert found[0] == [
        ("2026-01-01T00:00:01.000Z", 28, 3, 9, 4, 1, True),
        ("2026-01-01T00:00:03.000Z", 65, 5, 20, 9, 2, False),
    ]
    assert readings_of(lines[3:], found[1], json.loads) == ([], found[1])
    assert readings_of([lines[0][:-3]], NONE_YET, json.loads) is None
