"""Where a user's files lie that may be lost: lists, positions, compiled code."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def cache_folder(environ: Mapping[str, str], home: str) -> str | None:
    """Return our folder for what may be lost; None without a home, for that is nobody's to make.

    Never one below the current directory: a relative path is none, as the XDG specification says.
    """
    if not (os.path.isabs(home) and os.path.isdir(home)):
        return None
    cache = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.join(home, ".cache")
    return os.path.join(cache, "heddle-registry")


def keep_file(path: str, write: Callable[[int], object]) -> None:
    """Put a file in place that may be lost, whole or not at all. What fails is not kept.

    Its folder is made where it is missing, for the user alone.

    :param write: is given the descriptor of the new file, and raises OSError where it cannot write
    """
    part = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        new = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return
    try:
        write(new)
        os.replace(part, path)
    except OSError:
        _unlink(part)
    finally:
        os.close(new)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
