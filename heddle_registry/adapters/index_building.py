"""Making a lost index anew, beside whatever is left of the old one."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Final

from heddle_registry.adapters.atomic_file import folder_mode
from heddle_registry.adapters.index_rows import RealPaths
from heddle_registry.adapters.index_tables import (
    INDEXES,
    PUT_ENTRY,
    TABLES,
    VERSION,
    YOUNG_INDEX,
    file_values,
    open_database,
    put_claim_file,
    quoted,
    tick_of,
    unlink_quietly,
)
from heddle_registry.adapters.record_files import is_closed
from heddle_registry.adapters.sqlite_forks import inside
from heddle_registry.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from heddle_registry.adapters.layout import Layout
    from heddle_registry.adapters.record_files import RecordFile, RecordFiles
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry

    R = TypeVar("R")

_ROWS_AT_ONCE: Final = 500


def build_index(
    layout: Layout,
    agents: RecordFiles[AgentEntry],
    claims: RecordFiles[Claim],
    boot_id: str,
    tell: Callable[[int, int], None],
) -> str | None:
    """Write a new index of these folders beside the old one; its path, None if that failed.

    Needs no lock on the store, only that nobody else builds one. It is trusted by nobody until
    `Index.adopt` has put it in place and it has caught up. Takes the memory of a few hundred
    entries.

    :param tell: called now and then with how many entries are in it, and how many there are
    """
    fresh = layout.index + ".building"
    unlink_quietly(fresh)
    try:
        with inside():
            connection = open_database(f"file:{quoted(fresh)}?mode=rwc")
    except sqlite3.Error:
        return None
    try:
        with inside():
            connection.executescript(TABLES)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("BEGIN")
        # In the order of the keys, and the indexes afterwards: each page is written once.
        names = agents.names()
        row = partial(file_values, real=RealPaths())
        for start in range(0, len(names), _ROWS_AT_ONCE):
            tell(start, len(names))
            part = agents.read_each(names[start : start + _ROWS_AT_ONCE])
            rows = [*map(row, _readable(part))]
            with inside():
                connection.executemany(PUT_ENTRY, rows)
        for file in _readable(claims.read_each(claims.names())):
            with inside():
                put_claim_file(connection, file)
        for statement in INDEXES.split(";"):
            with inside():
                connection.execute(statement)
        tick_ns = tick_of(fresh)
        with inside():
            if tick_ns:
                connection.execute(YOUNG_INDEX.format(tick_ns=tick_ns))
            # No stamps yet, and those of no folder are none.
            connection.execute("INSERT INTO meta VALUES (?, NULL, NULL, ?)", (boot_id, tick_ns))
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.close()
        os.chmod(fresh, folder_mode(os.stat(layout.root)))
    except (sqlite3.Error, OSError, StoreUnavailable):
        with inside():
            connection.close()
        unlink_quietly(fresh)
        return None
    return fresh


def _readable(files: Iterable[RecordFile[R]]) -> Iterator[RecordFile[R]]:
    for file in files:
        if is_closed(file):
            raise StoreUnavailable(file.path, "it cannot be read")
        yield file
