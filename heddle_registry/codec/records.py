"""The one way from bytes to a record and back, with everything that can be wrong on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from heddle_registry.codec.document import NotToml, parse_document
from heddle_registry.codec.tables import I64_MAX
from heddle_registry.core.entry import SCHEMA
from heddle_registry.core.limits import MAX_ENTRY_BYTES
from heddle_registry.errors import RecordCorrupt, UsageError

if TYPE_CHECKING:
    from heddle_registry.codec.tables import Table

R = TypeVar("R")

_NOT_TOML: Final = "file: "
_MOST_PROBLEMS: Final = 100
"""A hostile file may hold half a million; an error message may not."""


def read_document(data: bytes, path: str) -> dict[str, Any]:
    """Return the TOML document in ``data``, the content of the file ``path``.

    :raises RecordCorrupt: it is none; `is_not_toml` tells that from a wrong record.
    """
    try:
        return parse_document(data)
    except NotToml as error:
        raise RecordCorrupt(path, [f"{_NOT_TOML}{error}"]) from None


def corrupt_record(path: str, problems: list[str]) -> RecordCorrupt:
    """Return the error that lists ``problems``, as far as a message can."""
    left_out = len(problems) - _MOST_PROBLEMS
    if left_out > 0:
        problems = [*problems[:_MOST_PROBLEMS], f"and {left_out} more"]
    return RecordCorrupt(path, problems)


def newer_schema(table: Any) -> int | None:
    """Return the ``schema`` of a TOML table that a newer program wrote; None for any other."""
    schema = table.get("schema") if isinstance(table, dict) else None
    return schema if type(schema) is int and SCHEMA < schema <= I64_MAX else None


def write_record(table: Table[R], record: R, name: str) -> bytes:
    """Return ``record`` as TOML: UTF-8, LF, no BOM, one newline at the end.

    :param name: what to call it in errors.
    :raises UsageError: text that is not UTF-8, a value without a TOML form, or over 1 MiB.
    """
    lines: list[str] = []
    try:
        table.write(record, "", lines)
        data = "".join(lines).encode()
    except UnicodeEncodeError as error:
        wrong = ascii(error.object[max(error.start - 20, 0) : error.end])
        raise UsageError(f"{name} holds text that is not UTF-8: ...{wrong}") from None
    if len(data) > MAX_ENTRY_BYTES:
        raise UsageError(f"{name} has {len(data)} bytes; at most {MAX_ENTRY_BYTES} are allowed")
    return data


def is_not_toml(error: RecordCorrupt) -> bool:
    """Return whether the file was no TOML document at all, rather than a wrong record."""
    return any(problem.startswith(_NOT_TOML) for problem in error.problems)
