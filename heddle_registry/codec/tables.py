"""One declaration of a record's keys, from which both directions follow.

A `Table` lists the keys of one TOML table in the order in which they are written. Reading collects
every problem instead of stopping at the first; a key that is not listed goes to the record's
``unknown`` and is written back behind the listed ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from heddle_registry.codec.document import shown, why_unreasonable
from heddle_registry.codec.toml_text import (
    f32_text,
    key_text,
    seconds_text,
    string_text,
    strings_text,
    write_loose_lines,
    write_loose_tables,
)
from heddle_registry.core.timestamp import Timestamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum

R = TypeVar("R")

I64_MIN: Final = -(2**63)
I64_MAX: Final = 2**63 - 1
U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1
_MAX_KEY_SHOWN: Final = 80


class Field:
    """A key whose value stands on its own line.

    ``read`` turns the TOML value into the record's and raises ValueError with the reason why it
    cannot; ``write`` spells the record's value. A value that is None or equals ``omit`` is left
    out of the file.
    """

    __slots__ = ("key", "omit", "read", "required", "write")

    def __init__(
        self,
        key: str,
        read: Callable[[Any], Any],
        write: Callable[[Any], str],
        *,
        required: bool = False,
        omit: object = None,
    ) -> None:
        self.key = key
        self.read = read
        self.write = write
        self.required = required
        self.omit = omit


class SubTable:
    """A key that is a table of its own, ``[key]``."""

    __slots__ = ("attribute", "key", "required", "table")

    def __init__(
        self, key: str, table: Table[Any], *, attribute: str = "", required: bool = False
    ) -> None:
        self.key = key
        self.attribute = attribute or key
        self.table = table
        self.required = required

    def read(self, value: Any, at: str, problems: list[str]) -> Any:
        """Return the record in ``value``; None after adding to ``problems``."""
        if type(value) is not dict:
            problems.append(f"{at}: must be a table, not {shown(value)}")
            return None
        return self.table.read(value, f"{at}.", problems)

    def write(self, value: Any, path: str, out: list[str]) -> None:
        """Append the table with its header."""
        name = path + self.key
        out.append(f"\n[{name}]\n")
        self.table.write(value, f"{name}.", out)


class TableArray:
    """A key that is an array of tables, ``[[key]]``, read as a tuple.

    An empty one is left out, or with ``keep_empty`` stands as ``key = []`` among the plain keys.
    """

    __slots__ = ("attribute", "keep_empty", "key", "required", "table")

    def __init__(self, key: str, table: Table[Any], *, keep_empty: bool = False) -> None:
        self.key = key
        self.attribute = key
        self.table = table
        self.required = False
        self.keep_empty = keep_empty

    def read(self, value: Any, at: str, problems: list[str]) -> Any:
        """Return the records in ``value``; what is missing there is in ``problems``."""
        if type(value) is not list:
            problems.append(f"{at}: must be an array of tables, not {shown(value)}")
            return None
        records: list[Any] = []
        for index, item in enumerate(value):
            if type(item) is dict:
                records.append(self.table.read(item, f"{at}[{index}].", problems))
            else:
                problems.append(f"{at}[{index}]: must be a table, not {shown(item)}")
        return tuple(records)

    def write(self, value: Any, path: str, out: list[str]) -> None:
        """Append each table with its header."""
        name = path + self.key
        for record in value:
            out.append(f"\n[[{name}]]\n")
            self.table.write(record, f"{name}.", out)


AnyField = Field | SubTable | TableArray


class Table(Generic[R]):
    """The keys of one TOML table, and the record that they make.

    ``record`` is called with what was read, by keyword, and must have an attribute ``unknown``.
    """

    __slots__ = ("_fields", "_lines", "_record", "_required", "_tables", "_texts")

    def __init__(self, record: Callable[..., R], *fields: AnyField) -> None:
        self._record = record
        self._fields = fields
        self._required = frozenset(field.key for field in fields if field.required)
        self._lines = {field.key: field for field in fields if isinstance(field, Field)}
        self._tables = {field.key: field for field in fields if not isinstance(field, Field)}
        # Most keys are plain text: they take the short way through `read`. What follows is the
        # declaration's own key, not the equal one of the document: Python matches keyword
        # arguments by identity first, which saves 5 us on an entry.
        self._texts = {key: key for key, field in self._lines.items() if field.read is _read_text}

    def read(self, source: dict[str, Any], at: str, problems: list[str]) -> R | None:
        """Return the record in ``source``; None once ``problems`` holds anything.

        :param at: what stands before the key in a problem: ``""``, ``usage_summary.``.
        """
        values: dict[str, Any] = {}
        unknown: dict[str, Any] = {}
        texts, lines = self._texts, self._lines
        for key, value in source.items():
            if type(value) is str and (own_key := texts.get(key)) is not None:
                values[own_key] = value
            elif key in lines:
                line = lines[key]
                try:
                    values[line.key] = line.read(value)
                except ValueError as error:
                    problems.append(f"{at}{key}: {error}")
            elif key in self._tables:
                table = self._tables[key]
                values[table.attribute] = table.read(value, f"{at}{key}", problems)
            else:
                unknown[key] = value
                if isinstance(value, dict | list | int) and (why := why_unreasonable(value)):
                    problems.append(f"{at}{_key_shown(key)}: {why}")
        if not self._required <= source.keys():
            problems += [
                f"{at}{field.key}: missing"
                for field in self._fields
                if field.required and field.key not in source
            ]
        if problems:
            return None
        if unknown:
            values["unknown"] = unknown
        return self._record(**values)

    def _lists(self, key: str) -> bool:
        return key in self._lines or key in self._tables

    def write(self, record: R, path: str, out: list[str]) -> None:
        """Append the lines of ``record``, then its tables.

        :param path: what stands before a table's name in its header: ``""``, ``holder.``.
        :raises UsageError: an unknown key holds what TOML cannot say.
        """
        tables: list[tuple[SubTable | TableArray, Any]] = []
        for field in self._fields:
            if isinstance(field, Field):
                value = getattr(record, field.key)
                if value is not None and value != field.omit:
                    out.append(f"{field.key} = {field.write(value)}\n")
                continue
            value = getattr(record, field.attribute)
            if value is None:
                continue
            if isinstance(field, SubTable) or value:
                tables.append((field, value))
            elif field.keep_empty:
                out.append(f"{field.key} = []\n")
        unknown: dict[str, Any] = record.unknown  # type: ignore[attr-defined]
        if not unknown:
            for table, value in tables:
                table.write(value, path, out)
            return
        # A known key among them would make the file unreadable: TOML allows each key once.
        loose = {key: value for key, value in unknown.items() if not self._lists(key)}
        loose_tables = write_loose_lines(loose, out)
        for table, value in tables:
            table.write(value, path, out)
        write_loose_tables(loose_tables, path, out)


def _key_shown(key: str) -> str:
    return shown(key) if len(key) > _MAX_KEY_SHOWN else key_text(key)


# --- the kinds of plain keys ---


def _read_text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"must be a string, not {shown(value)}")
    return value


def _read_texts(value: Any) -> tuple[str, ...]:
    if type(value) is not list:
        raise ValueError(f"must be an array of strings, not {shown(value)}")
    for index, item in enumerate(value):
        if type(item) is not str:
            raise ValueError(f"element {index} must be a string, not {shown(item)}")
    return tuple(value)


def _read_time(value: Any) -> Timestamp:
    if type(value) is not str:
        raise ValueError(f"must be an RFC 3339 time in a string, not {shown(value)}")
    try:
        return Timestamp.read(value)
    except ValueError:
        raise ValueError(f"must be an RFC 3339 time, not {shown(value)}") from None


def _write_time(value: Timestamp) -> str:
    return string_text(value.text)


def _read_f32(value: Any) -> float:
    if type(value) is float and value == value:  # noqa: PLR0124 (NaN)
        return value
    if type(value) is int and I64_MIN <= value <= I64_MAX:
        return float(value)
    raise ValueError(f"must be a number, not {shown(value)}")


def _read_seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= I64_MAX:
        raise ValueError(f"must be a number of seconds, not {shown(value)}")
    return float(value)


def text(key: str, *, required: bool = False, omit: str | None = None) -> Field:
    """Declare a string."""
    return Field(key, _read_text, string_text, required=required, omit=omit)


def texts(key: str, *, omit: tuple[str, ...] | None = None) -> Field:
    """Declare an array of strings."""
    return Field(key, _read_texts, strings_text, omit=omit)


def time(key: str, *, required: bool = False) -> Field:
    """Declare an instant: RFC 3339 in a string, whose digits are kept."""
    return Field(key, _read_time, _write_time, required=required)


def integer(key: str, least: int, most: int, *, required: bool = False) -> Field:
    """Declare an integer from ``least`` to ``most``."""

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be an integer from {least} to {most}, not {shown(value)}")
        return value

    return Field(key, read, str, required=required)


def f32(key: str) -> Field:
    """Declare a 32-bit float."""
    return Field(key, _read_f32, f32_text)


def seconds(key: str) -> Field:
    """Declare a duration in seconds, whole or not."""
    return Field(key, _read_seconds, seconds_text)


def word(key: str, words: type[StrEnum], *, required: bool = False) -> Field:
    """Declare a string out of a fixed list."""
    members = {member.value: member for member in words}

    def read(value: Any) -> StrEnum:
        found = members.get(value) if type(value) is str else None
        if found is None:
            raise ValueError(f"must be one of {', '.join(members)}, not {shown(value)}")
        return found

    return Field(key, read, string_text, required=required)
