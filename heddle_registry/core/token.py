"""Reservation tokens: shown once, kept as a salted hash, compared in constant time.

They stop mistakes, not an attacker under the same user (docs/explanation/threat-model.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.core.digest import is_same, sha256_hex
from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_BYTES: Final = 20
SALT_BYTES: Final = 8


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TokenHash(Record):
    """What is kept of a token: hex salt and hex SHA-256 of salt and token."""

    salt: str
    digest: str
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)


def hash_token(token: str, salt: bytes) -> TokenHash:
    """Return the salted hash of ``token``. A fast hash will do: tokens hold 160 random bits."""
    # surrogatepass: an argument that is not UTF-8 arrives as lone surrogates, and is a wrong guess.
    text = token.encode("utf-8", "surrogatepass")
    return TokenHash(salt=salt.hex(), digest=sha256_hex(salt + text))


def token_matches(token: str | None, kept: TokenHash | None) -> bool:
    """Return whether ``token`` is the one kept. Constant time for any guess."""
    if token is None or kept is None:
        return False
    try:
        salt = bytes.fromhex(kept.salt)
    except ValueError:
        return False
    # As bytes: a damaged file may hold a digest that is not ASCII, which compare_digest refuses.
    return is_same(
        hash_token(token, salt).digest.encode(), kept.digest.encode("utf-8", "surrogatepass")
    )
