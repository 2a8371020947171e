"""Writing an answer to stdout: whole, and noticed when it fails."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SCHEMA = "heddle-registry/1"


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object on one line of stdout.

    :raises OSError: there is no stdout, or it cannot be written to.
    """
    import json

    print_answer(json.dumps({"schema": SCHEMA, **answer}))


def print_answer(text: str) -> None:
    """Print ``text`` and make sure that it left.

    :raises OSError: there is no stdout, or it cannot be written to.
    """
    if sys.stdout is None:
        raise OSError(9, "there is no standard output")
    print(text, flush=True)


def print_error(error: Exception) -> None:
    """Print the JSON object of an error; one that is no `RegistryError` has the code internal."""
    code: str = getattr(error, "code", "") or "internal"
    print_failure(code, getattr(error, "message", str(error)), getattr(error, "hint", ""))


def print_failure(code: str, message: str, hint: str) -> None:
    """Print the JSON object of a failure: a stable code, what happened, what to do next."""
    print_json({"error": {"code": code, "message": message, "hint": hint}})
