"""The judge: real transcripts and recorded runs, against totals that are known to be right."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import heddle_registry_aider.usage
import heddle_registry_claude_code.usage
import heddle_registry_codex.usage
import heddle_registry_copilot_cli.usage
import heddle_registry_gemini_cli.usage
import heddle_registry_opencode.usage
import heddle_registry_pi.usage
import heddle_registry_qwen_code.usage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle_registry.adapters.transcript_folders import discover
from heddle_registry.adapters.usage_reader import read_usage
from heddle_registry.core.usage import UsageTotals, roll_up
from tests.parsers import without_msgspec

if TYPE_CHECKING:
    from heddle_registry.adapters.usage_report import UsageReport

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "transcripts"
RECORDED = ROOT / "tests" / "data" / "harness"
READERS = {
    "aider": heddle_registry_aider.usage.records,
    "claude-code": heddle_registry_claude_code.usage.records,
    "codex": heddle_registry_codex.usage.records,
    "copilot-cli": heddle_registry_copilot_cli.usage.records,
    "gemini-cli": heddle_registry_gemini_cli.usage.records,
    "opencode": heddle_registry_opencode.usage.records,
    "pi": heddle_registry_pi.usage.records,
    "qwen-code": heddle_registry_qwen_code.usage.records,
}
HARNESS_OF = {"claude": "claude-code", "gemini": "gemini-cli", "qwen": "qwen-code"}
HARNESS_OF["copilot"] = "copilot-cli"


def expectations(file: Path) -> dict[str, Any]:
    if not file.exists():
        # A skip on a laptop; in CI the files must be there.
        return {"missing": None} if os.environ.get("CI") == "true" else {}
    found = json.loads(file.read_text())
    return dict(found)


SESSIONS = expectations(SHARED / "expected.json")
RUNS = {
    folder.name: expectations(folder / "expected.json")
    for folder in sorted(RECORDED.iterdir())
    if folder.is_dir()
}
ACTORS = [(run, actor) for run, found in RUNS.items() for actor in found.get("actors", ())]


def buckets(totals: UsageTotals) -> dict[str, int | None]:
    return {
        "input_uncached": totals.input_tokens,
        "cache_write": totals.cache_creation_tokens,
        "cache_read": totals.cache_read_tokens,
        "output": totals.output_tokens,
        "reasoning": totals.reasoning_tokens,
        "tool_calls": totals.tool_calls,
        "requests": totals.requests,
    }


def read_session(name: str, state: Path | None = None) -> UsageReport:
    family = name.partition("/")[0]
    harness = HARNESS_OF.get(family, family)
    files = [str(SHARED / file) for file in SESSIONS[name]["files"]]
    return read_usage([(harness, file, None) for file in files], READERS, state)


def test_the_recorded_runs_are_here() -> None:
    assert len(ACTORS) >= 19
    if os.environ.get("CI") == "true":
        assert len(SESSIONS) >= 39


@pytest.mark.parametrize("name", SESSIONS)
def test_the_totals_of_a_real_session_are_right_in_every_known_bucket(name: str) -> None:
    report = read_session(name)
    assert report.faults == ()
    known = {key: n for key, n in SESSIONS[name]["usage"].items() if n is not None}
    found = buckets(report.totals)
    assert {key: found[key] for key in known} == known
    if "cost_usd" in SESSIONS[name]:
        assert report.totals.cost_source == "transcript"
        assert report.totals.known_cost_micros_usd == pytest.approx(
            SESSIONS[name]["cost_usd"] * 1e6, abs=report.totals.requests
        )
    if any("lower bound" in note for note in SESSIONS[name]["notes"]):
        assert report.totals.lower_bound


@pytest.mark.parametrize(("run", "actor"), ACTORS, ids=lambda value: str(value)[-24:])
def test_the_usage_of_a_recorded_actor_is_its_own_and_complete(
    run: str, actor: dict[str, Any]
) -> None:
    harness = RUNS[run]["harness"]
    files = {str(RECORDED / run / one["home"] / one["transcript"]) for one in RUNS[run]["actors"]}
    report = read_usage([(harness, file, None) for file in sorted(files)], READERS)
    rows = {row.actor: row for row in report.rows}
    row = rows[actor["key"]] if actor["key"] else report.rows[0]
    assert buckets(row.totals) == actor["recorded"]
    assert row.parent == actor["parent_key"]
    assert set(row.by_model) <= {*actor["models"], None}
    assert report.faults == ()


@pytest.mark.parametrize("run", [run for run in RUNS if run != "aider"])
def test_the_home_of_a_harness_stands_for_all_that_it_recorded(run: str) -> None:
    harness, actors = RUNS[run]["harness"], RUNS[run]["actors"]
    paths = discover(harness, str(RECORDED / run / "home"))
    report = read_usage([(harness, path, None) for path in paths], READERS)
    assert {row.actor for row in report.rows} == {actor["key"] for actor in actors}
    rolled = roll_up({row.actor: row.totals for row in report.rows}, report.parents())
    roots = [actor["key"] for actor in actors if actor["parent_key"] is None]
    assert sum(rolled[key].output_tokens for key in roots) == sum(
        actor["recorded"]["output"] for actor in actors
    )


@pytest.mark.skipif(not SESSIONS, reason="the real transcripts are not beside the checkout")
def test_growing_snapshots_of_one_session_count_as_the_longest(tmp_path: Path) -> None:
    for names in (["codex/19", "codex/20"], ["gemini/03", "gemini/04", "gemini/05"]):
        for order in (names, names[::-1]):
            family = names[0].partition("/")[0]
            files = [SHARED / SESSIONS[name]["files"][0] for name in order]
            harness = HARNESS_OF.get(family, family)
            report = read_usage([(harness, str(file), None) for file in files], READERS)
            assert report.totals == read_session(names[-1]).totals
    del tmp_path


@pytest.mark.skipif(not SESSIONS, reason="the real transcripts are not beside the checkout")
def test_real_files_read_in_pieces_give_what_they_give_in_one(tmp_path: Path) -> None:
    for name in ("claude/10", "codex/04", "copilot/02", "gemini/01"):
        family = name.partition("/")[0]
        harness, whole = HARNESS_OF.get(family, family), read_session(name)
        copies = []
        for file in SESSIONS[name]["files"]:
            copies.append(tmp_path / file)
            copies[-1].parent.mkdir(parents=True, exist_ok=True)
            copies[-1].touch()
        sources = [(harness, str(copy), None) for copy in copies]
        contents = [(SHARED / file).read_bytes() for file in SESSIONS[name]["files"]]
        for part in range(12):
            for copy, content in zip(copies, contents, strict=True):
                step = len(content) // 11 + 1
                with copy.open("ab") as file:
                    file.write(content[part * step : (part + 1) * step])
            report = read_usage(sources, READERS, tmp_path)
        assert report.totals == whole.totals
        assert {row.actor: row.totals for row in report.rows} == {
            row.actor: row.totals for row in whole.rows
        }


def found_in(report: UsageReport) -> Any:
    return report.faults, {row.actor: (row.parent, row.by_model) for row in report.rows}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_real_session_is_the_same_where_msgspec_is_missing(name: str) -> None:
    quick = found_in(read_session(name))
    with without_msgspec():
        assert found_in(read_session(name)) == quick


@pytest.mark.parametrize("run", [run for run in RUNS if run != "aider"])
def test_a_recorded_run_is_the_same_where_msgspec_is_missing(run: str) -> None:
    harness = RUNS[run]["harness"]
    sources = [(harness, path, None) for path in discover(harness, str(RECORDED / run / "home"))]
    quick = found_in(read_usage(sources, READERS))
    with without_msgspec():
        assert found_in(read_usage(sources, READERS)) == quick
    assert quick[1]


FAMILIES = ["claude", "codex", "copilot", "gemini", "pi", "qwen"]


@cache
def lines_of(family: str) -> list[bytes]:
    files = (file for top in (RECORDED, SHARED) for file in (top / family).rglob("*.jsonl"))
    every = {line for file in files for line in file.read_bytes().splitlines()}
    return sorted(line for line in every if 0 < len(line) < 4000)


def torn(line: bytes, where: float) -> bytes:
    return line[: int(len(line) * where)]


def retyped(line: bytes, where: float, value: Any) -> bytes:
    """The line with another value in one of its places."""
    try:
        whole = [json.loads(line)]
    except ValueError:
        return line
    places: list[tuple[Any, Any]] = []
    ahead: list[Any] = [whole]
    while ahead:
        held = ahead.pop()
        found = [*(held.items() if isinstance(held, dict) else enumerate(held))]
        places += [(held, key) for key, _ in found]
        ahead += [inner for _, inner in found if isinstance(inner, (dict, list))]
    held, key = places[int(len(places) * where)]
    held[key] = value
    return json.dumps(whole[0]).encode()


WHERE = st.floats(0.05, 0.95)
VALUES = [None, True, "5", 5, -5, 5.5, 1e25, 10**25, [], {}, [5], {"type": "assistant"}, "\ud800"]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_however_lines_are_torn_glued_retyped_and_mixed_both_ways_find_the_same(
    tmp_path_factory: pytest.TempPathFactory, family: str, data: st.DataObject
) -> None:
    if not lines_of(family):
        pytest.skip("the real transcripts are not beside the checkout")
    line = st.sampled_from(lines_of(family))
    part = st.builds(torn, line, WHERE)
    odd = st.builds(retyped, line, WHERE, st.sampled_from(VALUES))
    glued = st.tuples(line | part, line | odd).map(b"".join)
    again = st.tuples(line | line | odd | part | glued, st.integers(1, 3))
    lines = data.draw(st.lists(again, max_size=20))
    path = tmp_path_factory.mktemp("mangled") / "rollout.jsonl"
    path.write_bytes(b"".join((one + b"\n") * times for one, times in lines))
    sources = [(HARNESS_OF.get(family, family), str(path), None)]
    quick = found_in(read_usage(sources, READERS))
    with without_msgspec():
        assert found_in(read_usage(sources, READERS)) == quick
    assert "plugin" not in {fault.code for fault in quick[0]}
