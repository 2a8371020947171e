from __future__ import annotations

from heddle_registry.core.harness import DEFINITE, Process
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


class Asked(NoFiles):
    """Remembers how it was asked, and has one folder."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, bool]] = []

    def resolve(self, path: str) -> str | None:
        return "/real/log" if path == "/link/log" else None

    def read(self, path: str, *, limit: int, tail: bool = False) -> bytes | None:
        self.asked.append((path, limit, tail))
        return b'{"first": 1}\n{"last": \xff2}\n{"last": 2}\n'


def test_what_is_read_of_a_file_is_its_start_or_its_end_and_never_more_than_asked_for() -> None:
    files = Asked()
    probe = Probe(harness="acme", files=files)
    assert probe.first_line("/log", 100) == {"first": 1}
    assert probe.last_lines("/log", 200) == [{"first": 1}, {"last": 2}]
    text = probe.read_text("/log", 300, tail=True)
    assert text is not None
    assert "\ufffd" in text
    probe.read_text("/log", 400)
    probe.read_json("/log", 500)
    assert files.asked == [
        ("/log", 100, False),
        ("/log", 200, True),
        ("/log", 300, True),
        ("/log", 400, False),
        ("/log", 500, False),
    ]
    # Unless it says otherwise, little of what somebody else may have let grow.
    files.asked.clear()
    probe.read_text("/log")
    probe.read_json("/log")
    probe.first_line("/log")
    probe.last_lines("/log")
    assert [limit for _, limit, _ in files.asked] == [65_536, 262_144, 1_048_576, 1_048_576]


def test_a_transcript_is_where_it_really_lies_and_else_where_it_is_said_to_lie() -> None:
    probe = Probe(harness="acme", files=Asked())
    assert probe.transcript("/link/log") == "/real/log"
    assert probe.transcript("/elsewhere") == "/elsewhere"
    assert probe.transcript("") is None
    assert probe.transcript(7) is None


def test_ancestors_are_told_nearest_first_and_the_home_with_one_slash() -> None:
    outer, inner, shell = (Process(pid=pid) for pid in (1, 2, 3))
    probe = Probe(harness="acme", processes=(outer, inner), below=(shell,), home="/home/dev/")
    assert probe.ancestors == (shell, inner, outer)
    assert probe.at_home(".acme", "log") == "/home/dev/.acme/log"
    assert Probe(harness="acme", home="/home/dev").at_home("x") == "/home/dev/x"


def test_whoever_has_no_files_has_none_in_any_way() -> None:
    files = NoFiles()
    assert (files.resolve("/x"), files.read("/x", limit=1), files.names("/x")) == (None, None, [])
    assert (files.modified_at("/x"), files.database("/x")) == (None, None)


def test_an_identity_is_definite_unless_it_says_otherwise_and_nobodys_orphan() -> None:
    identity = Identity(actor="x")
    assert (identity.confidence, identity.orphan) == (DEFINITE, False)
    assert Probe(harness="acme").innermost


def test_an_answer_keeps_what_it_was_given_whatever_becomes_of_the_lists() -> None:
    above, others, marks = [Identity(actor="a")], [Identity(actor="b")], ["ACME_ID"]
    answer = Identity(actor="c", lineage=above, candidates=others, evidence=marks)
    for given in (above, others, marks):
        given.clear()
    assert answer.lineage == (Identity(actor="a"),)
    assert answer.candidates == (Identity(actor="b"),)
    assert answer.evidence == ("ACME_ID",)
