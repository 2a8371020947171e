"""`attach` by its words: what it prints, what it writes, and what a change of rules changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugins import recordings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Heddle

KEYS = {
    "schema", "entry", "created", "rule", "reason", "precedence", "present", "held_by", "dry_run",
}  # fmt: skip
RULES = """
[[attach.rules]]
name = "children"
when = {native_parent_actor_key = "codex:*"}
attach_to = "parent"
before = "native-actor-key"
"""


RULE = '[[attach.rules]]\nname="a"\nattach_to="create"\n'


@pytest.fixture
def with_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugins of this checkout, installed or not."""
    monkeypatch.setattr(
        "heddle_registry.surroundings.plugins_here", lambda *_: recordings.plugins()
    )


def recorded(folder: Path, *harnesses: str) -> dict[str, Any]:
    """Write the recorded commands of harnesses as files; return each with its right answer."""
    found = {}
    for harness in harnesses:
        for name, situation, case in recordings.commands(harness):
            path = folder / f"{name.replace('/', '-')}.json"
            path.write_text(json.dumps(situation))
            found[str(path)] = case
    return found


def test_a_command_is_attached_once_and_why_tells_the_trace(heddle: Heddle) -> None:
    made = heddle.json("attach", "--thread", "feature/x")
    assert set(made) == KEYS
    assert (made["created"], made["rule"]) == (True, "create-new-session")
    assert made["entry"]["thread"] == "feature/x"
    again = heddle.json("attach", "--thread", "feature/x")
    assert (again["created"], again["entry"]["session_id"]) == (False, made["entry"]["session_id"])
    told = heddle.json("why", made["entry"]["session_id"])
    assert told["precedence"] == made["precedence"]
    assert (told["rule"], told["reason"]) == (made["rule"], made["reason"])
    assert told["liveness"]["verdict"] == "alive"


def test_people_are_told_who_else_is_there(heddle: Heddle) -> None:
    heddle("reserve", "main", "--ttl", "60")
    told = heddle("attach", "--thread", "main").out
    assert "is new" in told
    assert "holds the branch" in told
    assert "asked     create-new-session:matched" in told


def test_a_dry_run_makes_nothing_not_even_a_folder(heddle: Heddle) -> None:
    answer = heddle.json("attach", "--dry-run")
    assert (answer["created"], answer["dry_run"]) == (True, True)
    assert not heddle.folder.exists()


@pytest.mark.usefixtures("with_plugins")
def test_a_recorded_situation_is_attached_as_that_agent(heddle: Heddle, tmp_path: Path) -> None:
    sessions = {}
    for path, case in recorded(tmp_path, "codex", "claude-code").items():
        entry = heddle.json("attach", "--input", path)["entry"]
        assert entry["native_actor_key"] == case["actor"]
        assert entry["pid"] is None, "a recorded process is not one of ours"
        sessions[entry["session_id"]] = case["actor"]
    assert len(set(sessions.values())) == len(sessions)
    listed = heddle.json("list", "--tree")["entries"]
    parents = {e["native_actor_key"]: e["native_parent_actor_key"] for e in listed}
    actors = recordings.actors("codex") | recordings.actors("claude-code")
    assert parents == {key: actors[key]["parent_key"] for key in parents}
    assert not any(entry["is_orphan"] for entry in listed)


@pytest.mark.usefixtures("with_plugins")
def test_many_recordings_show_which_cases_a_change_of_rules_changes(
    heddle: Heddle, tmp_path: Path
) -> None:
    cases = recorded(tmp_path, "codex", "claude-code")
    rules = tmp_path / "new.toml"
    rules.write_text(RULES)
    words = ("attach", "--dry-run", "--input", *cases, "--rules", rules)
    answer = heddle.json(*words)
    changed = {case["input"] for case in answer["cases"] if case["changed"]}
    parents = {key: actor["parent_key"] for key, actor in recordings.actors("codex").items()}
    # A child that comes by before its parent has nothing to be attached to.
    assert changed <= {path for path, case in cases.items() if parents.get(case["actor"])}
    assert not heddle.folder.exists()
    told = heddle(*words).out
    assert f"{len(changed)} of {len(cases)} changed" in told
    heddle.folder.mkdir()
    (heddle.folder / "config.toml").write_text(RULES)
    same = heddle.json("attach", "--dry-run", "--input", *cases)
    assert {case["input"] for case in same["cases"] if case["changed"]} == changed


@pytest.mark.usefixtures("with_plugins")
def test_a_parent_that_came_first_takes_its_children_by_the_teams_rule(
    heddle: Heddle, tmp_path: Path
) -> None:
    cases = recorded(tmp_path, "codex")
    actors = recordings.actors("codex")
    ordered = sorted(cases, key=lambda path: actors[cases[path]["actor"]]["parent_key"] or "")
    heddle.folder.mkdir()
    (heddle.folder / "config.toml").write_text(RULES)
    for path in ordered:
        answer = heddle.json("attach", "--input", path)
        parent = actors[cases[path]["actor"]]["parent_key"]
        assert (answer["rule"] == "children") == (parent is not None)
        assert answer["entry"]["native_actor_key"] in {parent, cases[path]["actor"]}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ('[[attach.rules]]\nname="a"\nattach_to="create"\nwhen={harnes="x"}\n',
         "attach.rules[0].when.harnes: is no field; "),
        (RULE + 'before="b"\n' + RULE.replace('"a"', '"b"') + 'before="a"\n',
         "attach.rules[0].before: 'a' stands in a circle of rules (line 4)"),
        (RULE + RULE, "attach.rules[1].name: 'a' is the name of a rule above (line 5)"),
        ('[[attach.rules]]\nname="token-sid"\nattach_to="create"\n',
         "attach.rules[0].name: 'token-sid' is a built-in rule (line 2)"),
        ('[[attach.rules]]\nname="a"\nattach_to="moon"\n',
         "attach.rules[0].attach_to: must be one of create, parent,"),
        ('[[attach.rules]]\nname="a"\nattach_to="create"\nbefore="b"\n',
         "the attach rule 'a' cannot be used: there is no rule 'b'"),
    ],
)  # fmt: skip
def test_a_bad_rule_is_refused_with_its_file_and_line(
    heddle: Heddle, rules: str, said: str
) -> None:
    heddle.folder.mkdir()
    (heddle.folder / "config.toml").write_text(rules)
    message = heddle.json("attach", status=2)["error"]["message"]
    assert said in message
    assert "cannot be used" in message
    assert not heddle.agents.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--input", "none.json"),
        ("--input", "bad.json"),
        ("--input", "list.json"),
        ("--input", "kind.json"),
        ("--input", "good.json", "good.json"),
        ("--rules", "good.json"),
        ("--dry-run", "--rules", "none.toml"),
        ("--thread", "a\nb"),
        ("--payload", "bad.json"),
        ("--record", "/no/such/folder/x.json"),
        ("--token", ""),
    ],
)
def test_a_mistake_of_the_user_is_an_error_and_changes_nothing(
    heddle: Heddle, words: tuple[str, ...]
) -> None:
    here = heddle.folder.parent
    (here / "bad.json").write_text("{")
    (here / "list.json").write_text("[]")
    (here / "kind.json").write_text('{"environment": []}')
    (here / "good.json").write_text("{}")
    assert heddle.json("attach", *words, status=2)["error"]["code"] == "usage"
    assert not heddle.agents.exists()
