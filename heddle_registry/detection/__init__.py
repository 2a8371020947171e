"""What is made of the table of known harnesses, `heddle_registry.detection.harnesses`.

Importing this costs nothing: a first glance at a process needs the table and no signals.
"""

from __future__ import annotations

import functools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from heddle_registry.core.harness import Harness, Signal

_VARIABLE_KINDS = ("strong", "session", "weak", "configuration")


@functools.cache
def known_harnesses() -> tuple[Harness, ...]:
    """Return the harnesses of the table that comes with this package, made once a process."""
    from heddle_registry.detection.harnesses import HARNESSES

    return tuple(map(harness_of, HARNESSES))


def scrub_env(
    environ: Mapping[str, str], harnesses: Iterable[Harness] | None = None
) -> dict[str, str]:
    """Return a copy of the variables without the marks of any harness.

    For whoever starts one harness from inside another: an inherited
    ``CLAUDE_CODE_CHILD_SESSION`` switches a nested Claude Code's transcript off. The user's own
    settings and ``HEDDLE_*`` stay.

    :param harnesses: those whose marks go; all of the table when left out
    """
    from heddle_registry.core.harness import scrub

    return scrub(environ, known_harnesses() if harnesses is None else harnesses)


def harness_of(row: Mapping[str, Any]) -> Harness:
    """Return the harness that a row of the table describes.

    :raises ValueError: its name has other characters than letters, digits, ``-``, ``.``, ``_``
    """
    from heddle_registry.core.harness import Harness, Signal, SignalKind, env, file, program

    signals: list[Signal] = [
        _variable(env, text, kind) for kind in _VARIABLE_KINDS for text in row.get(kind, ())
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


def _variable(env: Callable[..., Signal], text: str, kind: str) -> Signal:
    if text.isidentifier():
        return env(text, kind=kind)
    start, *also = text.split("+")
    name, equals, value = start.partition("=")
    how = name[-1] if equals and name[-1] in "^*" else ""
    return env(
        name.removesuffix(how),
        kind=kind,
        equals=value if equals and not how else None,
        starts_with=value if how == "^" else None,
        contains=value if how == "*" else None,
        also=also,
    )
