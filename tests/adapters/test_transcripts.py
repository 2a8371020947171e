"""Positions, torn and glued lines, and files that are not what they were."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heddle_registry.adapters import transcripts
from heddle_registry.adapters.json_parser import standard_parser
from heddle_registry.adapters.position import continues, look
from heddle_registry.adapters.transcripts import TranscriptSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORDS = [{"n": n, "usage": {"text": "ö" * n + '"usage" \\" {"n": 1}'}} for n in range(8)]
LINES = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in RECORDS)


class Shape(NamedTuple):
    n: Any = None
    usage: Any = None


WAYS: list[Callable[[TranscriptSource], list[Any]]] = [
    lambda source: list(source.json_lines(b'"usage"')),
    lambda source: [{"n": one.n, "usage": one.usage} for one in source.shapes(Shape, b'"usage"')],
    lambda source: [{"n": one.n, "usage": one.usage} for one in source.shapes(Shape, at_once=True)],
]


def read(path: Path, position: Any = None) -> tuple[list[Any], TranscriptSource]:
    now = look(str(path))
    assert now is not None
    if position is not None and continues(position, now, str(path)):
        now = now._replace(offset=position.offset, check=position.check, skipping=position.skipping)
    source = TranscriptSource("acme", str(path), position=now)
    return list(source.json_lines(b'"usage"')), source


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(st.lists(st.integers(0, len(LINES)), max_size=6), st.integers(1, 700), st.sampled_from(WAYS))
def test_any_split_of_a_growing_file_gives_each_record_once(
    tmp_path: Path, cuts: list[int], block: int, way: Callable[[TranscriptSource], list[Any]]
) -> None:
    path = tmp_path / "log.jsonl"
    found, position = [], None
    for cut in [*sorted(cuts), len(LINES)]:
        path.write_bytes(LINES[:cut])
        # Write in place: the inode stays, as it does when a harness appends.
        now = look(str(path))
        assert now is not None
        if position is not None:
            assert continues(position, now, str(path))
            now = now._replace(offset=position.offset, check=position.check)
        source = TranscriptSource("acme", str(path), position=now, buffer=bytearray(block))
        found += way(source)
        position = source.position
    assert found == RECORDS


def test_a_torn_last_line_waits_and_a_complete_one_without_its_end_does_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"usage": 1}\n{"usage": 2')
    found, source = read(path)
    assert found == [{"usage": 1}]
    with path.open("ab") as file:
        file.write(b"}")
    found, source = read(path, source.position)
    assert found == [{"usage": 2}]
    with path.open("ab") as file:
        file.write(b'\n{"usage": 3}\n')
    assert read(path, source.position)[0] == [{"usage": 3}]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"usage": 1}{"usage": 2}', [{"usage": 1}, {"usage": 2}]),
        (b'{"usage": 1} {"usage": 2}\r', [{"usage": 1}, {"usage": 2}]),
        (b'{"type": "assis{"usage": 2}', [{"usage": 2}]),
        (b'{"a": {"b": "c{"usage": 2}', [{"usage": 2}]),
        (b'{"a": "\xff", "usage": 2}', [{"a": "\ufffd", "usage": 2}]),
        (b'\xef\xbb\xbf{"usage": 1}', [{"usage": 1}]),
    ],
)
def test_records_glued_onto_a_line_or_a_torn_one_are_taken_apart(
    tmp_path: Path, line: bytes, found: list[Any]
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line + b"\n" + b'{"usage": 9}\n')
    assert read(path)[0] == [*found, {"usage": 9}]


def test_what_is_no_json_is_a_fault_and_the_lines_around_it_count(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"usage": 1}\nnot "usage" json\n[{"usage": 2}]\n{"usage": 3}\n')
    found, source = read(path)
    assert found == [{"usage": 1}, {"usage": 3}]
    assert [fault.code for fault in source.faults] == ["unparsable"]


@pytest.mark.parametrize("change", ["rewrite", "replace", "shrink"])
def test_a_file_that_is_no_longer_the_same_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(LINES)
    _, source = read(path)
    if change == "rewrite":  # in place, longer, and the old time put back
        before = path.stat()
        path.write_bytes(LINES.replace(b'"n": 0', b'"n": 7') + LINES)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "replace":
        (tmp_path / "new").write_bytes(LINES + LINES)
        (tmp_path / "new").replace(path)
    else:
        path.write_bytes(LINES[: len(LINES) // 2])
    now = look(str(path))
    assert now is not None
    assert source.position is not None
    assert now.stamp != source.position.stamp
    assert not continues(source.position, now, str(path))


def test_a_line_that_is_too_long_is_left_out_however_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcripts, "MAX_LINE_BYTES", 4096)
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"usage": 1}\n{"usage": "' + b"x" * 600_000)
    found, source = read(path)
    assert found == [{"usage": 1}]
    assert [fault.code for fault in source.faults] == ["line_too_long"]
    with path.open("ab") as file:
        file.write(b"x" * 300_000 + b'"}\n{"usage": 2}\n')
    assert read(path, source.position)[0] == [{"usage": 2}]


def test_a_sparse_file_costs_one_look_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"usage": 1}\n')
    os.truncate(path, 2 << 30)
    read_bytes = 0

    def count(size: int) -> None:
        nonlocal read_bytes
        read_bytes += size

    source = TranscriptSource("acme", str(path), position=look(str(path)), progress=count)
    assert list(source.json_lines(b'"usage"')) == []
    assert [fault.code for fault in source.faults] == ["binary"]
    assert read_bytes < 2 << 20


def test_several_needles_give_each_line_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log.md"
    lines = [b"a and b", b"none", b"b", b"a", b"b a b"]
    path.write_bytes(b"\n".join(lines) + b"\ntorn a")
    source = TranscriptSource("acme", str(path), position=look(str(path)))
    assert list(source.lines(b"a ", b"a", b"b")) == [b"a and b", b"b", b"a", b"b a b"]
    source = TranscriptSource("acme", str(path), position=look(str(path)))
    assert list(source.lines()) == lines


def test_the_standard_parser_reads_the_same_where_msgspec_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(LINES + b'{"usage": 1}{"usage": 2}\n{"usage": 3}')
    monkeypatch.setattr(transcripts, "json_parser", standard_parser)
    assert read(path)[0] == [*RECORDS, {"usage": 1}, {"usage": 2}, {"usage": 3}]
