"""The situation that ``probe`` and ``attach`` are about: this process's, or recorded ones."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from heddle_registry.codec.config import Settings
    from heddle_registry.plugins import Plugins
    from heddle_registry.ports import Host
    from heddle_registry.surroundings import Situation

_MAX_BYTES = 16 * 1_048_576


def read_recording(path: str) -> Situation:
    """Return the situation that the file ``path`` holds.

    :raises UsageError: it cannot be read, or is no recording.
    """
    from heddle_registry.errors import UsageError
    from heddle_registry.surroundings import recorded_situation

    found = _json_object(path, "the recording")
    try:
        return recorded_situation(found, base=os.path.dirname(os.path.abspath(path)))
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}") from None


def _json_object(path: str, what: str) -> dict[str, Any]:
    import json

    from heddle_registry.errors import UsageError

    try:
        if path == "-":
            import sys

            data = sys.stdin.buffer.read(_MAX_BYTES + 1) if sys.stdin is not None else b""
        else:
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{what} {path!r} cannot be read ({error.strerror})") from None
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{what} {path!r} has more than {_MAX_BYTES} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise UsageError(f"{what} {path!r} is no JSON") from None
    if not isinstance(found, dict):
        raise UsageError(f"{what} {path!r} is no JSON object")
    return found


def add_hook_options(parser: argparse.ArgumentParser) -> None:
    """Add what says whose hook this is, for authors who look at their own."""
    from heddle_registry.cli.arguments import folder

    parser.add_argument("--harness", metavar="H", help="this is a hook of the harness H")
    parser.add_argument("--event", metavar="EVENT", help="the harness's own name of the event")
    parser.add_argument(
        "--payload", metavar="FILE", type=folder, help="the hook's payload, `-` reads it from stdin"
    )


def present_situation(host: Host, args: argparse.Namespace) -> Situation:
    """Return this process's situation, with the payload that the options name.

    :raises UsageError: the payload cannot be read.
    """
    from heddle_registry.surroundings import situation_here

    payload = _json_object(args.payload, "the payload") if args.payload is not None else None
    return situation_here(host, payload=payload, event=args.event, harness=args.harness)


def as_switched(situation: Situation, settings: Settings | None) -> Situation:
    """Return the situation with detection off where the settings say so."""
    if settings is None or settings.detection is not False:
        return situation
    import attrs

    from heddle_registry.core.chain import OFF_SWITCH

    return attrs.evolve(situation, environ={**situation.environ, OFF_SWITCH: "off"})


def write_recording(path: str, situation: Situation, plugins: Plugins) -> None:
    """Write the situation to ``path`` without values that may be secret.

    :raises UsageError: it cannot be written.
    """
    import json

    from heddle_registry.errors import UsageError
    from heddle_registry.recording import recording_of

    found = recording_of(
        environ=situation.environ,
        ancestors=situation.ancestors,
        harnesses=plugins.harnesses().values(),
        payload=situation.payload,
        event=situation.event,
        harness=situation.harness,
        cwd=situation.cwd,
        home=situation.home,
    )
    try:
        # It names sessions and folders: for its owner to read, until he gives it away.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
            file.write("\n")
    except OSError as error:
        raise UsageError(f"{path!r} cannot be written ({error.strerror})") from None
