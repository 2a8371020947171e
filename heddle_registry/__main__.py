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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: this process's) and return its exit status.

    Never raises for anything that a user can do; what goes wrong is said on stderr, or with
    ``--json`` on stdout.
    """
    return _run(list(sys.argv[1:] if argv is None else argv))


def _run(words: list[str], *, is_own_process: bool = False) -> int:
    if words[:1] == ["heartbeat"]:
        # Scripts run it every few seconds: the plain case does without argparse and all the rest.
        from heddle_registry.beat import beat

        status = beat(words[1:])
        if status is not None:
            return status
    if is_own_process:
        from heddle_registry.deferred import defer_what_short_commands_never_use

        defer_what_short_commands_never_use()
    if words[:1] == ["relay"]:
        # A harness waits for it at every start and end of a session.
        from heddle_registry.cli.relay import relay_plainly

        status = relay_plainly(words[1:])
        if status is not None:
            return status
    from heddle_registry.cli.application import run_command

    return run_command(words)


def program() -> NoReturn:
    """Be the process of one command: `main`, and then the end. For a script, not for embedding.

    A command makes its objects once and ends: looking for cycles among them, while modules are
    imported and once more at the end, took a fifth of its time. A long command's are still found.
    """
    import gc

    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    status = _run(sys.argv[1:], is_own_process=True)
    gc.freeze()  # nothing below is looked through when the interpreter ends
    sys.exit(status)


if __name__ == "__main__":
    program()
