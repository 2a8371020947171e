"""From words to an exit status: finds the verb, runs it, and says what went wrong."""

from __future__ import annotations

import os
import sys

from heddle_registry.errors import RegistryError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from heddle_registry.cli.verbs import Verb

EXIT_INTERNAL = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""What a shell reports for a program that ended by SIGPIPE."""
DEBUG = "HEDDLE_REGISTRY_DEBUG"


class _Command:
    # What is known of the command so far, for whoever has to report its failure.
    def __init__(self, words: Sequence[str]) -> None:
        self.verb: Verb | None = None
        own = words[: words.index("--")] if "--" in words else words
        self.json = "--json" in own


def run_command(words: Sequence[str]) -> int:
    """Run the command line ``words`` and return its exit status. Raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        # Names in records may hold what the terminal's encoding has no letters for.
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    command = _Command(words)
    try:
        try:
            status = _dispatch(words, command)
        except RegistryError as error:
            status = _report(command, error)
        except SystemExit as ended:  # argparse after --help
            status = ended.code if isinstance(ended.code, int) else 0
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        _say(command, "interrupted", "interrupted", "")
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: a user sees no traceback
        return _internal(command, error)
    return status


def _dispatch(words: Sequence[str], command: _Command) -> int:
    name, rest = split_verb(words)
    if name is None:
        return _without_verb(rest)
    from heddle_registry.cli.verbs import VERBS, load_verb

    command.verb = load_verb(name)
    from heddle_registry.cli.arguments import verb_parser

    parser = verb_parser(name, VERBS[name][1])
    command.verb.configure(parser)
    behind: list[str] = []
    if getattr(command.verb, "TAKES_COMMAND", False) and "--" in rest:
        at = rest.index("--")
        rest, behind = rest[:at], rest[at + 1 :]
    args: argparse.Namespace = parser.parse_args(rest)
    args.command = behind
    command.json = args.json
    return command.verb.run(args)


def split_verb(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the verb and all other words, the options before it first."""
    from heddle_registry.cli.arguments import VALUED_OPTIONS

    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            break
        if not word.startswith("-"):
            return word, [*words[:at], *words[at + 1 :]]
        at += 2 if word in VALUED_OPTIONS else 1
    return None, list(words)


def _without_verb(words: Sequence[str]) -> int:
    from heddle_registry.cli.arguments import PROGRAM
    from heddle_registry.cli.verbs import VERBS

    if "--version" in words:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(PROGRAM, version("heddle-registry"))
        except PackageNotFoundError:
            print(PROGRAM, "(not installed)")
        return 0
    if "-h" not in words and "--help" not in words:
        raise UsageError("a verb is missing", f"Verbs: {', '.join(VERBS)}; `{PROGRAM} --help`")
    print(f"usage: {PROGRAM} VERB ...\n")
    print("Which coding agents are in flight, who may write to which branch, and why.\n")
    for name, (_, summary) in VERBS.items():
        print(f"  {name:<10} {summary}")
    print("\nEverywhere: --heddle-dir DIR, --json, --lock-timeout S.")
    print(f"`{PROGRAM} VERB --help` says more.")
    return 0


def _report(command: _Command, error: RegistryError) -> int:
    from heddle_registry.cli.verbs import exit_status

    _say(command, error.code, error.message, error.hint)
    return exit_status(command.verb, error)


def _say(command: _Command, code: str, message: str, hint: str) -> None:
    if command.json:
        from heddle_registry.cli.output import print_failure

        print_failure(code, message, hint)
        if not getattr(command.verb, "SAYS_ALWAYS", False):
            return
    from heddle_registry.cli.text import complain

    complain(f"{message}. {hint}" if hint else message)


def _internal(command: _Command, error: Exception) -> int:
    if os.environ.get(DEBUG):
        import traceback

        traceback.print_exc()
    said, hint = f"{type(error).__name__}: {error}", f"{DEBUG}=1 shows where it comes from"
    if isinstance(error, OSError) and error.filename is None:
        said = f"the answer cannot be written ({error.strerror})"
        hint = ""
    try:
        _say(command, "internal", said, hint)
    except Exception:  # noqa: BLE001 - stdout itself may be what failed
        _drop_stdout()
        from heddle_registry.cli.text import complain

        complain(said)
    return EXIT_INTERNAL


def _drop_stdout() -> None:
    # The interpreter flushes once more at its end, and would complain there.
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        return
