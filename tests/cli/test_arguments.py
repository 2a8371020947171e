from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from heddle_registry.cli import arguments
from heddle_registry.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def token_of(*words: str, variable: bool = True) -> str | None:
    parser = arguments.verb_parser("x", "x")
    arguments.add_token_options(parser, variable=variable)
    return arguments.shown_token(parser.parse_args(words), variable=variable)


def test_a_token_comes_from_the_option_the_file_or_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEDDLE_AGENT_TOKEN", raising=False)
    assert token_of() is None
    monkeypatch.setenv("HEDDLE_AGENT_TOKEN", "of the environment")
    assert token_of() == "of the environment"
    assert token_of(variable=False) is None
    assert token_of("--token", "told") == "told"
    (tmp_path / "t").write_bytes(b"  kept\xff\n")
    assert token_of("--token-file", str(tmp_path / "t")) == "kept\udcff"


def test_a_token_that_is_none_is_an_error_and_never_silently_the_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_AGENT_TOKEN", "of the environment")
    (tmp_path / "empty").touch()
    for words in (
        ("--token", ""),
        ("--token-file", str(tmp_path / "empty")),
        ("--token-file", str(tmp_path / "missing")),
        ("--token-file", str(tmp_path)),
        ("--token", "a", "--token-file", "b"),
    ):
        with pytest.raises(UsageError):
            token_of(*words)


@pytest.mark.parametrize("word", ["", "-1", "1_0", "x", "1.0", "٣", "9" * 19, " 1"])
def test_a_number_is_plain_digits(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.whole_number(word)


def test_an_error_about_a_huge_word_is_short() -> None:
    parser = arguments.verb_parser("x", "x")
    with pytest.raises(UsageError) as caught:
        parser.parse_args(["y" * 100_000])
    assert len(str(caught.value)) < 1_000
