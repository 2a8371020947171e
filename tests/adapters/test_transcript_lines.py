"""The quick ways to the lines that matter give what a look at every line gives."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle_registry.adapters import transcript_lines
from heddle_registry.adapters.transcript_lines import DULL, ODD, hits, lines_by_head, lines_of

MARK = b'{"at":'
HEAD = re.compile(rb'\{"at":\d+,"kind":"(?:(use)"|(call)"|\w+")')
KIND = (7, 19, 22)
LINE = st.builds(
    lambda at, kind, rest: b'{"at":%d,"kind":"%s",%s}' % (at, kind, rest),
    st.integers(0, 120),
    st.sampled_from([b"use", b"call", b"user", b"calls", b"say", b"useful_things_and_more"]),
    st.sampled_from([b"", b'"text":"a"', b'"text":"{\\"at\\":1"', b'"x{"at":2,"kind":"use",}']),
)
ODD_LINE = st.sampled_from([b"", b"{", b'{ "at":1}', b'{"at":1,"ki{"at":2,"kind":"use",}', b"\xff"])


def looked_at(text: bytes) -> list[tuple[int, bytes]]:
    found = []
    for line in text.splitlines(keepends=True):
        head = HEAD.match(line)
        is_odd = head is None or line.count(MARK) > 1 or not line.endswith(b"\n")
        found.append((ODD if is_odd or head is None else head.lastindex or DULL, line))
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(LINE | ODD_LINE, min_size=1, max_size=9), st.booleans())
def test_lines_are_of_the_kind_that_a_look_at_each_head_tells(
    lines: list[bytes], ends: bool
) -> None:
    text = b"\n".join(lines) + (b"\n" if ends else b"")
    every, kinds = lines_by_head(text, HEAD, MARK, KIND)
    assert [*zip(kinds, every, strict=True)] == looked_at(text)
    for kind in {*kinds}:
        assert lines_of(kind, every, kinds) == [
            line for one, line in looked_at(text) if one == kind
        ]
    assert lines_of(7, every, kinds) == []


def test_beginnings_that_never_come_again_crowd_out_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transcript_lines, "MAX_KINDS", 4)
    head = re.compile(rb'\{"at":\d+,"kind":"(?:(use)"|\w+")')
    text = b"".join(b'{"at":%d,"kind":"use"}\n' % number for number in range(1000, 1100))
    for _ in range(2):
        assert lines_by_head(text, head, MARK, (0, 30))[1] == b"\1" * 100


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([b"a", b"b c", b"c", b"", b"abc"]), max_size=8),
    st.sampled_from([(), (b"a",), (b"b", b"c"), (b"x",), (b"bc", b"a", b"c")]),
    st.integers(0, 30),
    st.sampled_from([1, transcript_lines.NATIVE_BYTES]),
)
def test_each_line_with_a_needle_comes_once_and_in_order(
    lines: list[bytes], needles: tuple[bytes, ...], limit: int, native_bytes: int
) -> None:
    block = bytearray(b"\n".join(lines))
    limit = min(limit, len(block))
    wanted = [line for line in bytes(block[:limit]).split(b"\n") if line]
    if needles:
        wanted = [line for line in wanted if any(needle in line for needle in needles)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(transcript_lines, "NATIVE_BYTES", native_bytes)
        found = [bytes(block[start:end]) for start, end in hits(block, limit, needles)]
    assert found == wanted
    block.clear()  # nobody holds it any more


def test_a_system_without_that_function_is_searched_by_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = bytearray(b"no\n" * transcript_lines.NATIVE_BYTES + b"yes a\n")
    whole = [*hits(block, len(block), (b"s a",))]
    assert [bytes(block[start:end]) for start, end in whole] == [b"yes a"]
    monkeypatch.setattr(transcript_lines, "_memmem", lambda: None)
    assert [*hits(block, len(block), (b"s a",))] == whole
