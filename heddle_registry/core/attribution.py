"""Which actor of a session ran the command that we are in.

Claude Code, OpenCode and Gemini CLI give a sub-agent's command its parent's variables. Their
transcripts name every command that every actor ran, so the command line above us tells whose it is.
Transcripts lag: a command may run before its line is written, so a missing line proves nothing
while anybody in the session is still at work.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, TypeVar

import attrs

from heddle_registry.core.harness import base_name
from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from heddle_registry.core.harness import Process

A = TypeVar("A", bound=Hashable)

_SEPARATORS = frozenset({"&&", "||", ";", "|", "&", "(", ")", "\n", "|&", ";;"})
_MAX_COMMAND = 65_536


@attrs.frozen(eq=False, repr=False)
class Command(Record):
    """One shell command of an actor; ``running`` until the transcript has its result."""

    actor: Hashable
    text: str
    running: bool = False


def ran_by(
    commands: Iterable[Command],
    at_work: Collection[Hashable],
    below: Sequence[Process],
    last_command: str = "",
) -> Hashable | None:
    """Return the one actor whose command line is above us, or None where that is not certain.

    :param commands: the shell commands in the transcripts of all actors that come into question
    :param at_work: the actors that have not given their last answer yet
    :param below: the processes between the harness and us, outermost first
    :param last_command: what the shell calls ``_``, the path of the program that it started
    """
    matching = [c for c in commands if _is_above(c.text, below, last_command)]
    running = {c.actor for c in matching if c.running}
    if running:
        return next(iter(running)) if len(running) == 1 else None
    if any(process.started_at is not None for process in below):
        return None  # seen alive: no finished command is ours, whatever it looked like
    done = {c.actor for c in matching}
    # Somebody else at work may just have started the same command, its line unwritten.
    return next(iter(done)) if len(done) == 1 and not set(at_work) - done else None


def _is_above(command: str, below: Sequence[Process], last_command: str) -> bool:
    command = command.strip()
    if not command or len(command) > _MAX_COMMAND:
        return False
    for process in below:
        if any(_holds(argument, command) for argument in process.argv[1:]):
            return True
    segments = _segments(command)
    return any(
        _runs(process, words, last_command if place == len(below) - 1 else "")
        for place, process in enumerate(below)
        for words in segments
    )


def _holds(script: str, command: str) -> bool:
    """Whether a shell was given exactly this command, plain, quoted for eval, or on lines alone."""
    if script.strip() == command:
        return True
    if len(script) <= len(command):
        return False
    quoted = "'" + command.replace("'", "'\\''") + "'"
    other = "'" + command.replace("'", "'\"'\"'") + "'"
    return (
        f"eval {quoted}" in script
        or f"eval {other}" in script
        or f"\n{command}\n" in f"\n{script}\n"
    )


def _segments(command: str) -> list[list[str]]:
    """Split a command line into the argument lists of its simple commands."""
    import shlex

    lexer = shlex.shlex(command, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:
        return []
    segments: list[list[str]] = [[]]
    for word in words:
        if word in _SEPARATORS:
            segments.append([])
        elif segments[-1] or "=" not in word.split("/", 1)[0]:
            segments[-1].append(word)
    return [segment for segment in segments if segment]


def _runs(process: Process, words: Sequence[str], last_command: str) -> bool:
    """Whether the process is that simple command, perhaps run by the interpreter of its script."""
    program, arguments = words[0], tuple(words[1:])
    argv = process.argv
    if not argv or (arguments and argv[-len(arguments) :] != arguments):
        return False
    head = argv[: len(argv) - len(arguments)]
    if not head:
        return False
    # `_` names the script where an interpreter's command line shows another one, run by it.
    return base_name(program) in {base_name(head[-1]), base_name(last_command)}
