# ruff: noqa: S608 - the statements are built of constants of this module; values are bound
"""The table of records by id, and the sums beside it.

The hot half of `usage_state`: a first read brings each response through here once.
"""

from __future__ import annotations

import json
import math
import sqlite3
from hashlib import blake2b
from operator import add
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.adapters.usage_names import NameTable
from heddle_registry.core.usage import (
    LONG_CONTEXT_TOKENS,
    UsageGroup,
    UsageRecord,
    instant_s,
    join_records,
    owns_before,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Rank = tuple[float, int, str]
    """When a source's first record was, when its file was first seen changed, and its path."""
    Row = tuple[Any, ...]

_LONG, _COSTED, _NO_REASONING, _LOWER, _REPLAYED, _DOCUMENT = 1, 2, 4, 8, 16, 32
_FEW: Final = 20
"""So many look-ups by one statement each are quicker than one statement for all."""
_SUMS: Final = "input, creation, creation_1h, cached, output, reasoning, tools, cost, requests"
_SUM_COUNT: Final = 9
_SUMS_AT: Final = 7
"""Where the sums begin in a row of ``record``."""
BATCH_ROWS: Final = 20_000
"""Records that wait in memory before they are written (about 10 MB)."""
MAX_SUMMED: Final = (1 << 53) - 1
"""What a record may hold at most, far above `core.usage.MAX_COUNT`."""
_MARKS: Final = ", ".join("?" * (_SUMS_AT + _SUM_COUNT))
_TOTALS: Final = ", ".join(f"sum({column})" for column in _SUMS.split(", "))

TABLES: Final = f"""
CREATE TABLE shares (one INTEGER, other INTEGER, PRIMARY KEY (one, other)) WITHOUT ROWID;
CREATE TABLE record (
    id INTEGER PRIMARY KEY, owner INTEGER, actor INTEGER, model INTEGER, flags INTEGER,
    weight INTEGER, at REAL, {_SUMS});
CREATE INDEX document ON record (owner) WHERE flags >= {_DOCUMENT};
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
        # Nearly always all ids are new: that costs no look-up.
        self._db.execute("SAVEPOINT rows")
        try:
            self._db.executemany(f"INSERT INTO record VALUES ({_MARKS})", rows.values())
        except sqlite3.IntegrityError:
            self._db.execute("ROLLBACK TO rows")
            for row in self._existing(rows):
                self._add(row, -1)
                rows[row[0]] = self._joined(row, rows[row[0]])
            self._db.executemany(f"INSERT OR REPLACE INTO record VALUES ({_MARKS})", rows.values())
        self._db.execute("RELEASE rows")
        by_key: dict[tuple[int, int, int], list[Row]] = {}
        for row in rows.values():
            by_key.setdefault(row[2:5], []).append(row)
        for key, alike in by_key.items():
            if not key[2] & _REPLAYED:
                self._move(key, map(sum, [*zip(*alike, strict=True)][_SUMS_AT:]))

    # -- records

    def join(
        self,
        harness: str,
        source: int,
        rank: Rank,
        records: Iterable[UsageRecord],
        actors: Mapping[str | None, int],
        *,
        document: bool,
    ) -> None:
        """Join records with what is known under their ids, and move the sums by the difference.

        Each record's ``actor`` is a key of ``actors``; ids are unique among ``records``, and each
        harness has ids of its own. Raises TypeError where a record holds what is no number, and
        sqlite3.Error where the file cannot take them.
        """
        fresh: dict[int, Row] = {}
        copy = blake2b(f"{harness}\0".encode(), digest_size=8).copy
        row_of, number_of, kind = self._row, int.from_bytes, _DOCUMENT if document else 0
        for record in records:
            digest = copy()
            digest.update(record.id.encode("utf-8", "replace"))
            number = number_of(digest.digest(), "big", signed=True)
            fresh[number] = row_of(number, source, record, actors[record.actor], kind)
        self._ranks[source] = rank
        part = self._part
        if part:
            for number in part.keys() & fresh.keys():
                fresh[number] = self._joined(part[number], fresh[number])
        part.update(fresh)
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
        of_document = f" AND flags >= {_DOCUMENT}" if document and len(family) == 1 else ""
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

    def _row(self, number: int, source: int, record: UsageRecord, actor: int, kind: int) -> Row:
        (
            _, fresh, creation, cached, output, reasoning, tools, cost, model, at, _, lower_bound,
            replayed, weight, hour, requests,
        ) = record  # fmt: skip
        whole = fresh + creation + cached
        # Rows are written later, where it would be too late to tell whose they were.
        every = fresh | creation | cached | output | tools | weight | hour | requests
        if not 0 <= every <= MAX_SUMMED:
            numbers = (fresh, creation, cached, output, tools, weight, hour, requests)
            if max(map(abs, numbers)) > MAX_SUMMED:
                raise TypeError(f"one of {numbers} is no count")
        flags = kind | _LONG if whole > LONG_CONTEXT_TOKENS else kind
        if cost is None:
            cost = 0
            if not whole + output:
                flags |= _COSTED
        else:
            flags |= _COSTED
        if reasoning is None:
            reasoning = 0
            if output:
                flags |= _NO_REASONING
        if max(abs(cost), abs(reasoning)) > MAX_SUMMED:
            raise TypeError(f"a cost of {cost} or {reasoning} tokens of reasoning")
        if lower_bound:
            flags |= _LOWER
        if replayed:
            flags |= _REPLAYED
        return (
            number, source, actor, self.names.name(model), flags, weight, instant_s(at),
            fresh, creation, hour, cached, output, reasoning, tools, cost, requests,
        )  # fmt: skip

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
            before = (bool(old[4] & _REPLAYED), old[5], self._rank(old[1]))
            if owns_before((bool(new[4] & _REPLAYED), new[5], self._rank(new[1])), before):
                owner = new
        return self._row(old[0], owner[1], joined, owner[2], owner[4] & _DOCUMENT)

    def _record(self, row: Row) -> UsageRecord:
        flags = row[4]
        return UsageRecord(
            id="",
            input=row[7],
            cache_creation=row[8],
            cache_creation_1h=row[9],
            cache_read=row[10],
            output=row[11],
            reasoning=None if flags & _NO_REASONING else row[12],
            tool_calls=row[13],
            cost_micros_usd=row[14] if flags & _COSTED else None,
            requests=row[15],
            model=self.names.text(row[3]),
            at=row[6] or None,
            actor=self.names.actor_key(row[2]),
            lower_bound=bool(flags & _LOWER),
            replayed=bool(flags & _REPLAYED),
            weight=row[5],
        )

    def _rank(self, source: int) -> Rank:
        if source not in self._ranks:
            row = self._db.execute(
                "SELECT began, born, path FROM source WHERE source = ?", (source,)
            ).fetchone()
            self._ranks[source] = (0.0, 0, "") if row is None else tuple(row)
        return self._ranks[source]

    def _add(self, row: Row, sign: int) -> None:
        if not row[4] & _REPLAYED:
            self._move((row[2], row[3], row[4]), (sign * number for number in row[_SUMS_AT:]))

    def _move(self, key: tuple[int, int, int], by: Iterable[int]) -> None:
        sums = self._sums.get(key)
        self._sums[key] = [*by] if sums is None else [*map(add, sums, by)]

    def write_sums(self) -> None:
        """Write all that waits in memory, and move the sums."""
        self.write()
        updates = ", ".join(
            f"{column} = {column} + excluded.{column}" for column in _SUMS.split(", ")
        )
        marks = ", ".join("?" * (3 + _SUM_COUNT))
        self._db.executemany(
            f"INSERT INTO sums VALUES ({marks})"
            f" ON CONFLICT (actor, model, flags) DO UPDATE SET {updates}",
            [(*key, *sums) for key, sums in self._sums.items() if any(sums)],
        )
        self._sums = {}

    def sums_agree(self) -> bool:
        """Tell whether the sums are those of the records (after a crash they may not be)."""
        query = (
            f"SELECT actor, model, flags, {_TOTALS} FROM record WHERE flags & {_REPLAYED} = 0"
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
    ) -> list[tuple[str, str, str | None, list[int], list[UsageGroup]]]:
        """Return ``(key, harness, parent, sources, groups)`` of each actor that a source holds.

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
                f" WHERE at >= ? AND at < ? AND flags & {_REPLAYED} = 0"
                " GROUP BY actor, model, flags"
            )
            rows = self._db.execute(query, (least, most))
        elif self.names.is_most(wanted):
            rows = self._db.execute("SELECT * FROM sums")
        within: dict[int, list[Row]] = {}
        for row in rows or ():
            within.setdefault(row[0], []).append(row)
        found: dict[int, tuple[str, str, str | None, list[int], list[UsageGroup]]] = {}
        for source, actor, key, harness, parent, told in self.names.holders(wanted):
            if actor in found:
                found[actor][3].append(source)
                continue
            if rows is None:
                query = "SELECT * FROM sums WHERE actor = ?"
                sums = self._db.execute(query, (actor,)).fetchall()
            else:
                sums = within.get(actor, [])
            groups = [self._group(row[1], row[2], row[3:]) for row in sums if any(row[3:])]
            if groups or told:
                found[actor] = (key, harness, parent, [source], groups)
        return list(found.values())

    def _group(self, model: int, flags: int, sums: Sequence[int]) -> UsageGroup:
        return UsageGroup(
            model=self.names.text(model),
            long_context=bool(flags & _LONG),
            costed=bool(flags & _COSTED),
            reasoning_known=not flags & _NO_REASONING,
            lower_bound=bool(flags & _LOWER),
            input=sums[0],
            cache_creation=sums[1],
            cache_creation_1h=sums[2],
            cache_read=sums[3],
            output=sums[4],
            reasoning=sums[5],
            tool_calls=sums[6],
            cost_micros_usd=sums[7],
            requests=sums[8],
        )
