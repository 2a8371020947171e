"""The quick ways to the lines that matter give what a look at every line gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle_registry.adapters import transcript_lines
from heddle_registry.adapters.transcript_lines import hits


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([b"a", b"b c", b"c", b"", b"abc"]), max_size=8),
    st.sampled_from([(), (b"a",), (b"b", b"c"), (b"x",), (b"bc", b"a", b"c"), (b"",), (b"a", b"")]),
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
