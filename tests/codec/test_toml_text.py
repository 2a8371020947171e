from __future__ import annotations

import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heddle_registry.codec.toml_text import (
    as_f32,
    f32_text,
    key_text,
    loose_line,
    seconds_text,
    string_text,
    strings_text,
    write_loose_lines,
    write_loose_tables,
)
from heddle_registry.errors import UsageError
from tests import seed_registry
from tests.codec.strategies import texts, values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain é 🦀 \u2028", '"plain é 🦀 \u2028"'),
        ("tab\there", '"tab\\there"'),
        ('has "double"', "'has \"double\"'"),
        ("C:\\Users", "'C:\\Users'"),
        ("raw\t\\tab", "'raw\t\\tab'"),
        ("\"both\" and 'single'", '""""both" and \'single\'"""'),
        ("a\nb", '"""\na\nb"""'),
        ('a\n"b" \\n', "'''\na\n\"b\" \\n'''"),
        ("bell\a", '"bell\\u0007"'),
        ("crlf\r\n", '"""\ncrlf\\r\n"""'),
        ("\x7f \"\"\" '''", '"\\u007F \\"\\"\\" \'\'\'"'),
        ('"""" \'\'\' \n', '"""\n""\\"" \'\'\' \n"""'),
        ("", '""'),
    ],
)
def test_a_string_takes_the_first_of_the_writers_five_forms_that_fits(value, text):
    assert string_text(value) == text
    assert tomli.loads(f"x = {text}") == {"x": value}


@given(texts)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_string_and_any_key_read_back_and_match_the_originals_spelling(text):
    assert tomli.loads(f"{key_text(text)} = {string_text(text)}") == {text: text}
    assert string_text(text) == seed_registry._toml_string(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(
            (0.96, "0.96"),
            (1e-7, "0.0000001"),
            (-0.0, "-0.0"),
            (1 / 3, "0.33333334"),
            (1.5e3, "1500.0"),
        ),
        *((2.0**24 + 1, "16777216.0"), (123.456, "123.456"), (1e39, "inf"), (-1e39, "-inf")),
    ],
)
def test_a_confidence_is_the_shortest_32_bit_decimal_without_an_exponent(value, text):
    assert f32_text(value) == text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_32_bit_float_survives_its_text(value):
    text = f32_text(value)
    assert "e" not in text
    assert as_f32(float(text)) == value


@given(values)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_tomli_reads_is_kept_in_value_inline_and_as_tables(value):
    assert tomli.loads(loose_line("x", [value])) == {"x": [value]}
    lines: list[str] = []
    write_loose_tables(write_loose_lines({"a b": value, "c": 1}, lines), "", lines)
    assert tomli.loads("".join(lines)) == {"a b": value, "c": 1}


def test_a_table_stays_a_table_and_an_array_of_tables_an_array_of_tables():
    text = 'plain = 1\n\n[notes]\nby = "x"\n\n[[notes.step]]\nn = 1\n\n[[notes.step]]\n'
    lines: list[str] = []
    write_loose_tables(write_loose_lines(tomli.loads(text), lines), "", lines)
    assert "".join(lines) == text


def test_infinities_and_nan_are_written_as_toml_spells_them():
    for word in ("inf", "-inf", "nan"):
        assert loose_line("x", float(word)) == f"x = {word}\n"


def test_none_and_strange_keys_are_refused_in_one_sentence():
    with pytest.raises(UsageError, match=r"no form for the value of 'x'.*NoneType"):
        loose_line("x", [None])
    with pytest.raises(UsageError, match="key must be text, not int"):
        write_loose_lines({1: 2}, [])  # type: ignore[dict-item]


def test_whole_seconds_are_written_as_integers():
    assert (seconds_text(300.0), seconds_text(0.5)) == ("300", "0.5")


def test_arrays_of_strings_break_their_line_from_two_elements_on():
    assert strings_text(["a"]) == '["a"]'
    assert strings_text(["a", "b"]) == '[\n    "a",\n    "b",\n]'
