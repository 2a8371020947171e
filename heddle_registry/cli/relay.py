"""``relay``: what a harness's hook calls. Ends with 0 whatever happens."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from heddle_registry.errors import RegistryError

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
    try:
        with _Deadline():
            line = _relay(args)
        if line is not None and sys.stdout is not None:
            print(line, flush=True)
    except (Exception, KeyboardInterrupt, _Overdue):  # noqa: BLE001 - the last resort
        _forget_stdout()
    return 0


def _relay(args: argparse.Namespace) -> str | None:
    from heddle_registry.opening import local_host
    from heddle_registry.relay import MAX_PAYLOAD_BYTES, relay

    host = local_host()
    try:
        data = _stdin(MAX_PAYLOAD_BYTES + 1)
        return relay(args.harness, args.event, data, host=host, heddle_dir=args.heddle_dir)
    except _Overdue:
        from heddle_registry.errors import RegistryError
        from heddle_registry.faults import note_fault
        from heddle_registry.opening import find_heddle_dir

        try:
            folder = find_heddle_dir(host.cwd(), explicit=args.heddle_dir)
        except RegistryError:
            return None
        why = f"it took more than {DEADLINE_S:g} s"
        note_fault(folder, args.harness, f"relay {args.event}", why, host.now().at)
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
        import signal

        self._rings = 0
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, DEADLINE_S, _GRACE_S)

    def __exit__(self, *_: object) -> None:
        import signal

        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)

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
