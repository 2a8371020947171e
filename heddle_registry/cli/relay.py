"""``relay``: what a harness's hook calls. Ends with 0 whatever happens."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import signal
    from collections.abc import Sequence

    from heddle_registry.errors import RegistryError
else:
    # ``signal`` itself makes enums of all its numbers first, and a harness would wait for that.
    import _signal as signal

DEADLINE_S = 5.0
"""For everything together: a harness waits for its hooks."""
_GRACE_S = 1.0


class _Overdue(BaseException):
    # Not an Exception, so that no plugin's `except Exception` keeps it.
    pass


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument("harness", metavar="HARNESS", help="whose hook this is")
    parser.add_argument(
        "event", metavar="EVENT", help="the harness's own name of it; the payload is on stdin"
    )


def exit_status(error: RegistryError) -> int:  # noqa: ARG001 - a harness must not be stopped by us
    """Return 0."""
    return 0


def run(args: argparse.Namespace) -> int:
    """Relay the event and return 0. Prints one line at most, at a session's start."""
    return _relay_in_time(args.harness, args.event, args.heddle_dir)


def relay_plainly(words: Sequence[str]) -> int | None:
    """Do the same for a harness and an event without options; None for anything else.

    That is how hooks are wired, and it saves them argparse.
    """
    if len(words) != 2 or any(word.startswith("-") for word in words):  # noqa: PLR2004
        return None
    return _relay_in_time(words[0], words[1], None)


def _relay_in_time(harness: str, event: str, heddle_dir: str | None) -> int:
    try:
        with _Deadline():
            line = _relay(harness, event, heddle_dir)
        if line is not None and sys.stdout is not None:
            print(line, flush=True)
    except (Exception, KeyboardInterrupt, _Overdue):  # noqa: BLE001 - the last resort
        _forget_stdout()
    return 0


def _relay(harness: str, event: str, heddle_dir: str | None) -> str | None:
    from heddle_registry.opening import local_host
    from heddle_registry.relay import MAX_PAYLOAD_BYTES, relay

    host = local_host()
    try:
        data = _stdin(MAX_PAYLOAD_BYTES + 1)
        return relay(harness, event, data, host=host, heddle_dir=heddle_dir)
    except _Overdue:
        from heddle_registry.errors import RegistryError
        from heddle_registry.faults import note_fault
        from heddle_registry.opening import find_heddle_dir

        try:
            folder = find_heddle_dir(host.cwd(), explicit=heddle_dir)
        except RegistryError:
            return None
        why = f"it took more than {DEADLINE_S:g} s"
        note_fault(folder, harness, f"relay {event}", why, host.now().at)
        return None


def _stdin(most: int) -> bytes:
    """Return the payload, at most ``most`` bytes; the rest is read, so that nobody gets SIGPIPE."""
    found = bytearray()
    try:
        if os.isatty(0):
            return b""
        while part := os.read(0, 1_048_576):
            found += part[: most - len(found)]
    except OSError:
        pass
    return bytes(found)


class _Deadline:
    """Interrupts the main OS thread after `DEADLINE_S`; where that does not help, ends it."""

    def __enter__(self) -> None:
        self._rings = 0
        if hasattr(signal, "setitimer"):
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, DEADLINE_S, _GRACE_S)

    def __exit__(self, *_: object) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def _ring(self, *_: object) -> None:
        self._rings += 1
        if self._rings > 1:
            os._exit(0)
        raise _Overdue


def _forget_stdout() -> None:
    # The interpreter flushes once more at its end, and would complain there.
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    except OSError:
        return
