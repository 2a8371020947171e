"""What an ``OSError`` from the store's folders means, and what the user can do about it.

One place for the sentences, because the lock, the durable replace and the store meet the same
causes. Imported only once something has failed.
"""

from __future__ import annotations

import errno
import os

from heddle_registry.errors import StoreUnavailable

_CAUSES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "Free some space on this file system, then try again"),
    errno.EDQUOT: ("your disk quota is used up", "Free some space or ask for a larger quota"),
    errno.EROFS: (
        "the file system is read-only",
        "Mount it writable, or keep the registry elsewhere (--heddle-dir)",
    ),
    errno.EIO: (
        "the disk reported an input/output error",
        "Look at the system log: the disk or the network behind this folder is failing",
    ),
    errno.ENOENT: ("no such file or folder", "Somebody may have removed it; try again"),
    errno.EXDEV: (
        "the folder of temporary files lies on another file system",
        "Keep the whole registry folder on one file system",
    ),
    errno.ELOOP: (
        "it is a symbolic link, which is never followed here",
        "Remove the link and try again",
    ),
    errno.EISDIR: ("it is a folder where a file belongs", "Move it away and try again"),
    errno.ENOTDIR: ("a file stands where a folder belongs", "Move it away and try again"),
    errno.EMFILE: ("this process has too many files open", "Raise `ulimit -n`, or close some"),
    errno.ENFILE: ("the system has too many files open", "Close some programs and try again"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", ""),
    errno.ESTALE: ("the network file system lost track of it", "Try again"),
}


def cause(error: OSError) -> str:
    """Say in a few words why ``error`` happened."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission"
    known = _CAUSES.get(error.errno or 0)
    return known[0] if known else (error.strerror or str(error))


def unavailable(path: str, error: OSError, doing: str) -> StoreUnavailable:
    """Return the error for a change to ``path`` that failed before anything became visible.

    ``doing`` is a phrase such as ``"write a temporary file"``. For a missing permission the hint
    names the owner of the nearest existing folder, which is what the user needs to know next.
    """
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = _permission_hint(path)
    else:
        hint = _CAUSES.get(error.errno or 0, ("", ""))[1]
    return StoreUnavailable(path, f"could not {doing}: {cause(error)}", hint, error.errno)


def _permission_hint(path: str) -> str:
    place = path
    while True:
        try:
            state = os.stat(place, follow_symlinks=False)
        except OSError:
            parent = os.path.dirname(place)
            if parent == place:
                return "Ask the folder's owner for permission"
            place = parent
            continue
        break
    if not hasattr(os, "geteuid"):
        return f"Check the permissions of {place}"
    return (
        f"{place} belongs to {_user_name(state.st_uid)} (mode {state.st_mode & 0o7777:04o}) and "
        f"you are {_user_name(os.geteuid())}; ask its owner for permission, or keep the "
        "registry elsewhere (--heddle-dir)"
    )


def _user_name(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"user {uid}"
