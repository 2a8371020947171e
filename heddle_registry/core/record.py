"""What every record here is: an attrs class that is compared and shown by its fields.

attrs would write a comparison, a hash and a representation for each class when it is imported. With
forty classes that is a sixth of what a short command takes, so one of each serves them all: records
are ``attrs.frozen(kw_only=True, eq=False, repr=False)`` and a `Record`.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Read = Callable[[object], Any]


class Record:
    """Equal to a record of the same class whose fields are equal; a field may be left out.

    A field says so as for attrs: ``eq=False`` leaves it out of comparison and hash, ``hash=False``
    out of the hash, ``repr=False`` out of what is shown. Comparing never raises.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        compared = _compared.get(self.__class__) or _read_compared(self.__class__)
        return bool(compared(self) == compared(other))

    def __hash__(self) -> int:
        cls = self.__class__
        hashed = _hashed.get(cls) or _read_hashed(cls)
        return hash((cls, hashed(self)))

    def __repr__(self) -> str:
        cls = self.__class__
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in attrs.fields(cls)  # type: ignore[arg-type]  # each record is attrs'
            if field.repr
        )
        return f"{cls.__qualname__.rpartition('>.')[2]}({', '.join(shown)})"


_compared: dict[type, Read] = {}
_hashed: dict[type, Read] = {}


def _read_compared(cls: type) -> Read:
    found = _compared[cls] = _reader(field.name for field in attrs.fields(cls) if field.eq)
    return found


def _read_hashed(cls: type) -> Read:
    found = _hashed[cls] = _reader(
        field.name
        for field in attrs.fields(cls)
        if (field.eq if field.hash is None else field.hash)
    )
    return found


def _reader(names: Iterable[str]) -> Read:
    names = tuple(names)
    return attrgetter(*names) if names else lambda _: ()
