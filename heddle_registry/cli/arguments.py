"""What every verb's parser shares: options, kinds of values, and errors instead of exits."""

from __future__ import annotations

import argparse
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PROGRAM = "heddle-registry"
VALUED_OPTIONS = ("--heddle-dir", "--lock-timeout", "--token", "--token-file")
"""Options before the verb that take the next word as their value."""
MAX_WAIT_S = 30 * 86_400.0
_MAX_TEXT = 10_000
_WIDTH = 90
_SHOWN = 60


class _Formatter(argparse.HelpFormatter):
    # Made for every argument that is added; argparse's own asks shutil for the width each time,
    # which costs a command without --help a tenth of its start.
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_WIDTH)


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` where argparse would exit."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments.

        :raises UsageError: always.
        """
        from heddle_registry.errors import UsageError

        clipped = message if len(message) <= 4 * _SHOWN else message[: 4 * _SHOWN] + "..."
        raise UsageError(clipped, f"`{self.prog} --help` says what it takes")


def verb_parser(verb: str, description: str) -> Parser:
    """Return a parser with the options that every verb takes."""
    parser = Parser(
        prog=f"{PROGRAM} {verb}",
        description=f"{description}.",
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    common = parser.add_argument_group("everywhere")
    common.add_argument(
        "--heddle-dir", metavar="DIR", type=folder, help="the registry's folder, else it is found"
    )
    common.add_argument("--json", action="store_true", help="answer with one JSON object on stdout")
    common.add_argument(
        "--lock-timeout",
        metavar="S",
        type=duration_s,
        help="seconds to wait for the registry's lock (default: as long as it takes)",
    )
    return parser


def add_token_options(parser: argparse.ArgumentParser, *, variable: bool = True) -> None:
    """Add the ways to show a token. ``variable``: HEDDLE_AGENT_TOKEN counts too."""
    also = "; else HEDDLE_AGENT_TOKEN" if variable else "; HEDDLE_AGENT_TOKEN does not count here"
    ways = parser.add_argument_group("token").add_mutually_exclusive_group()
    ways.add_argument(
        "--token", metavar="T", help=f"the claim's token, `-` reads it from stdin{also}"
    )
    ways.add_argument("--token-file", metavar="F", type=folder, help="a file that holds the token")


def shown_token(args: argparse.Namespace, *, variable: bool = True) -> str | None:
    """Return the token that the caller shows; None for none.

    :raises UsageError: it is empty, or cannot be read.
    """
    from heddle_registry.errors import UsageError

    if args.token_file is not None:
        try:
            with open(args.token_file, "rb") as file:
                token = _read_token(file.read(_MAX_TEXT))
        except OSError as error:
            raise UsageError(
                f"the token file {args.token_file!r} cannot be read ({error.strerror})"
            ) from None
    elif args.token == "-":  # noqa: S105 - the word for stdin
        import sys

        token = _read_token(sys.stdin.buffer.read(_MAX_TEXT) if sys.stdin is not None else b"")
    elif args.token is not None:
        token = args.token
    else:
        return (os.environ.get("HEDDLE_AGENT_TOKEN") or None) if variable else None
    if not token:
        raise UsageError("the token is empty", "Give the token that `reserve` printed")
    return token


def _read_token(data: bytes) -> str:
    return os.fsdecode(data.strip())


def _quoted(text: str) -> str:
    return ascii(text) if len(text) <= _SHOWN else ascii(text[:_SHOWN]) + "..."


def duration_s(word: str) -> float:
    """Read a number of seconds, 0 to 30 days."""
    try:
        value = float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{_quoted(word)} is no number of seconds") from None
    if not 0 <= value <= MAX_WAIT_S:  # false for NaN as well
        raise argparse.ArgumentTypeError(f"{_quoted(word)} is not 0 to {MAX_WAIT_S:.0f} seconds")
    return value


def ttl_s(word: str) -> float:
    """Read a TTL, 1 s to 30 days."""
    from heddle_registry.core.limits import check_ttl

    try:
        value = float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{_quoted(word)} is no number of seconds") from None
    return check_ttl(value)


def whole_number(word: str) -> int:
    """Read a whole number of at most 18 digits: a pid, a fence."""
    if not (word.isascii() and word.isdigit() and len(word) < 19):  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{_quoted(word)} is no whole number")
    return int(word)


def folder(word: str) -> str:
    """Read a path: anything but an empty one and one with a NUL byte."""
    if not word or "\0" in word:
        raise argparse.ArgumentTypeError(f"{_quoted(word)} is no path")
    return word


def note(word: str) -> str:
    """Read a text that a record is to keep: UTF-8, not empty, at most 10,000 characters."""
    if not word.strip():
        raise argparse.ArgumentTypeError("the text is empty")
    if len(word) > _MAX_TEXT:
        raise argparse.ArgumentTypeError(
            f"the text has {len(word)} characters; {_MAX_TEXT} are allowed"
        )
    try:
        word.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{_quoted(word)} is not UTF-8") from None
    return word


def from_variable(given: str | None, variable: str, what: str) -> str:
    """Return ``given``, else the variable's value.

    :raises UsageError: neither is there.
    """
    value = given if given is not None else os.environ.get(variable)
    if value is None or (given is None and not value):
        from heddle_registry.errors import UsageError

        raise UsageError(f"{what} is missing", f"Name it, or set {variable}")
    return value
