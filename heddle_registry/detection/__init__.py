"""The table of known harnesses, `harnesses.toml` beside this file, and what is read from it."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.core.harness import Harness, Signal, SignalKind, env, file, program, scrub
from heddle_registry.errors import RecordCorrupt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TABLE: Final = os.path.join(os.path.dirname(__file__), "harnesses.toml")
_VARIABLE: Final = re.compile(
    r"(?P<name>[A-Za-z_]\w*)(?:(?P<how>\^=|\*=|=)(?P<value>.*?))?(?P<also>(?:\+[A-Z]\w*)*)"
)
_VARIABLE_KINDS: Final = ("strong", "session", "weak", "configuration")
_FIELDS: Final = frozenset(
    {
        "name",
        "tier",
        "aliases",
        "fork_of",
        "actor_kind",
        "pid",
        "marks",
        "ai_agent",
        "files",
        "programs",
        "launchers",
        "workers",
        "weak_programs",
        "paths",
        "worker_paths",
        "transcripts",
        *_VARIABLE_KINDS,
    }
)


@functools.cache
def known_harnesses() -> tuple[Harness, ...]:
    """Return the harnesses of the table that comes with this package, read once a process."""
    with open(_TABLE, encoding="utf-8") as table:
        return parse_harnesses(table.read(), path=_TABLE)


def parse_harnesses(text: str, *, path: str = "harnesses.toml") -> tuple[Harness, ...]:
    """Return the harnesses in a table of the form that `harnesses.toml` explains.

    :raises RecordCorrupt: with every problem found, not only the first
    """
    import tomli

    try:
        rows = tomli.loads(text).get("harness", [])
    except tomli.TOMLDecodeError as error:
        raise RecordCorrupt(path, [str(error)]) from error
    found: dict[str, Harness] = {}
    problems: list[str] = []
    for number, row in enumerate(rows, 1):
        label = str(row.get("name", f"harness number {number}"))
        problems.extend(f"{label}: unknown field {key!r}" for key in sorted(set(row) - _FIELDS))
        if label in found:
            problems.append(f"{label}: named twice")
        try:
            found[label] = _harness(row)
        except (TypeError, ValueError) as error:
            problems.append(f"{label}: {error}")
    if problems:
        raise RecordCorrupt(path, problems)
    return tuple(found.values())


def scrub_env(
    environ: Mapping[str, str], harnesses: Iterable[Harness] | None = None
) -> dict[str, str]:
    """Return a copy of the variables without the marks of any harness.

    For whoever starts one harness from inside another: an inherited
    ``CLAUDE_CODE_CHILD_SESSION`` switches a nested Claude Code's transcript off. The user's own
    settings and ``HEDDLE_*`` stay.

    :param harnesses: those whose marks go; all of the table when left out
    """
    return scrub(environ, known_harnesses() if harnesses is None else harnesses)


def _harness(row: Mapping[str, Any]) -> Harness:
    signals: list[Signal] = [
        _variable(text, kind) for kind in _VARIABLE_KINDS for text in row.get(kind, ())
    ]
    signals += [
        Signal(kind=SignalKind.STRONG, name="AI_AGENT", agent_name=name)
        for name in row.get("ai_agent", ())
    ]
    signals += [file(path) for path in row.get("files", ())]
    signals += [program(name) for name in row.get("programs", ())]
    signals += [program(name, role="launcher") for name in row.get("launchers", ())]
    signals += [program(name, role="worker") for name in row.get("workers", ())]
    signals += [program(name, kind="weak") for name in row.get("weak_programs", ())]
    signals += [program(row["name"], path=path) for path in row.get("paths", ())]
    signals += [
        program(row["name"], path=path, role="worker") for path in row.get("worker_paths", ())
    ]
    return Harness(
        name=row["name"],
        signals=signals,
        tier=row.get("tier", "unverified"),
        aliases=row.get("aliases", ()),
        fork_of=row.get("fork_of", ()),
        pid_variables=row.get("pid", ()),
        actor_kind=row.get("actor_kind", "session"),
        marks=row.get("marks", ()),
        transcripts=row.get("transcripts", ()),
    )


def _variable(text: str, kind: str) -> Signal:
    match = _VARIABLE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no variable")
    how, value = match["how"], match["value"]
    return env(
        match["name"],
        kind=kind,
        equals=value if how == "=" else None,
        starts_with=value if how == "^=" else None,
        contains=value if how == "*=" else None,
        also=match["also"].split("+")[1:],
    )
