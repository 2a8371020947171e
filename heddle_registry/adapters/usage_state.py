"""What was read so far: positions, records by id, and sums, in one derived SQLite file.

Why a database and not a state file per source: a record that two files hold (fork, resume,
archive) must be found by its id whatever file comes first; one appended line must cost a few
look-ups and not the loading of every id; and two readers need one lock. A record takes about 80
bytes, its id hashed to 8. Sums are kept beside the records, so that an unchanged second read
looks at no record at all.

The file may vanish at any time: it is read again. It is trusted only if the last writer's boot is
this one or SQLite finds it whole, because it is written without waiting for the disk. Blocking;
one transaction per `read_usage`; not carried over a fork.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.adapters.atomic_file import folder_mode
from heddle_registry.adapters.position import Position
from heddle_registry.adapters.transcripts import SourceFault
from heddle_registry.adapters.usage_rows import TABLES, RecordTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from heddle_registry.adapters.usage_rows import Rank

STATE_FILE: Final = "usage.sqlite"
SCHEMA: Final = 1
_BUSY_S: Final = 60.0

_TABLES: Final = (
    """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE source (
    source INTEGER PRIMARY KEY, harness TEXT, path TEXT, stamp TEXT, began REAL, born INTEGER,
    position TEXT, memory TEXT, faults TEXT, UNIQUE (harness, path));
"""
    + TABLES
)


@attrs.define
class KnownSource:
    """A source's row: what the last read left, changed in place by the next."""

    source: int
    began: float
    born: int
    position: Position | None
    memory: dict[str, Any]
    faults: list[SourceFault]

    def rank(self, path: str) -> Rank:
        """Return the key by which the first of several claimants of a record is found."""
        return self.began, self.born, path


class UsageState:
    """The open state. Use `begin`, then the rest, then `commit`.

    Everything raises sqlite3.Error where the file is damaged, full or not to be written.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        if path is not None and os.path.islink(path):
            # Cloned with a repository, it would have the tables of somebody's database dropped.
            raise sqlite3.OperationalError("a link stands in the state's place")
        self._db = sqlite3.connect(
            ":memory:" if path is None else path, timeout=_BUSY_S, isolation_level=None
        )
        self.records = RecordTable(self._db)

    def begin(self) -> None:
        """Take the write lock, and make or check the tables."""
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA cache_size=-16000")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
        except sqlite3.OperationalError:
            meta = {}
        boot = _boot_id()
        if meta.get("schema") == str(SCHEMA) and (meta.get("boot") == boot or self._is_whole()):
            if meta["boot"] != boot:
                self._db.execute("UPDATE meta SET value = ? WHERE key = 'boot'", (boot,))
            return
        if self.path is not None:
            with suppress(OSError):  # another user's, in a shared folder
                os.chmod(self.path, folder_mode(os.stat(os.path.dirname(self.path))))
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
        for (table,) in self._db.execute(tables).fetchall():
            self._db.execute(f"DROP TABLE {table}")
        for statement in _TABLES.split(";"):
            self._db.execute(statement)
        self._db.executemany(
            "INSERT INTO meta VALUES (?, ?)", [("schema", str(SCHEMA)), ("boot", boot)]
        )

    def _is_whole(self) -> bool:
        checked = self._db.execute("PRAGMA quick_check(1)").fetchone()
        return checked == ("ok",) and self.records.sums_agree()

    def commit(self) -> None:
        """Keep what was read."""
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file; an open transaction is rolled back."""
        self._db.close()

    def savepoint(self) -> None:
        """Begin a part that `rollback` can take back alone."""
        self._db.execute("SAVEPOINT part")

    def release(self) -> None:
        """End that part and keep it."""
        self._db.execute("RELEASE part")
        self.records.keep_sums()

    def rollback(self) -> None:
        """Take back all since `savepoint`."""
        self._db.execute("ROLLBACK TO part")
        self._db.execute("RELEASE part")
        self.records.forget_cache()

    # -- sources

    def stamps(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, str]]:
        """Return number and stamp of those sources that are known; "" stands for a faulty one."""
        found: dict[tuple[str, str], tuple[int, str]] = {}
        if self._db.execute("SELECT 1 FROM source LIMIT 1").fetchone() is None:
            return found
        for harness, path in wanted:
            row = self._db.execute(
                "SELECT source, iif(faults = '[]', stamp, '') FROM source"
                " WHERE harness = ? AND path = ?",
                (harness, path),
            ).fetchone()
            if row is not None:
                found[harness, path] = row
        return found

    def sources_of(self, actors: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
        """Return ``(harness, path)`` of the sources that hold each actor; needs no `begin`."""
        query = (
            "SELECT source.harness, path FROM actor JOIN holds USING (actor)"
            " JOIN source USING (source) WHERE key = ? ORDER BY source"
        )
        found = {key: self._db.execute(query, (key,)).fetchall() for key in actors}
        return {key: rows for key, rows in found.items() if rows}

    def source(self, harness: str, path: str) -> KnownSource | None:
        """Return what is known of a source."""
        row = self._db.execute(
            "SELECT source, began, born, position, memory, faults, stamp FROM source"
            " WHERE harness = ? AND path = ?",
            (harness, path),
        ).fetchone()
        if row is None:
            return None
        position = None
        if row[3]:
            device, inode, size, mtime_ns, ctime_ns, *log = map(int, row[6].split())
            offset, check, skipping, whole = row[3].split(" ")
            position = Position(
                device=device,
                inode=inode,
                size=size,
                mtime_ns=mtime_ns,
                ctime_ns=ctime_ns,
                companion=(log[0], log[1]) if log else (0, 0),
                offset=int(offset),
                check=check,
                skipping=skipping == "1",
                whole=whole == "1",
            )
        return KnownSource(
            source=row[0],
            began=row[1],
            born=row[2],
            position=position,
            memory=json.loads(row[4]),
            faults=[SourceFault(path=path, **fault) for fault in json.loads(row[5])],
        )

    def add_source(self, harness: str, path: str, born: int) -> KnownSource:
        """Make a row for a source that is read for the first time."""
        cursor = self._db.execute(
            "INSERT INTO source VALUES (NULL, ?, ?, '', 0, ?, NULL, '{}', '[]')",
            (harness, path, born),
        )
        return KnownSource(
            source=int(cursor.lastrowid or 0),
            began=0.0,
            born=born,
            position=None,
            memory={},
            faults=[],
        )

    def save_source(self, known: KnownSource) -> None:
        """Write a source's row back."""
        at = known.position
        self._db.execute(
            "UPDATE source SET stamp = ?, began = ?, position = ?, memory = ?, faults = ?"
            " WHERE source = ?",
            (
                "" if at is None else at.stamp,
                known.began,
                None if at is None else f"{at.offset} {at.check} {at.skipping:d} {at.whole:d}",
                json.dumps(known.memory) if known.memory else "{}",
                json.dumps([{"code": one.code, "detail": one.detail} for one in known.faults])
                if known.faults
                else "[]",
                known.source,
            ),
        )

    def forget(self, known: KnownSource) -> list[tuple[str, str]]:
        """Drop all that a source gave, as if it was never read.

        Return ``(harness, path)`` of those that must be read again with it: see `RecordTable`.
        """
        document = known.position is not None and known.position.whole
        others = self.records.forget(known.source, document=document)
        again = []
        for source in (known.source, *others):
            self._db.execute(
                "UPDATE source SET stamp = '', position = NULL, memory = '{}', faults = '[]',"
                " began = 0 WHERE source = ?",
                (source,),
            )
            again += self._db.execute(
                "SELECT harness, path FROM source WHERE source = ?", (source,)
            ).fetchall()
        known.position, known.memory, known.faults, known.began = None, {}, [], 0.0
        return again[1:]


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def remove_state(path: str) -> None:
    """Remove a damaged state file; the next read makes it anew."""
    for name in (path, path + "-journal"):
        try:
            os.unlink(name)
        except FileNotFoundError:
            continue
