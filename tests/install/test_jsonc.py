from __future__ import annotations

import pytest

from heddle_registry.install.jsonc import NotJson, cut, insert, parse

WITH_COMMENTS = """\
// mine
{
  "a": 1, // one
  /* two */ "b": [1, 2,],
}
"""


def test_comments_and_trailing_commas_are_read_over() -> None:
    assert parse(WITH_COMMENTS).value == {"a": 1, "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "ends early"),
        ('{\n"a": 1\n"b": 2}', 3, "comma"),
        ('{\n"a" 1}', 2, "colon"),
        ("{a: 1}", 1, "key"),
        ('{"a": 1,\n"a": 2}', 2, "twice"),
        ("{} {}", 1, "follows"),
        ('{"a": "\n"}', 1, "text"),
        ("/* no end", 1, "does not end"),
        ("[" * 10_000, 1, "nested"),
        ('{"a": 01}', 1, "comma"),
        ("NaN", 1, "unexpected"),
    ],
)
def test_what_is_no_json_is_refused_with_its_line(text: str, line: int, why: str) -> None:
    with pytest.raises(NotJson, match=why) as raised:
        parse(text)
    assert raised.value.line == line


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{ }",
        "{\n}",
        "{ /* nothing yet */ }",
        '{"a":1}',
        '{\n    "a": 1\n}\n',
        '{\n\t"a": 1, // the first\n\t"b": "http://x"\n}',
        '{"a": 1, "b": 2,}',
        '{"a": 1 /* one */ /* two */\n  // three\n}',
        '{\r\n  "a": 1\r\n}\r\n',
        '{"a": 1 // to the end of the line\n}',
        WITH_COMMENTS,
    ],
)
def test_a_piece_put_in_and_taken_out_leaves_every_byte_as_it_was(text: str) -> None:
    longer = insert(text, parse(text), '"ours": {\n  "x": [\n    1\n  ]\n}', "  ")

    node = parse(longer)
    assert node.value == {**parse(text).value, "ours": {"x": [1]}}
    assert ("\r\n" in text) == ("\r\n" in longer)
    assert longer.count("\n") == longer.count("\r\n") or "\r" not in longer
    assert cut(longer, node, "ours") == text


def test_a_comment_on_the_last_line_stays_with_what_it_speaks_of() -> None:
    longer = insert(text := '{\n  "a": 1 // one\n}', parse(text), '"b": 2', "  ")

    assert longer == '{\n  "a": 1, // one\n  "b": 2\n}'


def test_what_the_user_put_around_a_piece_stays_when_it_goes() -> None:
    text = '{\n  "a": 1, // note\n  "ours": 2, "z": 3}'

    assert cut(text, parse(text), "ours") == '{\n  "a": 1, // note\n "z": 3}'
    assert parse(cut(text, parse(text), "z")).value == {"a": 1, "ours": 2}
