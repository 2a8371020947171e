"""Does ``flock`` exclude anybody here? Tried, not guessed from the file system's name."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import Final

_TRIES: Final = 3
_PATIENCE_S: Final = 10.0
_OTHER_PROCESS: Final = (
    "import fcntl, os, sys\n"
    "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
    "try:\n"
    "    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    "except BlockingIOError:\n"
    "    sys.exit(0)\n"
    "sys.exit(9)\n"
)


def lock_fault(folder: str) -> str | None:
    """Return why ``flock`` cannot be relied on in ``folder``; None where it excludes.

    The folder itself is locked, which nobody else does, so nothing is created and nobody is kept
    waiting. Tried with a second descriptor, and in another process. Takes some 20 ms.
    """
    if os.name == "nt":
        return None
    import fcntl

    first = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    second = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            try:
                fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                continue  # another doctor is at it
            except OSError as error:
                return f"the file system does not lock ({error.strerror})"
        else:
            return None  # somebody was excluded: us
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return f"the file system does not lock ({error.strerror})"
        else:
            return "two descriptors of this process could lock one folder at once"
        command = [sys.executable, "-I", "-S", "-c", _OTHER_PROCESS, folder]
        try:
            tried = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return "two processes could lock one folder at once" if tried.returncode == 9 else None  # noqa: PLR2004
    finally:
        os.close(second)
        os.close(first)
