"""The spelling of generated session ids. The random bytes come from outside."""

from __future__ import annotations

from typing import Final

RANDOM_BYTES: Final = 12
"""96 bits: two of a million sessions share an id with a chance below 1e-17."""
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"


def encode_session_id(random_bytes: bytes) -> str:
    """Return ``agent-`` and RFC 4648 base32 of 12 random bytes: lower case, no padding.

    :raises ValueError: not exactly 12 bytes.
    """
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a session id is made of {RANDOM_BYTES} bytes, not {len(random_bytes)}")
    # 96 bits are 19 letters of five and one bit; four zeros fill the last. base64 costs its import.
    bits = int.from_bytes(random_bytes, "big") << 4
    return "agent-" + "".join(_LETTERS[bits >> shift & 31] for shift in range(95, -1, -5))
