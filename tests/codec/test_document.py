from __future__ import annotations

import pytest

from heddle_registry.codec.document import (
    MAX_NESTING,
    NotToml,
    parse_document,
    shown,
    why_unreasonable,
)
from heddle_registry.core.limits import MAX_ENTRY_BYTES


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"\0" * 512, "Illegal character|Invalid"),
        (b"a = 1\nb = '\xff'\n", "not UTF-8 .at line 2."),
        (b'a = "x\0y"', "Illegal character"),
        (b"a = 1\na = 2\n", "line 2"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a = " + b"{a=" * 2_000 + b"1" + b"}" * 2_000, "nested too deeply"),
        (b".".join([b"a"] * 5_000) + b" = 1", "nested too deeply"),
        (b"a = " + b"9" * 5_000, "thousands of digits"),
        (b"a = 2026-02-30T00:00:00Z", "Invalid date"),
        (b"a = 1\n" * 3 + b"\xef\xbb\xbf", "line"),
        (b'a = "' + b"x" * (5 << 20) + b'"', f"more than {MAX_ENTRY_BYTES}"),
    ],
)
def test_hostile_bytes_give_one_kind_of_error(data, why):
    with pytest.raises(NotToml, match=why):
        parse_document(data)


def test_a_parsers_quote_of_a_huge_key_does_not_flood_the_message():
    key = "k" * 500_000
    with pytest.raises(NotToml) as caught:
        parse_document(f"[{key}]\n[{key}]\n".encode())
    assert len(str(caught.value)) < 200
    assert caught.value.line == 2


def test_a_byte_order_mark_is_skipped_as_the_original_does():
    assert parse_document(b"\xef\xbb\xbfa = 1\n") == {"a": 1}


def test_nesting_is_counted_over_tables_and_arrays_alike():
    value: object = 1
    for _ in range(MAX_NESTING // 2):
        value = [{"x": value}]
    assert why_unreasonable(value) == ""
    assert why_unreasonable([value]) == "nested deeper than 80 levels"


def test_a_hexadecimal_integer_that_python_could_not_spell_is_refused_at_any_depth():
    document = parse_document(b"a = [{b = 0x" + b"f" * 10_000 + b"}]")
    assert why_unreasonable(document["a"]) == "an integer of thousands of digits"
    assert why_unreasonable([2**64, True, 0.5, "x"]) == ""


def test_a_wrong_value_is_shown_short_and_printable():
    assert shown("\x1b[31m") == r"'\x1b[31m'"
    assert len(shown("x" * 10_000)) < 80
    assert shown(10**5000) == "a huge integer"
    assert [shown(value) for value in ({}, [], True, -3)] == ["a table", "an array", "true", "-3"]
