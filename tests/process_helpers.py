"""Real processes for tests: start, talk to, wait for, and always reap.

Nothing here sleeps for luck. A wait is for a line, an exit, or a condition that can be looked at
(`until`), each with a deadline that fails the test with what was seen. Whatever a ``with`` block
started is dead and reaped when the block ends, however it ends.

* `python` / `Child` - a fresh interpreter that runs a piece of code, spoken to by lines
* `in_fork` / `Fork` - a function in a forked child of this process, its value or traceback back
* `as_nobody` - the same as another user (needs root: mark the test `needs_other_user`)
* `flock_holder` - a stranger that holds a plain ``flock``, as the Rust tool or ``flock(1)`` does
* `flock_waiters`, `locked_elsewhere` - what the kernel says of a lock file
* `public_folder` - a folder another user can reach (pytest's own are private)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534
PATIENCE_S = 60.0
"""For what takes milliseconds, on a machine that has everything else to do as well."""

needs_other_user = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)
needs_flock_command = pytest.mark.skipif(
    shutil.which("flock") is None, reason="no flock(1) on this machine"
)
needs_proc_locks = pytest.mark.skipif(
    not os.path.exists("/proc/locks"), reason="no /proc/locks on this machine"
)
forks_with_threads = pytest.mark.filterwarnings(
    # Python 3.12 warns of what these tests are about.
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def until(
    condition: Callable[[], Any], what: str = "the condition", within_s: float = PATIENCE_S
) -> Any:
    """Look until ``condition()`` is true and return its value; fail the test after ``within_s``.

    For states that announce themselves to nobody (a process asleep in the kernel, say).
    """
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {within_s:g} s")
        time.sleep(0.002)


class Child:
    """A running Python program. Use it through `python`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._unread = b""
        self.pid = process.pid

    def line(self, within_s: float = PATIENCE_S) -> str:
        """Return the next line of its output, without the newline."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + within_s
        fd = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
                raise AssertionError(f"process {self.pid} said nothing within {within_s:g} s")
            part = os.read(fd, 65536)
            if not part:
                code = self._process.wait(within_s)
                raise AssertionError(f"process {self.pid} ended ({code}): {self.complaint()}")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def tell(self, line: str = "") -> None:
        """Give it one line of input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it is gone."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL and reap it."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def ends(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end and return its status, negative for a signal."""
        return self._process.wait(within_s)

    def complaint(self) -> str:
        """Return what it wrote to stderr; only after its end."""
        assert self._process.stderr is not None
        return self._process.stderr.read().decode(errors="replace")


@contextlib.contextmanager
def python(code: str, *arguments: object, **options: Any) -> Iterator[Child]:
    """Run ``code`` in a new interpreter that can import this checkout; kill and reap it at the end.

    ``options`` go to ``subprocess.Popen``. The code reads ``sys.argv[1:]`` and should flush.
    """
    environment = dict(options.pop("env", os.environ))
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        **options,
    )
    child = Child(process)
    try:
        yield child
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Fork:
    """A function at work in a forked child of this process. Use it in a ``with`` block."""

    def __init__(self, function: Callable[[], Any], fork: Callable[[], int] = os.fork) -> None:
        self._reads, writes = os.pipe()
        self._reaped = False
        self.pid = fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self._reads)
                try:
                    answer = (True, function())
                except BaseException:
                    answer = (False, traceback.format_exc())
                os.write(writes, pickle.dumps(answer))  # small, so one write is enough
                status = 0
            finally:
                os._exit(status)
        os.close(writes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        os.close(self._reads)

    def kill(self) -> None:
        """End it with SIGKILL, if it has not ended, and reap it."""
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._reaped = True

    def answer(self, within_s: float = PATIENCE_S) -> Any:
        """Return the function's value; fail with its traceback where it raised."""
        if not select.select([self._reads], [], [], within_s)[0]:
            self.kill()
            raise AssertionError(f"the forked child did not answer within {within_s:g} s")
        said = os.read(self._reads, 1 << 16)
        os.waitpid(self.pid, 0)
        self._reaped = True
        if not said:
            raise AssertionError("the forked child died without an answer")
        fine, value = pickle.loads(said)
        if not fine:
            raise AssertionError(f"in the forked child:\n{value}")
        return value


def in_fork(function: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Run a function in a forked child and return its value (which must survive pickle)."""
    with Fork(function) as child:
        return child.answer(within_s)


def as_nobody(function: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Run a function in a forked child that gave up root for good."""

    def lowered() -> Any:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return function()

    return in_fork(lowered, within_s)


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """Yield an empty folder of mode 0755 that any user can reach; remove it at the end."""
    path = Path(tempfile.mkdtemp(prefix="heddle-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def flock_holder(path: str | Path, *, shared: bool = False) -> Iterator[Child]:
    """A stranger's process that holds a plain ``flock`` on ``path`` till it is killed."""
    code = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)\n"
        "fcntl.flock(fd, int(sys.argv[2]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with python(code, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX) as child:
        assert child.line() == "held"
        yield child


def locked_elsewhere(path: str | Path, *, shared: bool = False) -> bool:
    """Say whether a stranger who asks now, without waiting, is refused the ``flock``."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False
    finally:
        os.close(fd)


def flock_waiters(path: str | Path) -> list[int]:
    """Return the pids that sleep in ``flock`` on the file, as ``/proc/locks`` has them."""
    inode = str(os.stat(path).st_ino)
    pids = []
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "->" and fields[2] == "FLOCK" and fields[6].rpartition(":")[2] == inode:
            pids.append(int(fields[5]))
    return pids


def notes_of_syncs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note from here on, of each ``fsync`` of this process, whether it was a folder's."""
    real = os.fsync
    synced: list[bool] = []

    def fsync(fd: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(fd).st_mode))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return synced
