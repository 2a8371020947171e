"""A command that is started stopped: it has a pid to be judged by before it does anything.

The child waits on a socket. `Child.go` sends it its variables and the liveness descriptor, and it
becomes the command; `Child.cancel` ends it instead. If the parent dies before either, the child
reads the end of the socket and leaves. POSIX only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

_LENGTH = 4
_SIGNALS_OF_PYTHON = ("SIGPIPE", "SIGXFSZ")
"""What CPython ignores for itself and a command expects at its default."""


class CannotExecute(Exception):
    """The command could not be started; ``errno`` says why."""

    def __init__(self, program: str, error: int) -> None:
        super().__init__(program, error)
        self.program = program
        self.errno = error

    @property
    def is_missing(self) -> bool:
        """Whether there is no such program, rather than one that cannot be executed."""
        return self.errno == errno.ENOENT


class Child:
    """A forked process that waits to become ``argv``.

    Not for use beside other OS threads of this process: it forks.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        failed_r, failed_w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            os.close(failed_r)
            _become(self.argv, its, failed_w)
        its.close()
        os.close(failed_w)
        self._socket = ours
        self._failed = failed_r

    def go(self, environment: Mapping[str, str], liveness_fd: int | None) -> None:
        """Let the child become its command, with the liveness lock open where there is one.

        :raises CannotExecute: the system refused; the child has ended and was reaped.
        """
        body = json.dumps(dict(environment)).encode()
        message = len(body).to_bytes(_LENGTH, "big") + body
        fds = [liveness_fd] if liveness_fd is not None else []
        # A message may be longer than the socket takes at once; descriptors go with its first byte.
        try:
            sent = socket.send_fds(self._socket, [message], fds)
            self._socket.sendall(message[sent:])
        except BrokenPipeError:
            pass  # it ended before it began: what it says of that is read below
        self._socket.close()
        reason = os.read(self._failed, 64)
        os.close(self._failed)
        if reason:
            os.waitpid(self.pid, 0)
            raise CannotExecute(self.argv[0], int(reason))

    def cancel(self) -> None:
        """End the child before it became anything."""
        self._socket.close()
        os.close(self._failed)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _become(argv: list[str], its: socket.socket, failed: int) -> None:
    # In the child. Nothing here may return to the caller's code.
    try:
        message, fds, _flags, _address = socket.recv_fds(its, 65_536, 1)
        if not message:
            os._exit(0)
        while len(message) < _LENGTH or len(message) < _LENGTH + _size(message):
            more = its.recv(65_536)
            if not more:
                os._exit(0)
            message += more
        environment = json.loads(message[_LENGTH:])
        its.close()
        for fd in fds:
            os.set_inheritable(fd, True)
        for name in _SIGNALS_OF_PYTHON:
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    except OSError as error:
        os.write(failed, str(error.errno or errno.EINVAL).encode())
    except BaseException:  # noqa: BLE001 - no traceback may leave a forked child
        os.write(failed, str(errno.EINVAL).encode())
    finally:
        os._exit(127)


def _size(message: bytes) -> int:
    return int.from_bytes(message[:_LENGTH], "big")


_FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGQUIT", "SIGWINCH", "SIGALRM")
_FROM_TERMINAL = ("SIGINT", "SIGQUIT", "SIGWINCH")


class SignalRelay:
    """Holds signals back while a command runs, and passes them on to it.

    What the terminal sends (Ctrl-C) reaches the command by itself, being in the same process
    group, so it is not sent twice. Use as a context manager in the main OS thread, entered before
    the command goes.
    """

    def __init__(self) -> None:
        self._held = {getattr(signal, name) for name in _FORWARDED if hasattr(signal, name)} | {
            signal.SIGCHLD
        }
        self._old: set[int] = set()

    def __enter__(self) -> Self:
        # A blocked signal whose action is "ignore" would be thrown away; CHLD's default is that.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._old = set(signal.pthread_sigmask(signal.SIG_BLOCK, self._held))
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def wait(self, pid: int, timeout_s: float) -> int | None:
        """Pass signals on until ``pid`` ends or the time is over.

        Returns the exit status as a shell counts it (128 + n for signal n), None at a time-out.
        """
        status = _ended(pid)
        if status is not None:
            return status
        if not hasattr(signal, "sigtimedwait"):
            return self._wait_portably(pid)
        caught = signal.sigtimedwait(self._held, timeout_s)
        if caught is not None and caught.si_signo != signal.SIGCHLD:
            name = signal.Signals(caught.si_signo).name
            is_terminals = name in _FROM_TERMINAL and caught.si_pid == 0
            if not is_terminals:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, caught.si_signo)
        return _ended(pid)

    def _wait_portably(self, pid: int) -> int | None:
        # macOS has no sigtimedwait: it cannot tell who sent a signal, nor stop waiting.
        number = signal.sigwait(self._held)
        if number != signal.SIGCHLD and signal.Signals(number).name not in _FROM_TERMINAL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return _ended(pid)


def _ended(pid: int) -> int | None:
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 1
    if done == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
