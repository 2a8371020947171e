"""Where a user's files lie that may be lost: lists, positions, compiled code."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


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
