"""The command ``heddle-registry``.

Only what the first word asks for is imported: looking at it costs nothing but ``sys``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, NoReturn

_OBJECTS_BETWEEN_COLLECTIONS: Final = 100_000
_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: this process's) and return its exit status.

    Never raises for anything that a user can do; what goes wrong is said on stderr, or with
    ``--json`` on stdout.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    status = _beat(words)
    return _run(words) if status is None else status


def _beat(words: list[str]) -> int | None:
    if words[:1] != ["heartbeat"]:
        return None
    # Scripts run it every few seconds: the plain case does without argparse and all the rest.
    from heddle_registry.beat import beat

    return beat(words[1:])


def _run(words: list[str]) -> int:
    if words[:1] == ["relay"]:
        # A harness waits for it at every start and end of a session.
        from heddle_registry.cli.relay import relay_plainly

        status = relay_plainly(words[1:])
        if status is not None:
            return status
    from heddle_registry.cli.application import run_command

    return run_command(words)


def _run_in_own_process(words: list[str]) -> int:
    import os

    from heddle_registry.cache_folder import cache_folder
    from heddle_registry.deferred import defer_what_short_commands_never_use
    from heddle_registry.kept_code import KeptCode

    defer_what_short_commands_never_use()
    code = KeptCode(cache_folder(os.environ, os.path.expanduser("~")))
    code.install()
    status = _run(words)
    code.keep()
    return status


def program() -> NoReturn:
    """Be the process of one command: `main`, and then the end. For a script, not for embedding.

    A command makes its objects once and ends: looking for cycles among them while modules are
    imported took a fifth of its time, and taking all of them apart at the end a fiftieth. A long
    command's cycles are still found.
    """
    import gc
    import os

    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    words = sys.argv[1:]
    try:
        status = _beat(words)
        if status is None:
            status = _run_in_own_process(words)
    except KeyboardInterrupt:  # before there was a command to say so, or after it
        status = _INTERRUPTED
    _flush()
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # a pipe that nobody reads; a stream that is closed
            continue


if __name__ == "__main__":
    program()
