"""A document of any size, one member at a time."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.adapters import json_stream
from heddle_registry.adapters.json_stream import object_members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time."""

    def read(self, _size: int | None = -1, /) -> bytes:
        return super().read(7)


@given(st.dictionaries(st.text(max_size=4), VALUES), st.lists(VALUES), st.sampled_from([None, 2]))
def test_the_members_of_a_document_are_those_that_the_parser_finds(
    document: dict[str, Any], messages: list[Any], indent: int | None
) -> None:
    document["messages"] = messages
    text = json.dumps(document, indent=indent).encode()
    found = list(object_members(Trickle(text), ["messages"], 1 << 20))
    assert [value for key, value in found if key == "messages"] == messages
    assert {key: value for key, value in found if key != "messages"} == {
        key: value for key, value in document.items() if key != "messages"
    }


def test_a_document_cut_short_gives_what_is_complete_and_says_so() -> None:
    text = b'{"id": 7, "messages": [{"a": 1}, {"a": 2}, {"a": '
    found = []
    with pytest.raises(ValueError, match="ends too early"):
        found.extend(object_members(io.BytesIO(text), ["messages"], 1 << 20))
    members = object_members(io.BytesIO(text), ["messages"], 1 << 20)
    assert [next(members) for _ in range(3)] == [
        ("id", 7),
        ("messages", {"a": 1}),
        ("messages", {"a": 2}),
    ]


@pytest.mark.parametrize("text", [b"", b"[1]", b"{1: 2}", b'{"a" 1}', b'{"a": nope}', b'{"a": \0'])
def test_what_is_no_document_is_an_error_of_one_kind(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"document|key"):
        list(object_members(io.BytesIO(text), [], 1 << 20))


def test_one_value_may_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_BLOCK_BYTES", 1024)
    text = b'{"a": "' + b"x" * 100_000
    file = io.BytesIO(text)
    with pytest.raises(ValueError, match="too large"):
        list(object_members(file, [], 10_000))
    assert file.tell() < 50_000
