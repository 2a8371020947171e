"""The recorded harness runs as recordings for `probe_recorded`, and their right answers."""

from __future__ import annotations

import importlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "harness"
FOLDERS = {
    "codex": "codex",
    "claude-code": "claude",
    "opencode": "opencode",
    "gemini-cli": "gemini",
    "qwen-code": "qwen",
    "copilot-cli": "copilot",
    "aider": "aider",
}


def plugin_module(harness: str) -> Any:
    """Import a plugin from the checkout, installed or not."""
    folder = str(ROOT / "plugins" / harness)
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("heddle_registry_" + harness.replace("-", "_"))


@cache
def all_modules() -> tuple[tuple[str, Any], ...]:
    return tuple((harness, plugin_module(harness)) for harness in FOLDERS)


def plugins() -> Any:
    from heddle_registry.plugins import Plugins

    return Plugins(all_modules())


@cache
def _json(harness: str, name: str) -> Any:
    return json.loads((DATA / FOLDERS[harness] / name).read_text())


def expected(harness: str) -> Any:
    return _json(harness, "expected.json")


def actors(harness: str) -> dict[str, Any]:
    return {actor["key"]: actor for actor in expected(harness)["actors"]}


def home(harness: str) -> str:
    return str(DATA / FOLDERS[harness] / "home")


def environment(harness: str, run: str, change: dict[str, Any]) -> dict[str, str]:
    environ = dict(_json(harness, "commands.json")[run]["env_start"])
    for name in change.get("removed") or ():
        environ.pop(name, None)
    environ.update(change.get("added") or {})
    environ.update({name: after for name, (_, after) in (change.get("changed") or {}).items()})
    return environ


def command(harness: str, run: str, tag: str) -> dict[str, Any]:
    """The situation of one command that a harness ran."""
    return {
        "environment": environment(harness, run, _json(harness, "env.json")[run][tag]),
        "ancestors": _json(harness, "ancestors.json")[run][tag],
        "payload": None,
        "event": None,
        "harness": None,
        "cwd": _json(harness, "env.json")[run][tag]["cwd"],
        "home": home(harness),
    }


def commands(harness: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, situation and right answer of every recorded command."""
    return [
        (f"{harness}/{case['run']}/{case['tag']}", command(harness, case["run"], case["tag"]), case)
        for case in expected(harness)["tool_env"]
    ]


def hooks(harness: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and situation of every recorded hook call."""
    found = []
    lines = (DATA / FOLDERS[harness] / "hooks.jsonl").read_text().splitlines()
    for number, line in enumerate(lines):
        call = json.loads(line)
        payload = call["payload"]
        if payload is None and isinstance((call["argv"] or [None])[-1], dict):
            payload = call["argv"][-1]  # Codex gives its notify program the payload there
        change = {"added": call["env_added"], "removed": call["env_removed"]}
        situation = {
            "environment": environment(harness, call["run"], change),
            "ancestors": call["ancestors"],
            "payload": payload,
            "event": call["event"].removeprefix("event:"),
            "harness": harness,
            "cwd": "/home/dev/project",
            "home": home(harness),
        }
        found.append((f"{harness}/{call['run']}/{number}-{call['event']}", situation))
    return found


PID_VARIABLES = ("CLAUDE_PID", "OPENCODE_PID", "QWEN_CODE_LAUNCHER_PID")


def inside(outer: dict[str, Any], inner: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The inner situation, its harness started by the outer one's command.

    Variables are inherited, the outer one's shell stays above the inner harness, and both keep
    their files in one home.
    """
    merged = folder / "home"
    merged.mkdir(exist_ok=True)
    for source in (outer["home"], inner["home"]):
        for entry in Path(source).iterdir():
            _link(entry, merged / entry.name)
    moved = [{**p, "pid": p["pid"] + 1000} for p in inner["ancestors"][:-1]]
    own = {
        name: str(int(value) + 1000) if name in PID_VARIABLES else value
        for name, value in inner["environment"].items()
    }
    return {
        **inner,
        "environment": {**outer["environment"], **own},
        "ancestors": [*moved, *outer["ancestors"][1:]],
        "home": str(merged),
    }


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for entry in source.iterdir():
            _link(entry, target / entry.name)
    elif not target.exists():
        target.symlink_to(source)
