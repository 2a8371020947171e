"""What was read so far: positions, records by id, and sums, in one derived SQLite file.

Why a database and not a state file per source: a record that two files hold (fork, resume,
archive) must be found by its id whatever file comes first; one appended line must cost a few
look-ups and not the loading of every id; and two readers need one lock. A record takes about 80
bytes, its id hashed to 8. Sums are kept beside the records, so that an unchanged second read
looks at no record at all, and the last answer beside the sums, so that it looks at few rows.

The file may vanish at any time: it is read again. It is trusted only if the last writer's boot is
this one or SQLite finds it whole, because it is written without waiting for the disk. Blocking;
one transaction per `read_usage`; not carried over a fork.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from heddle_registry.adapters import usage_names, usage_rows
from heddle_registry.adapters.atomic_file import folder_mode
from heddle_registry.adapters.json_parser import json_parser, json_text
from heddle_registry.adapters.position import Position, position_of
from heddle_registry.adapters.procfs import Procfs
from heddle_registry.adapters.transcripts import SourceFault
from heddle_registry.adapters.usage_names import is_worth_all
from heddle_registry.adapters.usage_rows import RecordTable
from heddle_registry.core.usage import UsageGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from heddle_registry.adapters.usage_rows import ActorGroups, Rank

STATE_FILE: Final = "usage.sqlite"
SCHEMA: Final = 2
BATCH_SOURCES: Final = 5_000
_BUSY_S: Final = 60.0

_TABLES: Final = (
    """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE source (
    source INTEGER PRIMARY KEY, harness TEXT, path TEXT, stamp BLOB, began REAL, born INTEGER,
    position TEXT, memory TEXT, faults TEXT, UNIQUE (harness, path));
CREATE TABLE answer (asked BLOB, found BLOB);
"""
    + usage_names.TABLES
    + usage_rows.TABLES
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
    is_new: bool = attrs.field(default=False, eq=False)
    """It has no row yet."""

    def rank(self, path: str) -> Rank:
        """Return the key by which the first of several claimants of a record is found."""
        return self.began, self.born, path


class KeptAnswer(NamedTuple):
    """What a read found whose files were not touched since."""

    sources: list[int]
    """Their numbers, in the order in which they were asked for."""
    found: list[ActorGroups]
    faults: list[SourceFault]


class UsageState:
    """The open state. Use `begin`, then the rest, then `commit`.

    What is read is kept in parts, each ended by `release` or `rollback`.

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
        self._changes = self._next_source = 0
        self._new_sources: list[tuple[Any, ...]] = []

    def begin(self) -> None:
        """Take the write lock, and make or check the tables."""
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA cache_size=-16000")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
        except sqlite3.OperationalError:
            meta = {}
        boot = Procfs().boot_id()
        if meta.get("schema") == str(SCHEMA) and (meta.get("boot") == boot or self._is_whole()):
            if meta["boot"] == boot:
                self._changes = self._db.total_changes
            else:
                self._db.execute("UPDATE meta SET value = ? WHERE key = 'boot'", (boot,))
                self._db.execute("DELETE FROM answer")
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

    def commit(
        self,
        asked: bytes = b"",
        sources: Iterable[int] = (),
        found: Iterable[ActorGroups] = (),
        faults: Iterable[SourceFault] = (),
    ) -> None:
        """Keep what was read, and what was found in all of these sources, for `answer`.

        It is kept only where something is written anyway; whatever changes ends an earlier one.
        """
        self._write_sources()
        self.records.write_sums()
        if self._db.total_changes != self._changes:
            self._db.execute("DELETE FROM answer")
            if asked and self.path is not None:
                told = [(*actor, [[*group] for group in groups]) for *actor, groups in found]
                failed = [(one.path, one.code, one.detail) for one in faults]
                answer = json_text((list(sources), told, failed)).encode()
                self._db.execute("INSERT INTO answer VALUES (?, ?)", (asked, answer))
        self._db.execute("COMMIT")

    def answer(self, asked: bytes) -> KeptAnswer | None:
        """Return what was found before, if that was asked and nothing changed."""
        if not asked:
            return None
        query = "SELECT found FROM answer WHERE asked = ?"
        row = self._db.execute(query, (asked,)).fetchone()
        return None if row is None else _answer_of(row[0])

    def close(self) -> None:
        """Close the file; an open transaction is rolled back."""
        self._db.close()

    def release(self) -> None:
        """End a part of the reading, mostly a source, and keep it."""
        self.records.release()

    def rollback(self) -> None:
        """Take back what was joined since the last `release`."""
        self._write_sources()
        self.records.rollback()

    # -- sources

    def stamps(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, bytes]]:
        """Return number and stamp of those sources that are known; of a faulty one no stamp.

        Where most are wanted, of the others too.
        """
        query = "SELECT source, iif(faults = '[]', stamp, x''), harness, path FROM source"
        asked = [*wanted]
        (most,) = self._db.execute("SELECT max(source) FROM source").fetchone()
        if most is None:
            return {}
        if is_worth_all(asked, most):
            rows = self._db.execute(query).fetchall()
        else:
            one = query + " WHERE harness = ? AND path = ?"
            rows = [row for named in asked for row in self._db.execute(one, named)]
        return {(harness, path): (number, stamp) for number, stamp, harness, path in rows}

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
        self._write_sources()
        row = self._db.execute(
            "SELECT source, began, born, position, memory, faults, stamp FROM source"
            " WHERE harness = ? AND path = ?",
            (harness, path),
        ).fetchone()
        if row is None:
            return None
        position = None
        if row[3]:
            offset, check, skipping, whole = row[3].split(" ")
            position = position_of(row[6])._replace(
                offset=int(offset), check=check, skipping=skipping == "1", whole=whole == "1"
            )
        return KnownSource(
            source=row[0],
            began=row[1],
            born=row[2],
            position=position,
            memory=json.loads(row[4]),
            faults=[SourceFault(path=path, **fault) for fault in json.loads(row[5])],
        )

    def add_source(self, born: int) -> KnownSource:
        """Return what `save_source` keeps of a source that is read for the first time."""
        if not self._next_source:
            (most,) = self._db.execute("SELECT max(source) FROM source").fetchone()
            self._next_source = (most or 0) + 1
        known = KnownSource(
            source=self._next_source,
            began=0.0,
            born=born,
            position=None,
            memory={},
            faults=[],
            is_new=True,
        )
        self._next_source += 1
        return known

    def save_source(self, harness: str, path: str, known: KnownSource) -> None:
        """Write a source's row."""
        # What a plugin left is the one thing here that may fail, at the cost of its source.
        memory = json_text(known.memory) if known.memory else "{}"
        kept = known.position, known.began, memory, known.faults, known.source
        if known.is_new:
            known.is_new = False
            self._new_sources.append((*kept, harness, path, known.born))
            if len(self._new_sources) >= BATCH_SOURCES:
                self._write_sources()
        else:
            self._db.execute(
                "UPDATE source SET stamp = ?, position = ?, began = ?, memory = ?, faults = ?"
                " WHERE source = ?",
                _row(*kept),
            )

    def _write_sources(self) -> None:
        if not self._new_sources:  # even for none, a statement is prepared
            return
        self._db.executemany(
            "INSERT INTO source (stamp, position, began, memory, faults, source, harness, path,"
            " born) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row(*kept) for kept in self._new_sources],
        )
        self._new_sources.clear()

    def forget(self, known: KnownSource) -> list[tuple[str, str]]:
        """Drop all that a source gave, as if it was never read.

        Return ``(harness, path)`` of those that must be read again with it: see `RecordTable`.
        """
        self._write_sources()
        document = known.position is not None and known.position.whole
        others = self.records.forget(known.source, document=document)
        again = []
        for source in (known.source, *others):
            self._db.execute(
                "UPDATE source SET stamp = x'', position = NULL, memory = '{}', faults = '[]',"
                " began = 0 WHERE source = ?",
                (source,),
            )
            again += self._db.execute(
                "SELECT harness, path FROM source WHERE source = ?", (source,)
            ).fetchall()
        known.position, known.memory, known.faults, known.began = None, {}, [], 0.0
        return again[1:]


def _answer_of(text: bytes) -> KeptAnswer | None:
    """Return what was kept as text; None where another version, or the disk, made it other."""
    parser = json_parser()
    errors: tuple[type[Exception], ...] = (*parser.errors, TypeError)
    try:
        sources, told, failed = parser.parse(text)
        found: list[ActorGroups] = [
            (key, harness, parent, held_by, [*map(_group_of, groups)])
            for key, harness, parent, held_by, groups in told
        ]
        faults = [SourceFault(path=path, code=code, detail=what) for path, code, what in failed]
    except errors:
        return None
    return KeptAnswer(sources, found, faults)


def _group_of(fields: list[Any]) -> UsageGroup:
    if len(fields) != len(UsageGroup._fields):
        raise ValueError("this is no group")
    group: UsageGroup = tuple.__new__(UsageGroup, fields)
    return group


def _row(
    at: Position | None, began: float, memory: str, faults: list[SourceFault], *rest: Any
) -> tuple[Any, ...]:
    return (
        b"" if at is None else at.stamp,
        None if at is None else f"{at.offset} {at.check} {at.skipping:d} {at.whole:d}",
        began,
        memory,
        json.dumps([{"code": one.code, "detail": one.detail} for one in faults])
        if faults
        else "[]",
        *rest,
    )


def known_sources(
    state_dir: str | os.PathLike[str], actors: Iterable[str]
) -> dict[str, list[tuple[str, str]]]:
    """Return ``(harness, path)`` of the transcripts in which earlier reads met each actor.

    Reads nothing but the state, and changes nothing; empty where there is none.
    """
    path = os.path.join(os.fspath(state_dir), STATE_FILE)
    if not os.path.exists(path):
        return {}
    try:
        state = UsageState(path)
        try:
            return state.sources_of(actors)
        finally:
            state.close()
    except sqlite3.Error:
        return {}


def remove_state(path: str) -> None:
    """Remove a damaged state file; the next read makes it anew."""
    for name in (path, path + "-journal"):
        try:
            os.unlink(name)
        except FileNotFoundError:
            continue
