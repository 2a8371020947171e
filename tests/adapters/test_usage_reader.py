"""Totals do not depend on how, how often, in what order or by whom the files were read."""

from __future__ import annotations

import gc
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle_registry.adapters import usage_names, usage_reader, usage_rows, usage_state
from heddle_registry.adapters.garbage import OBJECTS_BETWEEN
from heddle_registry.adapters.usage_reader import read_usage
from heddle_registry.core.usage import UsageCounter, UsageGroup, UsageRecord

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from heddle_registry.adapters.transcripts import TranscriptSource
    from heddle_registry.adapters.usage_report import UsageReport

ROOT = Path(__file__).parents[2]


def acme(source: TranscriptSource) -> Iterator[UsageRecord | UsageCounter]:
    """Read a made-up harness: ``{"id"|"total", "out", "who", …}``; a document where it is one."""
    lines: Iterable[Any] = source.json_lines(b'"out"')
    if source.path.endswith(".json"):
        lines = (value for key, value in source.document("all") if key == "all")
    for line in lines:
        if line["out"] == "raise":
            raise RuntimeError("a plugin's own fault")
        if "total" in line:
            yield UsageCounter(line["total"], output=line["out"], actor=line.get("who"))
            continue
        yield UsageRecord(
            line["id"],
            output=line["out"],
            tool_calls=line.get("tools", 0),
            cost_micros_usd=line.get("cost"),
            model=line.get("model"),
            at=line.get("at"),
            actor=line.get("who"),
            replayed=line.get("copy", False),
        )


READERS = {"acme": acme}


def write(path: Path, *lines: dict[str, Any], mode: str = "w") -> Path:
    with path.open(mode) as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def totals(report: UsageReport) -> dict[str, Any]:
    return {row.actor.partition(":")[2]: row.totals for row in report.rows}


def outputs(report: UsageReport) -> dict[str, int]:
    return {actor: found.output_tokens for actor, found in totals(report).items()}


def read(*paths: Path, state: Path | None = None, **more: Any) -> UsageReport:
    return read_usage([("acme", str(path), None) for path in paths], READERS, state, **more)


LINE = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abcdef"),
        "out": st.integers(0, 3),
        "tools": st.integers(0, 2),
        "cost": st.none() | st.integers(0, 2),
        "who": st.sampled_from(["session:1", "agent:2"]),
        "model": st.sampled_from(["m", "n"]),
        "at": st.integers(1, 4),
        "copy": st.booleans(),
    }
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(LINE, max_size=5), min_size=2, max_size=3),
    st.lists(st.integers(0, 2), max_size=20),
    st.randoms(use_true_random=False),
)
def test_any_interleaving_split_and_repetition_gives_the_same_totals(
    files: list[list[dict[str, Any]]], order: list[int], rng: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [write(folder / f"{n}.jsonl") for n in range(len(files))]
        for path in paths:
            os.utime(path, ns=(0, 0))  # what a file is ranked by is seen at its first read
        read(*paths, state=folder)
        left = {path: list(lines) for path, lines in zip(paths, files, strict=True)}
        for turn in [*order, *(n for n in range(len(paths)) for _ in range(5))]:
            path = paths[turn % len(paths)]
            if left[path]:
                write(path, left[path].pop(0), mode="a")
            if rng.random() < 0.5:
                read(*rng.sample(paths, rng.randint(1, len(paths))), state=folder)
        grown = read(*rng.sample(paths, len(paths)), state=folder)
        assert read(*paths, state=folder) == grown
        for path in paths:
            os.utime(path, ns=(0, 0))
        assert totals(read(*paths)) == totals(grown) == totals(read(*paths, state=folder))


def test_a_record_in_two_files_counts_once_for_the_one_that_began_first(tmp_path: Path) -> None:
    shared = {"id": "a", "out": 5, "who": "session:first", "at": 1}
    first = write(tmp_path / "z.jsonl", shared)
    fork = write(
        tmp_path / "a.jsonl",
        shared | {"who": "session:fork"},
        {"id": "b", "out": 2, "who": "session:fork", "at": 9},
    )
    os.utime(first, ns=(1, 1))
    os.utime(fork, ns=(2, 2))
    assert outputs(read(fork, first)) == {"session:first": 5, "session:fork": 2}
    assert outputs(read(fork, state=tmp_path)) == {"session:fork": 7}
    assert outputs(read(first, fork, state=tmp_path)) == {"session:first": 5, "session:fork": 2}


def test_a_rewritten_file_gives_back_what_it_had_taken_from_its_copies(tmp_path: Path) -> None:
    shared = {"id": "a", "out": 5, "at": 1}
    first = write(tmp_path / "1.jsonl", shared | {"who": "session:first"})
    os.utime(first, ns=(1, 1))
    fork = write(tmp_path / "2.jsonl", shared | {"who": "session:fork"})
    assert outputs(read(first, fork, state=tmp_path)) == {"session:first": 5}
    write(first, {"id": "c", "out": 1, "who": "session:first", "at": 1})
    assert outputs(read(first, state=tmp_path)) == {"session:first": 1}
    assert outputs(read(first, fork, state=tmp_path)) == {"session:first": 1, "session:fork": 5}


def test_a_marked_copy_counts_for_nobody_even_alone(tmp_path: Path) -> None:
    fork = write(
        tmp_path / "f.jsonl",
        {"id": "a", "out": 5, "who": "session:fork", "copy": True},
        {"id": "b", "out": 2, "who": "session:fork"},
    )
    assert outputs(read(fork)) == {"session:fork": 2}


def test_a_document_is_read_again_as_a_whole_and_what_left_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"all": [{"id": "a", "out": 1}, {"id": "b", "out": 2}]}))
    assert read(path, state=tmp_path).totals.output_tokens == 3
    path.write_text(json.dumps({"all": [{"id": "a", "out": 1}, {"id": "c", "out": 7}]}))
    assert read(path, state=tmp_path).totals.output_tokens == 8
    path.write_text('{"all": [{"id": "a", "out": 1}, {"id":')
    torn = read(path, state=tmp_path)
    assert torn.totals.output_tokens == 1
    assert [fault.code for fault in torn.faults] == ["torn"]
    assert read(path, state=tmp_path) == torn


def test_counters_go_on_where_the_last_read_ended(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", {"total": "t", "out": 5}, {"total": "t", "out": 5})
    assert read(path, state=tmp_path).totals.output_tokens == 5
    write(path, {"total": "t", "out": 9}, {"total": "t", "out": 2}, mode="a")
    assert read(path, state=tmp_path).totals.output_tokens == 11


def test_what_cannot_be_read_is_a_fault_of_that_source_alone(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", {"id": "a", "out": 5})
    sparse = tmp_path / "sparse.jsonl"
    sparse.touch()
    os.truncate(sparse, 2 << 30)
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(bytes(range(256)) * 8)
    os.mkfifo(tmp_path / "fifo.jsonl")
    broken = write(tmp_path / "broken.jsonl", {"id": "x", "out": 1}, {"id": "y", "out": "raise"})
    wrong = write(tmp_path / "wrong.jsonl", {"id": "x", "out": None})
    odd = write(tmp_path / "odd.jsonl", {"id": "x", "out": 1, "tools": {}})
    half = write(
        tmp_path / "half.jsonl", {"id": "h", "out": 0, "who": "a:\ud800", "model": "\ud800"}
    )
    paths = [
        sparse,
        good,
        binary,
        tmp_path / "fifo.jsonl",
        broken,
        wrong,
        odd,
        half,
        tmp_path / "none.jsonl",
    ]
    report = read(*paths, state=tmp_path)
    assert report.totals.output_tokens == 5
    assert {Path(fault.path).stem: fault.code for fault in report.faults} == {
        "sparse": "binary",
        "binary": "binary",
        "fifo": "not_a_file",
        "broken": "plugin",
        "wrong": "plugin",
        "odd": "plugin",
        "none": "missing",
    }
    assert read(*paths, state=tmp_path) == report
    write(broken, {"id": "x", "out": 1})
    assert read(*paths, state=tmp_path).totals.output_tokens == 6


def test_a_plugin_that_answers_nonsense_or_is_missing_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": "a", "out": 1})
    found = read_usage([("x", str(path), None)], {"x": lambda _: [{"out": 1}]})
    assert "not UsageRecord" in found.faults[0].detail
    assert read_usage([("y", str(path), None)], {}).faults[0].code == "no_reader"
    assert read_usage([("x", str(path), None)], {"x": lambda _: None}).faults == ()


def test_reading_many_files_puts_the_search_for_cycles_off_and_leaves_it_as_it_was(
    tmp_path: Path,
) -> None:
    paths = [str(tmp_path / f"{number}.jsonl") for number in range(usage_reader.MANY_SOURCES)]
    for path in paths:
        Path(path).write_text("{}\n")
    before, during = gc.get_threshold(), []

    def records(source: Any) -> None:
        during.append(gc.get_threshold()[0])
        raise ValueError(source.path)

    for thresholds in (before, (0, 10, 10)):
        gc.set_threshold(*thresholds)
        try:
            for many in (paths[1:], paths):
                report = read_usage([("acme", path, None) for path in many], {"acme": records})
                assert {fault.code for fault in report.faults} == {"plugin"}
                assert gc.get_threshold() == thresholds
        finally:
            gc.set_threshold(*before)
    few, many = paths[1:], paths
    expected = [before[0] for _ in few] + [OBJECTS_BETWEEN for _ in many]
    assert during == [*expected, *[0 for _ in few + many]]


def test_each_harness_has_ids_of_its_own(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{n}.jsonl", {"id": "1", "out": 5}) for n in range(2))
    sources = [("acme", str(one), None), ("other", str(two), None)]
    assert read_usage(sources, {"acme": acme, "other": acme}).totals.output_tokens == 10


def test_totals_of_a_transcript_that_is_gone_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": "a", "out": 5})
    read(path, state=tmp_path)
    path.unlink()
    report = read(path, state=tmp_path)
    assert (report.totals.output_tokens, report.faults[0].code) == (5, "missing")


@pytest.mark.parametrize("known", [1, 19, 20, 300])
def test_records_that_are_known_and_told_again_larger_are_joined_however_many(
    tmp_path: Path, known: int
) -> None:
    path = write(tmp_path / "a.jsonl", *({"id": f"r{n}", "out": 1} for n in range(known)))
    read(path, state=tmp_path)
    write(path, *({"id": f"r{n}", "out": 3} for n in range(known + 1)), mode="a")
    assert outputs(read(path, state=tmp_path)) == {f"path:{path}": 3 * (known + 1)}


def test_faults_that_stay_are_told_again_with_the_answer_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_reader, "MANY_SOURCES", 1)
    one = write(tmp_path / "a.jsonl", {"id": "a", "out": 1})
    with one.open("ab") as file:
        file.write(b'{"out": to\n')
    first = read(one, state=tmp_path)
    assert [fault.code for fault in first.faults] == ["unparsable"]
    monkeypatch.setattr(usage_rows.RecordTable, "groups", None)
    assert read(one, state=tmp_path) == first


def test_a_file_that_cannot_be_looked_at_is_a_fault_of_its_own(tmp_path: Path) -> None:
    one, circle = write(tmp_path / "a.jsonl", {"id": "a", "out": 1}), tmp_path / "circle"
    circle.symlink_to(circle)
    for odd in (circle, tmp_path / ("n" * 300), Path(f"{tmp_path}/zero\0")):
        report = read(odd, one)
        assert outputs(report) == {f"path:{one}": 1}
        assert [(fault.path, fault.code) for fault in report.faults] == [(str(odd), "unreadable")]


def test_what_is_unchanged_as_a_whole_is_told_from_the_answer_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(tmp_path / "a.jsonl", {"id": "a", "out": 1, "cost": 7, "model": "m", "at": 5})
    two = write(tmp_path / "b.jsonl", {"id": "b", "out": 2, "at": 9}, {"id": "c", "out": 4})
    monkeypatch.setattr(usage_reader, "MANY_SOURCES", 1)
    first = read(one, two, state=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(usage_rows.RecordTable, "groups", None)
        assert read(one, two, state=tmp_path) == first
    assert outputs(read(one, state=tmp_path, since_s=4.0)) == {f"path:{one}": 1}
    assert outputs(read(two, state=tmp_path, since_s=4.0)) == {f"path:{two}": 2}
    assert read(two, one, one, state=tmp_path) == first == read(one, two, state=tmp_path)
    write(two, {"id": "d", "out": 8}, mode="a")
    assert outputs(read(two, state=tmp_path)) == {f"path:{two}": 14}
    assert outputs(read(one, two, state=tmp_path)) == {f"path:{one}": 1, f"path:{two}": 14}
    one.unlink()
    for _ in range(2):
        report = read(one, two, state=tmp_path)
        assert outputs(report) == {f"path:{one}": 1, f"path:{two}": 14}
        assert [fault.code for fault in report.faults] == ["missing"]


def test_only_records_since_an_instant_count_when_asked(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"id": "a", "out": 5, "at": "2026-01-01T00:00:00Z"},
        {"id": "b", "out": 2, "at": 1767312000},
        {"id": "c", "out": 9},
    )
    assert read(path, state=tmp_path, since_s=1767300000.0).totals.output_tokens == 2
    assert read(path, state=tmp_path).totals.output_tokens == 16


def test_a_caller_names_the_actor_of_a_transcript_that_names_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": "a", "out": 5})
    (row,) = read_usage([("acme", str(path), "acme:session:7")], READERS).rows
    assert row.actor == "acme:session:7"
    (row,) = read(path).rows
    assert row.actor == f"acme:path:{path}"


def test_estimates_fill_only_what_the_transcript_leaves_open(tmp_path: Path) -> None:
    class Flat:
        def estimate(self, _harness: str, group: UsageGroup) -> int | None:
            return 10 * group.output if group.model == "m" else None

    path = write(
        tmp_path / "a.jsonl",
        {"id": "a", "out": 5, "cost": 7, "model": "m"},
        {"id": "b", "out": 2, "model": "m"},
        {"id": "c", "out": 1, "model": "n"},
    )
    (row,) = read(path, prices=Flat()).rows
    assert row.by_model["m"].cost_micros_usd == 27
    assert row.by_model["m"].cost_source == "mixed"
    assert row.by_model["n"].cost_micros_usd is None
    assert (row.totals.cost_micros_usd, row.totals.known_cost_micros_usd) == (None, 27)


@pytest.mark.parametrize("damage", ["text", "cut", "schema", "folder"])
def test_a_damaged_or_foreign_state_is_made_anew_or_done_without(
    tmp_path: Path, damage: str
) -> None:
    path = write(tmp_path / "a.jsonl", {"id": "a", "out": 5})
    file = tmp_path / "usage.sqlite"
    read(path, state=tmp_path)
    if damage == "text":
        file.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    elif damage == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        with sqlite3.connect(file) as database:
            database.execute("UPDATE meta SET value = '999' WHERE key = 'schema'")
        database.close()
    write(path, {"id": "b", "out": 1}, mode="a")
    assert read(path, state=tmp_path).totals.output_tokens == 6
    assert read(path, state=tmp_path / "nowhere").totals.output_tokens == 6


def test_sums_that_a_crash_left_wrong_are_not_trusted_after_a_reboot(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": "a", "out": 5})
    read(path, state=tmp_path)
    with sqlite3.connect(tmp_path / "usage.sqlite") as database:
        database.execute("UPDATE sums SET output = 99")
        database.execute("UPDATE meta SET value = 'another boot' WHERE key = 'boot'")
    database.close()
    assert read(path, state=tmp_path).totals.output_tokens == 5


def test_readers_at_the_same_time_find_the_same_totals(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{n}.jsonl", *({"id": f"{n % 3}-{k}", "out": k} for k in range(300)))
        for n in range(9)
    ]
    expected = read(*paths).totals.output_tokens
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.adapters.test_usage_reader import read
        folder = Path(sys.argv[1])
        for _ in range(3):
            print(read(*sorted(folder.glob("*.jsonl")), state=folder).totals.output_tokens)
        """
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    answers = [process.communicate(timeout=60)[0].split() for process in running]
    assert {answer for found in answers for answer in found} == {str(expected)}
    assert [len(found) for found in answers] == [3, 3, 3]


def test_a_first_read_is_written_in_parts_and_totals_do_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_reader, "FLUSH_RECORDS", 3)
    lines = [{"id": str(n % 17), "out": n, "who": f"session:{n % 2}"} for n in range(50)]
    path = write(tmp_path / "a.jsonl", *lines)
    done: list[tuple[int, int]] = []
    parts = read(path, progress=lambda *seen: done.append(seen))
    monkeypatch.undo()
    assert totals(parts) == totals(read(path))
    assert done[-1] == (path.stat().st_size, path.stat().st_size)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_however_little_waits_in_memory_totals_are_the_same_and_a_fault_costs_its_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    paths = []
    for file in range(6):
        lines = [
            {
                "id": str((file * 3 + n) % 11),
                "out": n,
                "who": f"session:{n % 3}",
                "model": f"m{n % 2}",
            }
            for n in range(7)
        ]
        if file == 3:
            lines[5]["out"] = "raise"
            lines[1]["who"] = "session:nobody"
        for line in lines:
            line["model"] = f"m{line['model']}"
        paths.append(write(tmp_path / f"{file}.jsonl", *lines))
    whole = read(*paths)
    right = read(*paths[:3], *paths[4:])
    assert (whole.rows, len(whole.faults)) == (right.rows, 1)
    monkeypatch.setattr(usage_reader, "FLUSH_RECORDS", batch)
    monkeypatch.setattr(usage_rows, "BATCH_ROWS", batch)
    monkeypatch.setattr(usage_names, "BATCH_NAMES", batch)
    monkeypatch.setattr(usage_state, "BATCH_SOURCES", batch)
    assert read(*paths, state=tmp_path) == whole
    assert read(*paths, state=tmp_path) == whole


def test_an_appended_line_costs_the_reading_of_that_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"id": str(n), "out": n} for n in range(5000)))
    read(path, state=tmp_path)
    size = path.stat().st_size
    write(path, {"id": "last", "out": 1}, mode="a")
    seen: list[int] = []
    report = read(path, state=tmp_path, progress=lambda done, _: seen.append(done))
    assert report.totals.requests == 5001
    assert seen[-1] == path.stat().st_size - size
    assert read(path, state=tmp_path, progress=lambda *_: seen.append(-1)) == report
    assert seen[-1] != -1


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for megabytes in (4, 16):
        path = tmp_path / f"{megabytes}.jsonl"
        line = json.dumps({"id": "a", "out": 1, "text": "x" * 2000}) + "\n"
        path.write_text(line * (megabytes * 500))
        tracemalloc.start()
        read(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000
