from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from heddle_registry_codex import usage as codex_usage
from heddle_registry_codex.usage import MAX_RUN, records

from heddle_registry.adapters.usage_reader import read_usage

if TYPE_CHECKING:
    from pathlib import Path


def usage(output: int, given: int = 0, cached: int = 0) -> dict[str, int]:
    return {
        "input_tokens": given,
        "cached_input_tokens": cached,
        "output_tokens": output,
        "reasoning_output_tokens": 0,
    }


def at(second: float) -> str:
    return f"2026-01-01T00:{int(second) // 60:02}:{second % 60:06.3f}Z"


def meta(thread: str, second: float = 0, **more: Any) -> dict[str, Any]:
    payload = {"id": thread, "timestamp": at(second), **more}
    return {"timestamp": at(second), "type": "session_meta", "payload": payload}


def turn(second: float, model: str = "gpt-x") -> dict[str, Any]:
    return {"timestamp": at(second), "type": "turn_context", "payload": {"model": model}}


def count(second: float, total: dict[str, int] | None, last: Any = None) -> dict[str, Any]:
    info = None if total is None else {"total_token_usage": total, "last_token_usage": last}
    payload = {"type": "token_count", "info": info}
    return {"timestamp": at(second), "type": "event_msg", "payload": payload}


def told(second: float, thread: str, response: str, total: Any, last: Any) -> dict[str, Any]:
    payload = {
        "thread_id": thread,
        "response_id": response,
        "usage": last,
        "thread_token_usage": total,
    }
    return {"timestamp": at(second), "type": "token_usage_record", "payload": payload}


def call(second: float, name: str, kind: str = "function_call") -> dict[str, Any]:
    payload = {"type": kind, "call_id": name, "arguments": '{"cmd": "echo \\"token_count\\""}'}
    return {"timestamp": at(second), "type": "response_item", "payload": payload}


def write(path: Path, *lines: Any, compact: bool = False) -> Path:
    separators = (",", ":") if compact else None
    path.write_text("".join(json.dumps(one, separators=separators) + "\n" for one in lines))
    return path


def rows(*paths: Path) -> dict[str, Any]:
    sources = [("codex", str(path), None) for path in paths]
    report = read_usage(sources, {"codex": records})
    assert [fault for fault in report.faults if fault.code != "unparsable"] == []
    return {row.actor.removeprefix("codex:thread:"): row for row in report.rows}


def outputs(*paths: Path) -> dict[str, int]:
    return {name: row.totals.output_tokens for name, row in rows(*paths).items()}


@pytest.mark.parametrize("compact", [True, False])
def test_totals_written_again_count_once_and_calls_without_an_event_count(
    tmp_path: Path, compact: bool
) -> None:
    first = usage(5, 100, 60)
    path = write(
        tmp_path / "a.jsonl",
        meta("t1"),
        turn(1),
        count(2, None),
        count(3, first, first),
        call(4, "c1"),
        call(4, "c2", "custom_tool_call"),
        call(4, "c2", "custom_tool_call_output"),
        count(9, first, first),
        turn(10, "gpt-y"),
        count(20, usage(50, 300, 160), usage(9, 50, 20)),
        compact=compact,
    )
    found = rows(path)["t1"]
    assert (found.totals.output_tokens, found.totals.tool_calls) == (50, 2)
    assert (found.totals.input_tokens, found.totals.cache_read_tokens) == (140, 160)
    assert found.by_model["gpt-x"].output_tokens == 5
    assert found.by_model["gpt-y"].output_tokens == 45


def test_the_two_records_of_a_response_count_once(tmp_path: Path) -> None:
    one, two = usage(5, 100), usage(12, 220)
    path = write(
        tmp_path / "a.jsonl",
        meta("t1"),
        told(1, "t1", "r1", one, one),
        count(2, one, one),
        told(3, "t1", "r2", two, usage(7, 120)),
        count(4, two, usage(7, 120)),
    )
    found = rows(path)["t1"].totals
    assert (found.output_tokens, found.input_tokens, found.requests) == (12, 220, 2)


def test_a_record_glued_to_one_that_does_not_matter_counts(tmp_path: Path) -> None:
    text = {"type": "message", "content": '{"timestamp":"'}
    lines = [{"timestamp": at(1), "type": "response_item", "payload": text}]
    lines.append(count(2, usage(5)))
    path = write(tmp_path / "a.jsonl", meta("t1"), *lines, compact=True)
    head, *rest = path.read_bytes().splitlines()
    path.write_bytes(head + b"\n" + b"".join(rest) + b"\n")
    assert outputs(path) == {"t1": 5}
    path.write_bytes(head + b"\n" + rest[0][:40] + rest[1] + b"\n")
    assert outputs(path) == {"t1": 5}


@pytest.mark.parametrize("year", ["2026", "1970"])
def test_a_record_glued_to_a_torn_one_counts_also_beside_one_of_a_clock_that_was_not_set(
    tmp_path: Path, year: str
) -> None:
    said = {"type": "agent_message", "message": "hello"}
    lines = [{"timestamp": at(n), "type": "event_msg", "payload": said} for n in range(4)]
    lines[1]["timestamp"] = year + at(1)[4:]
    path = write(tmp_path / "a.jsonl", meta("t1"), *lines, count(9, usage(5)), compact=True)
    *whole, torn, glued = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*whole, torn[:-10] + glued]) + b"\n")
    assert outputs(path) == {"t1": 5}


def test_a_fork_that_refers_to_its_history_begins_with_its_parents_total(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        meta("t2", forked_from_id="t1"),
        told(1, "t2", "r9", usage(1005, 9000), usage(5, 100)),
        count(2, usage(1005, 9000), usage(5, 100)),
        count(9, usage(1015, 9100), usage(10, 100)),
    )
    assert outputs(path) == {"t2": 15}


def test_a_copied_history_counts_for_its_thread_only_with_and_without_it(tmp_path: Path) -> None:
    history = [
        count(10, usage(5, 50), usage(5, 50)),
        call(11, "c1"),
        count(30, usage(25, 90), usage(20, 40)),
    ]
    parent = write(tmp_path / "p.jsonl", meta("t1"), *history)
    burst = [
        count(66 + n / 10, *pair)
        for n, pair in enumerate(
            [
                (usage(5, 50), usage(5, 50)),
                (usage(25, 90), usage(20, 40)),
            ]
        )
    ]
    child = write(
        tmp_path / "c.jsonl",
        meta("t2", 60),
        meta("t1", 66),
        burst[0],
        call(66.05, "c1"),
        burst[1],
        call(80, "c2"),
        count(80, usage(4, 30), usage(4, 30)),  # 0.36: the counter began again
        count(90, usage(9, 60), usage(5, 30)),
    )
    kept = write(
        tmp_path / "k.jsonl",
        meta("t3", 100, forked_from_id="t1"),
        meta("t1", 0),
        *history,
        count(120, usage(31, 120), usage(6, 30)),  # the counter goes on
    )
    assert outputs(parent, child, kept) == {"t1": 25, "t2": 9, "t3": 6}
    assert outputs(child) == {"t2": 9}
    assert outputs(kept) == {"t3": 6}
    assert rows(child)["t2"].totals.tool_calls == 1


def test_a_copy_that_comes_before_the_threads_own_first_line_is_none_of_its_usage(
    tmp_path: Path,
) -> None:
    own = "01a2029f-b10d-73a1-b3fb-00fecaae3de0"
    path = write(
        tmp_path / f"rollout-2026-01-01T00-01-40-{own}.jsonl",
        meta("t1"),
        count(0.1, usage(5, 50), usage(5, 50)),
        meta(own, 1, forked_from_id="t1"),
        count(20, usage(9, 90), usage(4, 40)),
    )
    assert outputs(path) == {own: 4}


def test_a_resume_of_the_same_thread_goes_on_and_its_archived_copy_counts_nothing(
    tmp_path: Path,
) -> None:
    lines = [
        meta("t1"),
        count(1, usage(5, 50), usage(5, 50)),
        meta("t1", 100),
        count(101, usage(8, 90), usage(3, 40)),
    ]
    one, copy = write(tmp_path / "a.jsonl", *lines), write(tmp_path / "b.jsonl", *lines[:2])
    assert outputs(one, copy) == {"t1": 8}


def test_a_spawned_thread_names_its_parent(tmp_path: Path) -> None:
    spawn = {"subagent": {"thread_spawn": {"parent_thread_id": "t1", "depth": 1}}}
    path = write(tmp_path / "a.jsonl", meta("t2", source=spawn))
    (row,) = rows(path).values()
    assert (row.parent, row.totals.output_tokens) == ("codex:thread:t1", 0)
    path = write(tmp_path / "a.jsonl", meta("t3", source={"subagent": "review"}))
    assert rows(path)["t3"].parent is None


def test_the_stream_of_an_exec_is_a_running_total_too(tmp_path: Path) -> None:
    path = write(
        tmp_path / "out.jsonl",
        {"type": "thread.started", "thread_id": "t1"},
        {"type": "turn.completed", "usage": usage(5, 50, 10)},
        {"type": "turn.completed", "usage": usage(9, 90, 20)},
    )
    found = rows(path)["t1"].totals
    assert (found.output_tokens, found.input_tokens, found.cache_read_tokens) == (9, 70, 20)


def test_lines_of_2025_that_have_another_shape_are_passed_over(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"id": "t1", "instructions": '"token_count"', "token_count": None},
        {"record_type": "state", "session_meta": 1},
        {"type": "function_call", "name": "shell"},
    )
    assert outputs(path) == {}


def told_of(path: Path) -> tuple[object, list[str]]:
    report = read_usage([("codex", str(path), None)], {"codex": records})
    return report.totals, [fault.code for fault in report.faults]


@pytest.mark.parametrize(
    "odd",
    [
        {**usage(5, 50, 10), "more": 1},
        {**usage(5, 50, 10), "output_tokens": 5.5},
        {**usage(5, 50, 10), "output_tokens": -5},
        {**usage(5, 50, 10), "output_tokens": 1 << 50},
        {**usage(5, 50, 10), "output_tokens": "5"},
        {**usage(5, 50, 10), "cache_write_input_tokens": 7},
        usage(5, 50, 60),
        {"output_tokens": 5},
        {},
        None,
        [1, 2],
        7,
    ],
)
def test_a_total_that_is_written_otherwise_is_read_alike_alone_and_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: Any
) -> None:
    first, later = usage(4, 40, 9), usage(9, 90, 20)
    for lines in (
        [count(1, first, first), count(2, odd), count(3, later)],
        [count(1, odd, odd), count(2, odd, odd), count(3, later, later)],
    ):
        path = write(tmp_path / "rollout.jsonl", meta("t1"), *lines)
        in_a_run = told_of(path)
        assert in_a_run[1] == []
        # A copied history is looked at one by one: here it is nobody's but its own.
        with monkeypatch.context() as patch:
            patch.setattr(codex_usage, "_linked", lambda _memory: True)
            patch.setattr(codex_usage, "_copied_count", lambda _memory, _at_s: False)
            assert told_of(path) == in_a_run


def test_a_long_run_of_totals_of_one_model_is_counted_once_and_to_its_end(tmp_path: Path) -> None:
    totals = [usage(n, 10 * n, n) for n in range(1, 3 * MAX_RUN)]
    lines = [count(n / 10, total) for n, total in enumerate(totals)]
    path = write(tmp_path / "a.jsonl", meta("t1"), turn(0), *lines, turn(400, "other"), lines[-1])
    found = rows(path)["t1"]
    assert (found.totals.output_tokens, found.totals.requests) == (len(totals), len(totals))
    assert set(found.by_model) == {"gpt-x"}


@pytest.mark.parametrize(
    "odd",
    [
        {"type": [], "payload": {}},
        {"type": {}, "payload": {"type": [1]}},
        {"type": "response_item", "payload": {"type": ["function_call"]}},
        {"type": "turn_context", "payload": {"model": {}}},
        {"type": "session_meta", "payload": {"id": []}},
        {"type": "event_msg", "payload": {"type": 7, "info": {"total_token_usage": []}}},
        {"timestamp": {}, "type": "event_msg", "payload": {"info": "x"}},
        {"type": "turn.completed", "usage": 7},
        {"payload": 5},
    ],
)
def test_a_line_of_another_kind_costs_itself_alone(tmp_path: Path, odd: dict[str, Any]) -> None:
    lines = [count(2, usage(4, 40, 9)), turn(3), odd, count(4, usage(9, 90, 20))]
    path = write(tmp_path / "rollout.jsonl", meta("t1"), *lines)
    assert outputs(path) == {"t1": 9}
    assert told_of(path)[1] == []


def test_lines_of_both_kinds_in_one_file_are_counted_in_their_order(tmp_path: Path) -> None:
    total = {"type": "turn.completed", "usage": usage(30, 300)}
    lines = [count(1, usage(10, 100)), count(2, usage(20, 200)), total, count(4, usage(40, 400))]
    path = write(tmp_path / "rollout.jsonl", meta("t1"), *lines)
    assert outputs(path) == {"t1": 40}
    started = {"type": "thread.started", "thread_id": "t2"}
    path = write(tmp_path / "b.jsonl", meta("t1"), lines[0], started, total)
    assert outputs(path) == {"t1": 10, "t2": 30}
