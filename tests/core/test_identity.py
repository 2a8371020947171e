from __future__ import annotations

from heddle_registry.core.identity import Identity, NoFiles, Probe


class OneFile(NoFiles):
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, path: str, *, limit: int, tail: bool = False) -> bytes | None:
        return self.data[-limit:] if tail else self.data[:limit]


def test_a_probe_without_files_answers_empty_everywhere() -> None:
    probe = Probe(harness="acme")
    assert probe.read_text("/x") is None
    assert probe.read_json("/x") == {}
    assert probe.first_line("/x") == {}
    assert probe.last_lines("/x") == []
    assert probe.transcript(None) is None
    assert probe.transcript(["x"]) is None


def test_torn_and_foreign_lines_are_passed_over() -> None:
    data = b'torn"}\n{"a": 1}\n[1]\nnot json\n{"b": 2}\n{"c":'
    probe = Probe(harness="acme", files=OneFile(data))
    assert probe.last_lines("/x") == [{"a": 1}, {"b": 2}]
    assert probe.last_lines("/x", holding=['"b"']) == [{"b": 2}]


def test_a_bomb_of_brackets_is_no_record() -> None:
    probe = Probe(harness="acme", files=OneFile(b'{"a":' * 50_000))
    assert probe.read_json("/x", 10_000_000) == {}


def test_a_list_makes_a_frozen_lineage() -> None:
    assert Identity(lineage=[Identity(actor="x")]).lineage == (Identity(actor="x"),)
