"""aider: it has no ids, so it is a harness without an actor. Observed on 0.86.2.

What its command line and the top of its history say is all there is: the model, and where the
history lies.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from heddle_registry.core.harness import Harness
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

AIDER = Harness(
    name="aider",  # its marks are in the table that comes with the registry
    events={"notification": "waiting"},
)
_HISTORY = ".aider.chat.history.md"


@hookimpl
def heddle_harnesses() -> list[Harness]:
    """Answer aider."""
    return [AIDER]


@hookimpl
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer aider's model and history, without an actor."""
    if not probe.processes:
        return None
    argv = probe.processes[-1].argv
    history = _option(argv, "--chat-history-file") or _HISTORY
    model = _option(argv, "--model") or _main_model(probe, history)
    provider, slash, name = (model or "").rpartition("/")
    return Identity(
        model=name or None,
        provider=provider if slash else None,
        transcript=os.path.join(probe.cwd, history) if probe.cwd else None,
        source="ancestors",
    )


@hookimpl
def heddle_usage(source: Any) -> Iterable[Any] | None:
    """Answer the responses in a chat history."""
    from .usage import records

    return records(source)


def _option(argv: tuple[str, ...], option: str) -> str | None:
    for place, argument in enumerate(argv):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option and place + 1 < len(argv):
            return argv[place + 1]
    return None


def _main_model(probe: Probe, history: str) -> str | None:
    """Return the model that the newest session in the history names at its start."""
    text = probe.read_text(os.path.join(probe.cwd, history), 65_536, tail=True) or ""
    for line in reversed(text.split("\n")):
        if line.startswith(("> Main model: ", "> Model: ")):
            return line.partition(": ")[2].split(" with ")[0].strip()
    return None
