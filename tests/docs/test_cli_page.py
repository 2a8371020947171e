"""The page of the command line says what the parsers, errors and answers have, and no more."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry import AgentEntry, errors
from heddle_registry.__main__ import main
from heddle_registry.cli.arguments import verb_parser
from heddle_registry.cli.verbs import VERBS, load_verb

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()
SECTIONS = {
    title.strip("`"): text
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


def options_in(section: str) -> set[str]:
    return set(re.findall(r"^\| `(--[a-z-]+)", SECTIONS[section], re.MULTILINE))


def test_every_verb_has_its_section_and_every_such_section_a_verb() -> None:
    titles = set(re.findall(r"^## `(.+)`$", PAGE, re.MULTILINE))
    assert titles == set(VERBS)
    assert all(f"(#{verb})" in PAGE for verb in VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_every_option_of_a_verb_is_on_the_page_with_its_value_and_no_other(name: str) -> None:
    parser = verb_parser(name, "")
    common = {option for action in parser._actions for option in action.option_strings}
    load_verb(name).configure(parser)
    taken = {
        option: action
        for action in parser._actions
        for option in action.option_strings
        if option not in common
    }
    assert options_in(name) == set(taken)
    for option, action in taken.items():
        written = f"`{option}`" if action.nargs == 0 else f"`{option} {action.metavar or 'S'}`"
        assert written in SECTIONS[name]
    for action in parser._actions:
        for choice in action.choices or ():
            assert f"`{choice}`" in SECTIONS[name]


def test_the_options_of_all_verbs_are_on_the_page() -> None:
    parser = verb_parser("list", "")
    options = {o for action in parser._actions for o in action.option_strings} - {"-h"}
    assert options_in("Everywhere") == options


def test_every_status_and_code_of_an_error_is_on_the_page() -> None:
    rows = {
        int(status): set(re.findall(r"`(\w+)`", codes))
        for status, codes in re.findall(
            r"^\| (\d+) \|(.*?)\|", SECTIONS["Exit status"], re.MULTILINE
        )
    }
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        code = getattr(kind, "code", "")
        if code and code != "plugin_fault":  # reported by doctor, never raised
            assert code in rows[kind.exit_code]


def keys_of(answer: Any) -> Iterator[str]:
    if isinstance(answer, list):
        for item in answer:
            yield from keys_of(item)
    elif isinstance(answer, dict):
        for key, value in answer.items():
            if hasattr(AgentEntry, key):
                continue  # the original's fields are named all at once
            yield key
            if key not in ("owner", "chain"):
                yield from keys_of(value)


def test_every_key_of_an_answer_is_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEDDLE_DIR", str(tmp_path / ".heddle"))
    monkeypatch.setenv("HEDDLE_REGISTRY_PLUGINS", "none-such")
    monkeypatch.chdir(tmp_path)

    def answer(*words: str, verb: str = "") -> Any:
        capsys.readouterr()
        main([*words, "--json"])
        said = json.loads(capsys.readouterr().out)
        text = SECTIONS["JSON"] + SECTIONS[verb or words[0]]
        assert {
            key for key in keys_of(said) if f"`{key}`" not in text and f'"{key}"' not in text
        } == set()
        return said

    won = answer("reserve", "main", "--ttl", "60")
    answer("reserve", "main", "--ttl", "60")
    session_id, token = won["entry"]["session_id"], won["token"]
    (tmp_path / ".heddle" / "agents" / "bad.toml").mkdir()
    answer("list", "--tree")
    answer("why", "main")
    answer("why", session_id)
    for by in ("entry", "thread", "tree"):
        answer("usage", "--by", by)
    answer("heartbeat", session_id, "--token", token)
    answer("heartbeat", session_id, "--token", "wrong")
    answer("check", "main", "--fence", "1")
    handed = answer("release", session_id, "--token", token, "--to-ttl", "60")
    answer("why", "main")
    answer("gc")
    answer("doctor", "--fix")
    answer("release", handed["entry"]["session_id"], "--token", handed["token"])
