"""The one way from bytes to a record and back, with everything that can be wrong on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from heddle_registry.codec.document import NotToml, parse_document
from heddle_registry.core.entry import SCHEMA
from heddle_registry.core.limits import MAX_ENTRY_BYTES
from heddle_registry.errors import RecordCorrupt, StoreUnavailable, UsageError

if TYPE_CHECKING:
    from heddle_registry.codec.tables import Table

R = TypeVar("R")

_NOT_TOML: Final = "file: "
_MOST_PROBLEMS: Final = 100
"""A hostile file may hold half a million; an error message may not."""


def read_record(table: Table[R], data: bytes, path: str, own_table: str) -> R:
    """Return the record in ``data``.

    :param path: the file's name, for errors.
    :param own_table: the key of the TOML table that is ours alone and has a ``schema``; ``""``
        where that is the whole file.
    :raises RecordCorrupt: ``data`` is no such record; every problem is listed with its key.
    :raises StoreUnavailable: a newer program wrote it, and its part cannot be understood here.
    """
    try:
        document = parse_document(data)
    except NotToml as error:
        raise RecordCorrupt(path, [f"{_NOT_TOML}{error}"]) from None
    problems: list[str] = []
    record = table.read(document, "", problems)
    if record is not None:
        return record
    schema = _schema_of(document.get(own_table) if own_table else document)
    if schema > SCHEMA and all(line.startswith(own_table) for line in problems):
        raise StoreUnavailable(
            path,
            f"written by a newer heddle-registry (schema {schema}, this one knows {SCHEMA})",
            "Upgrade heddle-registry here",
        )
    left_out = len(problems) - _MOST_PROBLEMS
    if left_out > 0:
        problems[_MOST_PROBLEMS:] = [f"and {left_out} more"]
    raise RecordCorrupt(path, problems)


def _schema_of(own: Any) -> int:
    schema = own.get("schema") if isinstance(own, dict) else None
    return schema if type(schema) is int else SCHEMA


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
