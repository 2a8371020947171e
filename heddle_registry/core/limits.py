"""What ids, branch names and TTLs may be. Outside of it: a clear error, nothing changed."""

from __future__ import annotations

from typing import Final

from heddle_registry.errors import UsageError

MAX_SESSION_ID: Final = 200
"""Characters. File names end at 255 bytes, and ours carry a suffix."""
MAX_THREAD_BYTES: Final = 1_024
MIN_TTL_S: Final = 1.0
MAX_TTL_S: Final = 30 * 86_400.0
DEFAULT_TTL_S: Final = 300.0
MAX_ENTRY_BYTES: Final = 1_048_576
MAX_KEPT_QUERIES: Final = 100
"""Context queries that stay in the entry; older ones go to ``queries/<id>.jsonl``."""
MAX_SWEEP: Final = 16
"""Dead entries abandoned, and stale ones pruned, by one reservation."""
MAX_ID_TRIES: Final = 8

_ID_ALPHABET: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def is_session_id(text: str) -> bool:
    """Return whether ``text`` may be a session id: 1 to 200 of ``[a-z0-9-]``."""
    return 0 < len(text) <= MAX_SESSION_ID and _ID_ALPHABET.issuperset(text)


def check_session_id(text: str) -> str:
    """Return ``text`` if it may be a session id.

    The alphabet makes a path out of the folder impossible: it can form neither ``..`` nor ``/``.

    :raises UsageError: it may not.
    """
    if not isinstance(text, str) or not is_session_id(text):
        shown = repr(text) if len(repr(text)) <= 80 else repr(text)[:77] + "..."  # noqa: PLR2004
        raise UsageError(
            f"{shown} is no session id",
            f"Use 1 to {MAX_SESSION_ID} of the characters a-z, 0-9 and -",
        )
    return text


def check_thread(thread: str) -> str:
    """Return ``thread`` if it may name a branch.

    :raises UsageError: it is empty, too long, not UTF-8, or holds a control character.
    """
    if not isinstance(thread, str) or not thread:
        raise UsageError("a branch name is missing", "Name the branch, for example feature/login")
    try:
        size = len(thread.encode())
    except UnicodeEncodeError:
        raise UsageError(f"the branch name {thread!a} is not UTF-8") from None
    if size > MAX_THREAD_BYTES:
        raise UsageError(
            f"the branch name {thread[:20]!r}... has {size} bytes",
            f"At most {MAX_THREAD_BYTES} are allowed",
        )
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in thread):  # noqa: PLR2004
        raise UsageError(f"the branch name {thread!r} holds a control character")
    return thread


def check_ttl(ttl_s: float) -> float:
    """Return ``ttl_s`` as a float if it may be a TTL in seconds.

    :raises UsageError: it is not a number from 1 s to 30 days.
    """
    hint = "Give seconds, from 1 to 2592000 (30 days)"
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float):
        raise UsageError(f"{ttl_s!r} is no TTL", hint)
    # Compared before anything makes a float of it: an integer may be too large for one. NaN is
    # outside too.
    if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        shown = "that many seconds" if abs(ttl_s) > MAX_TTL_S * MAX_TTL_S else f"{ttl_s:g} s"
        raise UsageError(f"a TTL of {shown} is not allowed", hint)
    return float(ttl_s)
