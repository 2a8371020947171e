"""A stranger's plugin reads its own transcripts, one by one, at its own cost."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from heddle_registry import Harness, UsageRecord, hookimpl
from heddle_registry.adapters.usage_reader import read_usage
from heddle_registry.plugins import Plugins


def plugin(harness: str, usage: Any) -> SimpleNamespace:
    @hookimpl
    def heddle_harnesses() -> list[Harness]:
        return [Harness(name=harness)]

    @hookimpl
    def heddle_usage(source: Any) -> Any:
        return usage(source)

    return SimpleNamespace(heddle_harnesses=heddle_harnesses, heddle_usage=heddle_usage)


def told(source: Any) -> list[UsageRecord]:
    return [
        UsageRecord(id=r["id"], input=r["in"], cache_read=r["cached"], output=r["out"])
        for r in source.json_lines()
        if "in" in r
    ]


def stop(_source: Any) -> Any:
    raise SystemExit(3)


def test_the_first_plugin_by_name_that_answers_reads_and_a_raising_one_costs_its_source(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.jsonl"
    lines = [{"note": "in"}, {"id": "a", "in": 5, "cached": 2, "out": 1}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plugins = Plugins(
        [
            ("3", plugin("acme", stop)),
            ("2", plugin("acme", told)),
            ("1", plugin("acme", lambda _: None)),
            ("0", plugin("bad", stop)),
        ]
    )
    readers = plugins.usage_readers()
    report = read_usage([("acme", str(path), None), ("bad", str(path), None)], readers)
    assert set(readers) == {"acme", "bad"}
    assert (report.totals.input_tokens, report.totals.cache_read_tokens) == (5, 2)
    assert [(fault.code, fault.detail) for fault in report.faults] == [("plugin", "SystemExit: 3")]


def test_a_plugin_of_ours_that_reads_by_shapes_brings_what_makes_that_quick() -> None:
    by_shapes, with_decoder = set(), set()
    for project in (Path(__file__).parents[2] / "plugins").glob("*/pyproject.toml"):
        code = "".join(file.read_text() for file in project.parent.glob("heddle_*/*.py"))
        if "source.shape" in code:
            by_shapes.add(project.parent.name)
        needed = tomllib.loads(project.read_text())["project"]["dependencies"]
        if any(one.startswith("heddle-registry[fast]") for one in needed):
            with_decoder.add(project.parent.name)
    assert by_shapes == with_decoder
    assert by_shapes >= {"claude-code", "codex", "gemini-cli"}
