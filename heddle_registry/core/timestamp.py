"""Instants as the file format writes them, and readings of the two clocks a TTL needs."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

_DAYS_IN_400_YEARS: Final = 146_097
_ORDINAL_OF_EPOCH: Final = date(1970, 1, 1).toordinal()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (of text that is known to end in Z)
_PLAIN_LENGTH: Final = len("2026-07-01T12:00:00Z")
NS_PER_S: Final = 1_000_000_000
_ALL_DIGITS: Final = 9
_NANOS: Final = tuple(10 ** (_ALL_DIGITS - digits) for digits in range(_ALL_DIGITS))
"""What the last of so many digits of a fraction is worth."""


@cache
def _form() -> re.Pattern[str]:
    # What chrono's `DateTime<Utc>` reads: a signed year of four to six digits, `T`, `t` or a space,
    # any number of fraction digits, second 60, and `Z`, `z` or an offset. Made for the first text
    # that is not plain: most commands meet none.
    return re.compile(
        r"([+-]?[0-9]{4,6})-([0-9]{2})-([0-9]{2})[Tt ]"
        r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))",
    )


def _days_since_epoch(year: int, month: int, day: int) -> int:
    # `date` ends at the years 1 and 9999; the calendar repeats every 400 years.
    cycles, year_in_cycle = divmod(year, 400)
    ordinal = date(year_in_cycle + 400, month, day).toordinal()
    return ordinal + (cycles - 1) * _DAYS_IN_400_YEARS - _ORDINAL_OF_EPOCH


def _plain_sort_key(text: str) -> tuple[int, int] | None:
    # The form that nearly every file has, 2026-07-01T12:00:00.123Z, at a third of the cost. None
    # sends anything else, and whatever is wrong, the long way. The separators rule out every
    # other form that `fromisoformat` reads; 24 o'clock it reads from Python 3.13 on.
    shape = text[4:20:3]
    nanos = 0
    if shape == "--T::.":
        fraction = text[20:-1]
        if not (fraction.isdigit() and fraction.isascii()) or text[-1] != "Z":
            return None
        digits = len(fraction)
        nanos = int(fraction) * _NANOS[digits] if digits < _ALL_DIGITS else int(fraction[:9])
    elif shape != "--T::Z" or len(text) != _PLAIN_LENGTH:
        return None
    if text[11:13] == "24":
        return None
    try:
        since_epoch = datetime.fromisoformat(text[:19]) - _NAIVE_EPOCH
    except ValueError:
        return None
    return since_epoch.days * 86_400 + since_epoch.seconds, nanos


def _sort_key(text: str) -> tuple[int, int]:
    plain = _plain_sort_key(text)
    if plain is not None:
        return plain
    found = _form().fullmatch(text)
    if found is None:
        raise ValueError(f"not an RFC 3339 timestamp: {text[:60]!r}")
    year, month, day, hour, minute, second, fraction, sign, off_h, off_m = found.groups()
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60:  # noqa: PLR2004
        raise ValueError(f"no such time of day: {text[:60]!r}")
    try:
        days = _days_since_epoch(int(year), int(month), int(day))
    except ValueError:
        raise ValueError(f"no such day: {text[:60]!r}") from None
    nanos = int((fraction or "0")[:9].ljust(9, "0"))
    seconds = days * 86_400 + int(hour) * 3_600 + int(minute) * 60 + int(second)
    if second == "60":
        # A leap second sorts after its minute's 59th, as in chrono.
        seconds, nanos = seconds - 1, nanos + NS_PER_S
    if sign is not None:
        offset = int(off_h) * 3_600 + int(off_m) * 60
        seconds += offset if sign == "-" else -offset
    return seconds, nanos


@attrs.frozen(eq=False, repr=False)
class Timestamp(Record):
    """An instant that keeps the digits it was read with.

    ``text`` is RFC 3339. Equality compares the text, so that a rewrite which would change only
    the digits is visible; ``<`` compares the instants. Any year chrono can write is accepted.

    :raises ValueError: the text is no timestamp.
    """

    text: str
    sort_key: tuple[int, int] = attrs.field(init=False, eq=False, repr=False)
    """Seconds since 1970 and nanoseconds; the latter reach 2e9 within a leap second."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ValueError(f"not an RFC 3339 timestamp: {self.text!r}")  # noqa: TRY004
        _set_sort_key(self, _sort_key(self.text))

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what ``Timestamp(text)`` does; quicker, for whoever reads thousands.

        :raises ValueError: the text is no timestamp.
        """
        return cls.vouched(text, _plain_sort_key(text) or _sort_key(text))

    @classmethod
    def vouched(cls, text: str, sort_key: tuple[int, int]) -> Self:
        """Return the timestamp of a text whose sort key the caller knows to be this one."""
        timestamp = _new(cls)
        _set_text(timestamp, text)
        _set_sort_key(timestamp, sort_key)
        return timestamp

    @classmethod
    def trusted(cls, text: str) -> Self:
        """Return the timestamp of a text that was read as one before; looked at when compared."""
        timestamp = _new(cls)
        _set_text(timestamp, text)
        return timestamp

    def __getattr__(self, name: str) -> Any:
        # Called only for what is not there: the sort key of a trusted one.
        if name != "sort_key":
            raise AttributeError(f"a Timestamp has no {name!r}")
        key = _sort_key(self.text)
        _set_sort_key(self, key)
        return key

    @classmethod
    def from_unix_ns(cls, unix_ns: int) -> Self:
        """Return the instant ``unix_ns`` nanoseconds after 1970, in the writer's shortest form."""
        seconds, nanos = divmod(unix_ns, NS_PER_S)
        # Not strftime: where glibc does it, years below 1000 lose their zeros.
        whole = (_EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")
        # The original writes 0, 3, 6 or 9 digits, the fewest that are exact.
        if nanos == 0:
            text = f"{whole}Z"
        elif nanos % 1_000_000 == 0:
            text = f"{whole}.{nanos // 1_000_000:03d}Z"
        elif nanos % 1_000 == 0:
            text = f"{whole}.{nanos // 1_000:06d}Z"
        else:
            text = f"{whole}.{nanos:09d}Z"
        return cls.vouched(text, (seconds, nanos))

    @classmethod
    def from_datetime(cls, instant: datetime) -> Self:
        """Return the same instant in UTC.

        :raises ValueError: ``instant`` has no time zone.
        """
        if instant.tzinfo is None:
            raise ValueError(f"{instant!r} has no time zone; use an aware datetime")
        delta = instant - _EPOCH
        return cls.from_unix_ns(
            (delta.days * 86_400 + delta.seconds) * NS_PER_S + delta.microseconds * 1_000,
        )

    @property
    def unix_ns(self) -> int:
        """Nanoseconds since 1970; a leap second counts into the next one."""
        return self.sort_key[0] * NS_PER_S + self.sort_key[1]

    @property
    def datetime(self) -> datetime | None:
        """The instant to the microsecond, or None where ``datetime`` cannot say it.

        That is a leap second, or a year outside 1 to 9999.
        """
        seconds, nanos = self.sort_key
        if nanos >= NS_PER_S:
            return None
        try:
            return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1_000)
        except OverflowError:
            return None

    def __lt__(self, other: Timestamp) -> bool:
        return self.sort_key < other.sort_key

    def __le__(self, other: Timestamp) -> bool:
        return self.sort_key <= other.sort_key

    def __gt__(self, other: Timestamp) -> bool:
        return self.sort_key > other.sort_key

    def __ge__(self, other: Timestamp) -> bool:
        return self.sort_key >= other.sort_key

    def __str__(self) -> str:
        return self.text


# What `object.__setattr__` would look up for each of thousands.
_new: Final = object.__new__
_set_text: Final = Timestamp.__dict__["text"].__set__
_set_sort_key: Final = Timestamp.__dict__["sort_key"].__set__


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Instant(Record):
    """One reading of the wall clock and of the clock that runs only while the host is awake.

    ``awake_ns`` compares only with readings of the same ``boot_id`` and ``time_ns`` (the time
    namespace, ``""`` where there are none).
    """

    at: Timestamp
    awake_ns: int
    boot_id: str
    time_ns: str = ""
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)

    def seconds_since(self, earlier: Instant) -> tuple[float, bool]:
        """Return the seconds from ``earlier`` to this, and whether the wall clock had to tell.

        Neither a suspended laptop nor a stepped clock moves the awake clock; after a reboot or
        from another time namespace there is only the wall clock.
        """
        if self.boot_id and (self.boot_id, self.time_ns) == (earlier.boot_id, earlier.time_ns):
            return (self.awake_ns - earlier.awake_ns) / NS_PER_S, False
        return (self.at.unix_ns - earlier.at.unix_ns) / NS_PER_S, True
