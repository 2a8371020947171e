"""SHA-256 and comparing in constant time, without what ``hashlib`` and ``hmac`` load for them.

``hashlib`` loads OpenSSL, which takes a command longer than anything else here but TOML.
"""

from __future__ import annotations

from _operator import _compare_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _constructor() -> Callable[[bytes], Any]:
    try:
        from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            # Before Python 3.12.
            from _sha256 import sha256  # type: ignore[import-not-found, no-redef, unused-ignore]
        except ImportError:
            from hashlib import sha256
    return sha256  # type: ignore[no-any-return, unused-ignore]


# Once: an import that fails is looked for in every folder of the path, each time.
_sha256 = _constructor()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hex."""
    return str(_sha256(data).hexdigest())


def is_same(one: bytes, other: bytes) -> bool:
    """Return whether both are equal, in a time that does not tell where they differ."""
    return bool(_compare_digest(one, other))
