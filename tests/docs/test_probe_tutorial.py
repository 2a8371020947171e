"""The tutorial's plugin, package and test, exactly as printed."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from heddle_registry.adapters.usage_reader import read_usage
from heddle_registry.plugins import Plugins
from heddle_registry.probe import probe_recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "your-first-probe-plugin.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]


@pytest.fixture
def brook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "heddle_registry_brook.py").write_text(PYTHON[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("heddle_registry_brook")
    del sys.modules["heddle_registry_brook"]


def test_the_printed_probe_is_at_most_thirty_lines() -> None:
    lines = [line for line in PYTHON[0].splitlines() if line.strip()]
    assert len(lines) <= 30


def test_the_printed_test_passes_for_the_printed_plugin(brook: Any) -> None:
    names: dict[str, Any] = {}
    exec(compile(PYTHON[1], str(PAGE), "exec"), names)
    contract = names["TestBrook"]()
    checks = [name for name in dir(contract) if name.startswith("test_")]
    assert len(checks) >= 8
    for name in checks:
        getattr(contract, name)()


def test_the_printed_package_registers_the_printed_module() -> None:
    project = tomli.loads(next(text for language, text in BLOCKS if language == "toml"))
    assert project["project"]["entry-points"]["heddle_registry"] == {
        "brook": "heddle_registry_brook"
    }


def test_the_printed_situation_gives_the_printed_answer(brook: Any) -> None:
    situations = [json.loads(text) for language, text in BLOCKS if language == "json"]
    plugins = Plugins([("brook", brook)])
    result = probe_recorded(situations[1], plugins)
    assert [link.native_actor_key for link in result.chain] == ["brook:session:r-80"]
    payload = {"payload": situations[0], "harness": "brook", "event": "fork"}
    child = probe_recorded(payload, plugins)
    assert child.meaning == "child_opened"
    assert child.actor.native_parent_actor_key == "brook:session:r-80"
    assert child.actor.transcript == "/home/you/.brook/r-81.jsonl"
    assert plugins.faults == []


def test_the_printed_usage_counts_the_printed_line_once(brook: Any, tmp_path: Path) -> None:
    exec(compile(PYTHON[2], str(PAGE), "exec"), vars(brook))
    line = [text for language, text in BLOCKS if language == "json"][-1]
    log = tmp_path / "log.jsonl"
    log.write_text('{"run": "r-81", "say": "hello"}\n' + line + line)
    readers = Plugins([("brook", brook)]).usage_readers()
    report = read_usage([("brook", str(log), None)], readers)
    (row,) = report.rows
    assert (row.actor, row.totals.total_tokens) == ("brook:session:r-81", 940)
    assert (row.totals.input_tokens, row.totals.cache_read_tokens) == (200, 700)
    assert report.faults == ()
