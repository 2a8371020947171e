"""Writing a situation down for ``probe --input`` without values that may be secret.

What is kept is what is known to be harmless: ids, paths and names in a payload, the marks of
harnesses among the variables, and of a command line the programs and the names of options.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.harness import SignalKind, native_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from heddle_registry.core.harness import Harness, Process

LEFT_OUT: Final = "<left out>"
"""Stands in a command line for an argument that may be anything."""

_PLAIN_VARIABLES: Final = frozenset(
    {"HOME", "PWD", "_", "CODEX_HOME", "CLAUDE_CONFIG_DIR", "XDG_DATA_HOME", "COPILOT_HOME",
     "QWEN_CODE_PROJECT_DIR", "QWEN_CODE_MODEL", "CLAUDE_EFFORT", "HEDDLE_REGISTRY_DETECTION",
     "HEDDLE_THREAD", "HEDDLE_AGENT_SESSION_ID", "HEDDLE_SESSION_ID"}
)  # fmt: skip
_SECRET_PARTS: Final = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL", "AUTH")
_NAMING_KEYS: Final = frozenset(
    {"id", "cwd", "model", "type", "source", "reason", "slug", "role", "level", "hook_event_name",
     "agent_type", "permission_mode", "thread-id", "turn-id"}
)  # fmt: skip
_NAMING_ENDS: Final = ("_id", "Id", "ID", "_path", "Path")
_MAX_PATH_LENGTH: Final = 4_096
_MAX_DEPTH: Final = 4


def recording_of(
    *,
    environ: Mapping[str, str],
    ancestors: Sequence[Process] | None,
    harnesses: Iterable[Harness],
    payload: Mapping[str, Any] | None = None,
    event: str | None = None,
    harness: str | None = None,
    cwd: str = "",
    home: str = "",
) -> dict[str, Any]:
    """Return the situation as `heddle_registry.probe.probe_recorded` reads it.

    Commands of sub-agents that only their transcripts tell apart cannot be told apart from the
    recording any more: their command lines are left out.
    """
    return {
        "environment": _variables(environ, harnesses),
        "ancestors": None if ancestors is None else [_ancestor(p) for p in ancestors],
        "payload": None if payload is None else _names(payload, 0),
        "event": event,
        "harness": harness,
        "cwd": cwd or None,
        "home": home or None,
    }


def _variables(environ: Mapping[str, str], harnesses: Iterable[Harness]) -> dict[str, str]:
    kept = set(_PLAIN_VARIABLES)
    for harness in harnesses:
        kept.update(harness.pid_variables)
        kept.update(
            signal.name
            for signal in harness.signals
            if signal.source == "env"
            and (signal.kind is SignalKind.SESSION or signal.seen_in(environ))
        )
    return {
        name: value
        for name, value in environ.items()
        if name in kept and not any(part in name.upper() for part in _SECRET_PARTS)
    }


def _ancestor(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "argv": [
            argument if place == 0 or argument == process.script else _option(argument)
            for place, argument in enumerate(process.argv)
        ],
        "exe": process.exe,
        "starttime": process.starttime,
    }


def _option(argument: str) -> str:
    """Return an option's name; a value behind ``=`` or by itself may be a prompt or a key."""
    name, equals, _ = argument.partition("=")
    if not name.startswith("-") or native_id(name) is None:
        return LEFT_OUT
    return f"{name}={LEFT_OUT}" if equals else name


def _names(value: Mapping[str, Any], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, part in value.items():
        if isinstance(part, dict) and depth < _MAX_DEPTH:
            inner = _names(part, depth + 1)
            if inner:
                found[key] = inner
        elif (key in _NAMING_KEYS or key.endswith(_NAMING_ENDS)) and _is_name(part):
            found[key] = part
    return found


def _is_name(value: object) -> bool:
    if native_id(value) is not None:
        return True
    is_text = isinstance(value, str) and len(value) <= _MAX_PATH_LENGTH and value.isprintable()
    return is_text and os.path.isabs(str(value))
