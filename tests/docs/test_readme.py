"""README is short, and what it says of the project is so."""

from __future__ import annotations

import re
from pathlib import Path

import tomli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_it_has_at_most_120_lines() -> None:
    assert len(README.splitlines()) <= 120


def test_it_names_the_python_that_is_required_and_the_licence() -> None:
    needed = PROJECT["requires-python"].removeprefix(">=")
    assert f"Python {needed} or newer" in README
    assert PROJECT["license"] in README


def test_its_two_commands_install_what_the_project_offers() -> None:
    commands = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    for extra in re.findall(r"\.\[([\w,]+)\]", "".join(commands)):
        assert set(extra.split(",")) <= PROJECT["optional-dependencies"].keys()
    # Of the plugins' folders the pattern takes each harness's, and not the template.
    pattern = re.search(r"\./(plugins/\S+?)/? ", commands[0])
    assert pattern is not None
    taken = {path.name for path in ROOT.glob(pattern[1]) if path.is_dir()}
    packages = {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")}
    assert packages - taken <= {"_template"}
    assert all((ROOT / "plugins" / name / "pyproject.toml").exists() for name in taken)


def test_the_harnesses_that_it_names_are_those_that_have_a_plugin() -> None:
    named = re.search(r"plugins for the harnesses \((.*?)\)", README)
    assert named is not None
    spoken = {name.lower().replace(" ", "-") for name in named[1].split(", ")}
    assert spoken == {path.parent.name for path in ROOT.glob("plugins/[a-z]*/pyproject.toml")}


def test_contributing_shows_the_same_test_command() -> None:
    command = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[-1]
    assert command in (ROOT / "docs" / "contributing.md").read_text()
