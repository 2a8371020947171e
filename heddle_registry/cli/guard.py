"""The guard's check, started by the hook that ``install git`` writes. No verb: it is git's.

The hook asks only where the registry may know a claim. What cannot be read lets the change pass,
with a warning: a broken registry must not stop people from working.
"""

from __future__ import annotations

import os
import sys

from heddle_registry.cli.text import complain

EXIT_REFUSED = 5
_MAX_INPUT = 16 * 1024 * 1024


def main() -> int:
    """Check the branches on stdin, one a line, in the registry that the first argument names.

    Returns 0 where all may change and 5 where one may not; says on stderr why. Waits for no lock.
    """
    branches = os.fsdecode(sys.stdin.buffer.read(_MAX_INPUT)).split("\n")
    try:
        return _check(sys.argv[1], [branch for branch in branches if branch])
    except Exception as error:  # noqa: BLE001 - a fault of ours must not stop people either
        _warn(f"{type(error).__name__}: {error}")
        return 0


def _check(folder: str, branches: list[str]) -> int:
    from heddle_registry.errors import RegistryError
    from heddle_registry.git_guard import refusal
    from heddle_registry.registry import AgentRegistry

    try:
        os.listdir(folder)
    except OSError as error:
        _warn(f"{folder}: {error.strerror}")
        return 0
    registry = AgentRegistry(folder)
    token = os.environ.get("HEDDLE_AGENT_TOKEN")
    is_refused = False
    for branch in branches:
        try:
            why = refusal(registry, branch, token)
        except RegistryError as error:
            _warn(error.message)  # of this branch alone: another may be held
            continue
        if why is not None:
            complain(why)
            is_refused = True
    return EXIT_REFUSED if is_refused else 0


def _warn(why: str) -> None:
    complain(f"{why}. The guard lets this change pass")


if __name__ == "__main__":
    sys.exit(main())
