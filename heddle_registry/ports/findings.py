"""What was found wrong: a file that is no record, and anything else about a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Problem(Record):
    """A file that is no readable record: a stable ``code``, a ``message`` for people."""

    path: str
    code: str
    message: str
    thread: str | None = None
    is_claim: bool = False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Check(Record):
    """One finding about a store: ``status`` is ok, warn or bad, ``fix`` what would mend it.

    ``repair`` does what ``fix`` says, where a program can, and returns what came of it; it looks
    again before it changes anything, and raises a `RegistryError` where it cannot.
    """

    name: str
    status: str
    detail: str
    fix: str = ""
    repair: Callable[[], str] | None = attrs.field(default=None, eq=False, repr=False)
