"""The spelling of generated session ids. The random bytes come from outside."""

from __future__ import annotations

from base64 import b32encode
from typing import Final

RANDOM_BYTES: Final = 12
"""96 bits: two of a million sessions share an id with a chance below 1e-17."""


def encode_session_id(random_bytes: bytes) -> str:
    """Return ``agent-`` and RFC 4648 base32 of 12 random bytes: lower case, no padding.

    :raises ValueError: not exactly 12 bytes.
    """
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a session id is made of {RANDOM_BYTES} bytes, not {len(random_bytes)}")
    return "agent-" + b32encode(random_bytes).decode("ascii").rstrip("=").lower()
