"""The command lines by which others start us: no PATH, no working directory, no variable needed."""

from __future__ import annotations

import os
import sys
from functools import cache

PACKAGE = "heddle_registry"


def command_line(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs ``module`` of ours with this interpreter, isolated.

    Where the interpreter alone does not find the package (a checkout that is not installed), its
    folder is named. Starts one interpreter to find out.

    :raises UsageError: this interpreter has no path.
    """
    if not sys.executable:
        from heddle_registry.errors import UsageError

        raise UsageError("the path of this Python is not known", "Start it by its full path")
    python = os.path.abspath(sys.executable)
    name = f"{PACKAGE}.{module}" if module else PACKAGE
    if _is_found(python):
        return (python, "-I", "-m", name, *arguments)
    source = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        f"from {name}{'' if module else '.__main__'} import main; sys.exit(main())"
    )
    return (python, "-I", "-c", source, _root(), *arguments)


def _root() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@cache
def _is_found(python: str) -> bool:
    import subprocess

    look = f"import {PACKAGE}; print({PACKAGE}.__file__)"
    try:
        said = subprocess.run(
            [python, "-I", "-c", look], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = said.stdout.strip()
    return bool(found) and os.path.realpath(os.path.dirname(found)) == os.path.realpath(
        os.path.join(_root(), PACKAGE)
    )


def shell_text(command: tuple[str, ...]) -> str:
    """Return ``command`` as one line for a POSIX shell."""
    import shlex

    return shlex.join(command)


def is_relay_command(text: str, harness: str) -> bool:
    """Return whether a command, or a file's text, starts our relay for ``harness``."""
    return PACKAGE in text and f" relay {harness} " in f"{text} "
