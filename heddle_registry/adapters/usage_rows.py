# ruff: noqa: S608 - the statements are built of constants of this module; values are bound
"""The table of records by id, and the sums beside it.

The hot half of `usage_state`: a first read brings each response through here once.
"""

from __future__ import annotations

import json
import math
import sqlite3
from operator import add
from typing import TYPE_CHECKING, Final

from heddle_registry.adapters.usage_names import NameTable
from heddle_registry.adapters.usage_row import (
    COSTED,
    DOCUMENT,
    LONG,
    LOWER,
    NO_REASONING,
    REPLAYED,
    SUMS_AT,
    SourceRows,
    record_of,
    row_of,
    with_calls,
)
from heddle_registry.core.usage import UsageGroup, join_records, owns_before

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from heddle_registry.adapters.usage_row import Row
    from heddle_registry.core.usage import UsageRecord

    Rank = tuple[float, int, str]
    """When a source's first record was, when its file was first seen changed, and its path."""
    ActorGroups = tuple[str, str, str | None, list[int], list[UsageGroup]]
    """An actor's key, harness and parent, the sources that hold it, and its groups."""

_FEW: Final = 20
"""So many look-ups by one statement each are quicker than one statement for all."""
_SUMS: Final = "input, creation, creation_1h, cached, output, reasoning, tools, cost, requests"
"""In the order of `UsageGroup`."""
_SUM_COUNT: Final = 9
BATCH_ROWS: Final = 50_000
"""Records that wait in memory before they are written (about 25 MB)."""
_MARKS: Final = ", ".join("?" * (SUMS_AT + _SUM_COUNT))
_MOVE_SUMS: Final = (
    f"INSERT INTO sums VALUES ({', '.join('?' * (3 + _SUM_COUNT))})"
    " ON CONFLICT (actor, model, flags) DO UPDATE SET "
    + ", ".join(f"{column} = {column} + excluded.{column}" for column in _SUMS.split(", "))
)
_KNOWN: Final = [
    (bool(flags & LONG), bool(flags & COSTED), not flags & NO_REASONING, bool(flags & LOWER))
    for flags in range(2 * DOCUMENT)
]
"""What a group tells of its records, by their flags."""
_TOTALS: Final = ", ".join(f"sum({column})" for column in _SUMS.split(", "))

TABLES: Final = f"""
CREATE TABLE shares (one INTEGER, other INTEGER, PRIMARY KEY (one, other)) WITHOUT ROWID;
CREATE TABLE record (
    id INTEGER PRIMARY KEY, owner INTEGER, actor INTEGER, model INTEGER, flags INTEGER,
    weight INTEGER, at REAL, {_SUMS});
CREATE INDEX document ON record (owner) WHERE flags >= {DOCUMENT};
CREATE TABLE sums (
    actor INTEGER, model INTEGER, flags INTEGER, {_SUMS}, PRIMARY KEY (actor, model, flags)
) WITHOUT ROWID
"""
"""``shares``: two sources had a record of one id. Documents are read again at every change, so
their records can be found by owner; for others, which are appended to, that index would cost more
than it saves."""


class RecordTable:
    """Records joined under their ids; sums by actor, model and what is known of a record.

    What is new waits in memory, at most some `BATCH_ROWS` records: SQLite keeps a copy of every
    page that a savepoint touches, so one for each of a thousand files costs more than the rows.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._sums: dict[tuple[int, int, int], list[int]] = {}
        self._sums_before: dict[tuple[int, int, int], list[int]] | None = None
        """The sums before the savepoint, while one is open."""
        self._part: dict[int, Row] = {}
        """Rows of the part that may be taken back."""
        self._batch: dict[int, Row] = {}
        """Rows of earlier parts that are not written yet."""
        self.names = NameTable(db)
        self._ranks: dict[int, Rank] = {}

    # -- parts

    def release(self) -> None:
        """Keep what was joined since the part before."""
        if self._sums_before is not None:
            self._db.execute("RELEASE part")
            self._sums_before = None
        self._take_part()
        self.names.keep()
        if len(self._batch) >= BATCH_ROWS:
            self._write_rows()

    def rollback(self) -> None:
        """Take back what was joined since the part before."""
        self._part = {}
        self.names.drop()
        if self._sums_before is not None:
            self._db.execute("ROLLBACK TO part")
            self._db.execute("RELEASE part")
            self._sums, self._sums_before = self._sums_before, None
        self.write()
        self.names.forget_cache()
        self._ranks = {}

    def _spill(self) -> None:
        """Write what the current part has so far, so that it can still be taken back."""
        if self._sums_before is None:
            self.write()
            self._db.execute("SAVEPOINT part")
            self._sums_before = {key: [*sums] for key, sums in self._sums.items()}
        self._take_part()
        self._write_rows()

    def _take_part(self) -> None:
        batch, part = self._batch, self._part
        if not batch:
            self._batch, self._part = part, batch
            return
        for number in batch.keys() & part.keys():
            part[number] = self._joined(batch[number], part[number])
        batch.update(part)
        self._part = {}

    def write(self) -> None:
        """Write what the parts that were kept left in memory, all but the sums."""
        self._write_rows()
        self.names.write()

    def _write_rows(self) -> None:
        rows, self._batch = self._batch, {}
        if not rows:
            return
        if len(rows) < _FEW:
            self._replace(rows)
        else:
            # Nearly always all ids are new: that costs no look-up.
            self._db.execute("SAVEPOINT rows")
            try:
                self._db.executemany(f"INSERT INTO record VALUES ({_MARKS})", rows.values())
            except sqlite3.IntegrityError:
                self._db.execute("ROLLBACK TO rows")
                self._replace(rows)
            self._db.execute("RELEASE rows")
        by_key: dict[tuple[int, int, int], list[Row]] = {}
        for row in rows.values():
            by_key.setdefault(row[2:5], []).append(row)
        for key, alike in by_key.items():
            if not key[2] & REPLAYED:
                self._move(key, map(sum, [*zip(*alike, strict=True)][SUMS_AT:]))

    def _replace(self, rows: dict[int, Row]) -> None:
        """Write rows of which some may be known already, joined with those."""
        for row in self._existing(rows):
            self._add(row, -1)
            rows[row[0]] = self._joined(row, rows[row[0]])
        self._db.executemany(f"INSERT OR REPLACE INTO record VALUES ({_MARKS})", rows.values())

    # -- records

    def of(self, harness: str, source: int, actors: Mapping[str | None, int]) -> SourceRows:
        """Return where a source's records are gathered, for `join`.

        Each record's ``actor`` is a key of ``actors``.
        """
        return SourceRows(harness, source, actors, self.names.models, self._joined)

    def join(self, source: int, rank: Rank, rows: dict[int, Row]) -> None:
        """Join a source's rows with what is known under their ids; they are the table's from now.

        Moves the sums by the difference. Raises sqlite3.Error where the file cannot take them.
        """
        self._ranks[source] = rank
        part = self._part
        if not part:
            self._part = part = rows
        else:
            for number in part.keys() & rows.keys():
                rows[number] = self._joined(part[number], rows[number])
            part.update(rows)
        if len(part) >= BATCH_ROWS:
            self._spill()

    def forget(self, source: int, *, document: bool) -> list[int]:
        """Drop all that a source gave. Return the sources to read again.

        Those hold copies of its records, or of theirs: of a record that two files hold only the
        joined one is kept.
        """
        self.write()
        family, ahead = [source], [source]
        while ahead:
            one = ahead.pop()
            for (other,) in self._db.execute(
                "SELECT other FROM shares WHERE one = ?1 UNION SELECT one FROM shares"
                " WHERE other = ?1",
                (one,),
            ).fetchall():
                if other not in family:
                    family.append(other)
                    ahead.append(other)
        of_document = f" AND flags >= {DOCUMENT}" if document and len(family) == 1 else ""
        for one in family:
            # Built of constants; the value is bound.
            for row in self._db.execute(
                f"SELECT * FROM record WHERE owner = ?{of_document}", (one,)
            ):
                self._add(row, -1)
            self._db.execute(f"DELETE FROM record WHERE owner = ?{of_document}", (one,))
            self.names.forget(one)
            self._db.execute("DELETE FROM shares WHERE one = ?1 OR other = ?1", (one,))
        return family[1:]

    def _existing(self, fresh: Mapping[int, Row]) -> list[Row]:
        numbers = list(fresh)
        if len(numbers) < _FEW:
            found = []
            for number in numbers:
                found += self._db.execute("SELECT * FROM record WHERE id = ?", (number,)).fetchall()
            return found
        return self._db.execute(
            "SELECT * FROM record WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(numbers),),
        ).fetchall()

    def _joined(self, old: Row, new: Row) -> Row:
        """Join a known row with a new one: the numbers by `join_records`, the owner by rank."""
        ours, theirs = self._record(old), self._record(new)
        joined = join_records(ours, theirs)
        owner = old
        if old[1] == new[1]:
            owner = old if joined.actor == ours.actor else new
        else:
            self._db.execute("INSERT OR IGNORE INTO shares VALUES (?, ?)", (old[1], new[1]))
            before = (bool(old[4] & REPLAYED), old[5], self._rank(old[1]))
            if owns_before((bool(new[4] & REPLAYED), new[5], self._rank(new[1])), before):
                owner = new
        model = self.names.models[joined.model]
        return row_of(old[0], owner[1], joined, owner[2], model, owner[4] & DOCUMENT)

    def _record(self, row: Row) -> UsageRecord:
        return record_of(row, self.names.text(row[3]), self.names.actor_key(row[2]))

    def _rank(self, source: int) -> Rank:
        if source not in self._ranks:
            row = self._db.execute(
                "SELECT began, born, path FROM source WHERE source = ?", (source,)
            ).fetchone()
            self._ranks[source] = (0.0, 0, "") if row is None else tuple(row)
        return self._ranks[source]

    def _add(self, row: Row, sign: int) -> None:
        if not row[4] & REPLAYED:
            self._move((row[2], row[3], row[4]), (sign * number for number in row[SUMS_AT:]))

    def _move(self, key: tuple[int, int, int], by: Iterable[int]) -> None:
        sums = self._sums.get(key)
        self._sums[key] = [*by] if sums is None else [*map(add, sums, by)]

    def write_sums(self) -> None:
        """Write all that waits in memory, and move the sums."""
        self.write()
        moved, self._sums = self._sums, {}
        if not moved:
            return
        self._db.executemany(
            _MOVE_SUMS, [(*key, *sums) for key, sums in moved.items() if any(sums)]
        )

    def sums_agree(self) -> bool:
        """Tell whether the sums are those of the records (after a crash they may not be)."""
        query = (
            f"SELECT actor, model, flags, {_TOTALS} FROM record WHERE flags & {REPLAYED} = 0"
            " GROUP BY actor, model, flags"
        )
        counted = {row for row in self._db.execute(query) if any(row[3:])}
        return counted == {row for row in self._db.execute("SELECT * FROM sums") if any(row[3:])}

    # -- answers

    def groups(
        self,
        sources: Iterable[int],
        since_s: float | None = None,
        until_s: float | None = None,
    ) -> list[ActorGroups]:
        """Return what is known of each actor that a source holds.

        With ``since_s`` or ``until_s`` only records at or after the one and before the other (in
        seconds since the epoch) count, which means to look at every record. One without a time
        is before all others.
        """
        self.write_sums()
        wanted = [*sources]
        rows: Iterable[Row] | None = None
        if since_s is not None or until_s is not None:
            least = 0.0 if since_s is None else max(since_s, 1e-9)
            most = math.inf if until_s is None else until_s
            query = (
                f"SELECT actor, model, flags, {_TOTALS} FROM record"
                f" WHERE at >= ? AND at < ? AND flags & {REPLAYED} = 0"
                " GROUP BY actor, model, flags"
            )
            rows = self._db.execute(query, (least, most))
        elif self.names.is_most(wanted):
            rows = self._db.execute("SELECT * FROM sums")
        within: dict[int, list[Row]] = {}
        for row in rows or ():
            within.setdefault(row[0], []).append(row)
        found: dict[int, ActorGroups] = {}
        for source, actor, key, harness, parent, told in self.names.holders(wanted):
            if actor in found:
                found[actor][3].append(source)
                continue
            if rows is None:
                query = "SELECT * FROM sums WHERE actor = ?"
                sums = self._db.execute(query, (actor,)).fetchall()
            else:
                sums = within.get(actor, [])
            sums = [row for row in sums if any(row[3:])]
            groups = [*map(self._group, with_calls(sums) if len(sums) > 1 else sums)]
            if groups or told:
                found[actor] = (key, harness, parent, [source], groups)
        return list(found.values())

    def _group(self, row: Row) -> UsageGroup:
        _, model, flags, *sums = row
        # Not by the class, which takes twice as long.
        return tuple.__new__(UsageGroup, (self.names.text(model), *_KNOWN[flags], *sums))
