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
    from heddle_registry.core.harness import Harness

    name = row["name"]
    return Harness(
        name=name,
        signals=tuple(
            signal_of(name, text)
            for key, signal_of in _signal_makers().items()
            if key in row
            for text in row[key]
        ),
        tier=row.get("tier", "unverified"),
        aliases=row.get("aliases", ()),
        fork_of=row.get("fork_of", ()),
        pid_variables=row.get("pid", ()),
        actor_kind=row.get("actor_kind", "session"),
        marks=row.get("marks", ()),
        transcripts=row.get("transcripts", ()),
    )


@functools.cache
def _signal_makers() -> dict[str, Callable[[str, str], Signal]]:
    """Return what makes a signal of a harness's name and a text, by the text's key in a row.

    In the order that a harness has its signals in.
    """
    from heddle_registry.core.harness import Signal, SignalKind, env, file, program

    def variables(kind: str) -> Callable[[str, str], Signal]:
        return lambda _, text: _variable(env, text, kind)

    return {
        **{kind: variables(kind) for kind in _VARIABLE_KINDS},
        "ai_agent": lambda _, text: Signal(
            kind=SignalKind.STRONG, name="AI_AGENT", agent_name=text
        ),
        "files": lambda _, text: file(text),
        "programs": lambda _, text: program(text),
        "launchers": lambda _, text: program(text, role="launcher"),
        "workers": lambda _, text: program(text, role="worker"),
        "weak_programs": lambda _, text: program(text, kind="weak"),
        "paths": lambda name, text: program(name, path=text),
        "worker_paths": lambda name, text: program(name, path=text, role="worker"),
    }


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
