"""The verbs: one line each. A verb's module is imported only when it is used.

Such a module has ``configure(parser)``, which adds its arguments, and ``run(args) -> int``, which
returns the exit status; errors are raised. It may have ``exit_status(error) -> int`` where the
error's own status is not the one to end with.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Protocol

    from heddle_registry.errors import RegistryError

    class Verb(Protocol):
        """What a verb's module offers."""

        def configure(self, parser: argparse.ArgumentParser) -> None:
            """Add the verb's own arguments."""

        def run(self, args: argparse.Namespace) -> int:
            """Do it and return the exit status."""
            ...


VERBS = {
    "run": ("heddle_registry.cli.run", "reserve a branch, run a command, release the branch"),
    "list": ("heddle_registry.cli.list", "who is here, on which branch, since when, doing what"),
    "why": ("heddle_registry.cli.why", "who has a branch, by what evidence, what would free it"),
    "reserve": ("heddle_registry.cli.reserve", "claim a branch from a script"),
    "heartbeat": ("heddle_registry.cli.heartbeat", "renew a claim"),
    "release": ("heddle_registry.cli.release", "end a session and its claim, or hand it over"),
    "check": ("heddle_registry.cli.check", "whether a fence still holds on a branch"),
    "install": ("heddle_registry.cli.install", "wire a harness, or guard branches with git"),
    "attach": ("heddle_registry.cli.attach", "where this process belongs, and why"),
    "probe": ("heddle_registry.cli.probe", "which agents are around this process"),
    "relay": ("heddle_registry.cli.relay", "what the hooks of a harness call"),
    "usage": ("heddle_registry.cli.usage", "what agents cost, by session, branch, model or tree"),
    "gc": ("heddle_registry.cli.gc", "reap the dead, prune the stale, remove what is left over"),
    "doctor": ("heddle_registry.cli.doctor", "what is unsafe here and now, and how to mend it"),
}
"""Word, module, and what it is for."""


def load_verb(name: str) -> Verb:
    """Import the module of the verb ``name``.

    :raises UsageError: there is no such verb; names the nearest one.
    """
    found = VERBS.get(name)
    if found is None:
        from difflib import get_close_matches

        from heddle_registry.errors import UsageError

        near = get_close_matches(name, VERBS, 1)
        hint = f"Did you mean `{near[0]}`?" if near else "Verbs: " + ", ".join(VERBS)
        raise UsageError(f"there is no verb {name[:80]!r}", hint)
    # Not importlib: that is a package of its own, which no other part of a command needs.
    __import__(found[0])
    verb: Verb = sys.modules[found[0]]
    return verb


def exit_status(verb: Verb | None, error: RegistryError) -> int:
    """Return the status with which ``error`` ends the command."""
    own = getattr(verb, "exit_status", None)
    return int(own(error)) if own is not None else error.exit_code
