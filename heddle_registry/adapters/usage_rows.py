# ruff: noqa: S608 - the statements are built of constants of this module; values are bound
"""The table of records by id, and the sums beside it.

The hot half of `usage_state`: a first read brings each response through here once.
"""

from __future__ import annotations

import json
import sqlite3
from hashlib import blake2b
from operator import add
from typing import TYPE_CHECKING, Any, Final

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
_MARKS: Final = ", ".join("?" * (_SUMS_AT + _SUM_COUNT))
_TOTALS: Final = ", ".join(f"sum({column})" for column in _SUMS.split(", "))

TABLES: Final = f"""
CREATE TABLE name (name INTEGER PRIMARY KEY, text TEXT UNIQUE);
CREATE TABLE actor (actor INTEGER PRIMARY KEY, harness TEXT, key TEXT UNIQUE, parent TEXT);
CREATE TABLE holds (
    source INTEGER, actor INTEGER, told INTEGER, PRIMARY KEY (source, actor)) WITHOUT ROWID;
CREATE TABLE shares (one INTEGER, other INTEGER, PRIMARY KEY (one, other)) WITHOUT ROWID;
CREATE TABLE record (
    id INTEGER PRIMARY KEY, owner INTEGER, actor INTEGER, model INTEGER, flags INTEGER,
    weight INTEGER, at REAL, {_SUMS});
CREATE INDEX document ON record (owner) WHERE flags >= {_DOCUMENT};
CREATE TABLE sums (
    actor INTEGER, model INTEGER, flags INTEGER, {_SUMS}, PRIMARY KEY (actor, model, flags)
) WITHOUT ROWID
"""
"""``holds``: whose usage a source has, ``told``: listed even without any. ``shares``: two sources
had a record of one id. Documents are read again at every change, so their records can be found by
owner; for others, which are appended to, that index would cost more than it saves."""


def _storable(name: str) -> str:
    """Replace what is no text: JSON may hold halves of characters."""
    return name.encode("utf-8", "replace").decode()


class RecordTable:
    """Records joined under their ids; sums by actor, model and what is known of a record."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._sums: dict[tuple[int, int, int], list[int]] = {}
        self.forget_cache()

    def forget_cache(self) -> None:
        """Drop what is held in memory, after a part of the transaction was rolled back."""
        self._names: dict[str | None, int] = {None: 0}
        self._texts: dict[int, str | None] = {0: None}
        self._actors: dict[str, int] = {}
        self._keys: dict[int, str] = {}
        self._held: dict[tuple[int, int], bool] = {}
        self._ranks: dict[int, Rank] = {}
        self._part: dict[tuple[int, int, int], list[int]] = {}

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
        harness has ids of its own. Raises sqlite3.Error where the file cannot take them.
        """
        fresh: dict[int, Row] = {}
        prefix = f"{harness}\0".encode()
        row_of, number_of, kind = self._row, int.from_bytes, _DOCUMENT if document else 0
        for record in records:
            digest = blake2b(prefix + record.id.encode("utf-8", "replace"), digest_size=8).digest()
            number = number_of(digest, "big", signed=True)
            fresh[number] = row_of(number, source, record, actors[record.actor], kind)
        self._ranks[source] = rank
        # Nearly always all ids are new: that costs no look-up.
        self._db.execute("SAVEPOINT rows")
        try:
            self._db.executemany(f"INSERT INTO record VALUES ({_MARKS})", fresh.values())
        except sqlite3.IntegrityError:
            self._db.execute("ROLLBACK TO rows")
            for row in self._existing(fresh):
                self._add(row, -1)
                fresh[row[0]] = self._joined(row, fresh[row[0]], rank)
            self._db.executemany(f"INSERT OR REPLACE INTO record VALUES ({_MARKS})", fresh.values())
        self._db.execute("RELEASE rows")
        by_key: dict[tuple[int, int, int], list[Row]] = {}
        for row in fresh.values():
            by_key.setdefault(row[2:5], []).append(row[_SUMS_AT:])
        for key, rows in by_key.items():
            if not key[2] & _REPLAYED:
                self._move(key, map(sum, zip(*rows, strict=True)))

    def forget(self, source: int, *, document: bool) -> list[int]:
        """Drop all that a source gave. Return the sources to read again.

        Those hold copies of its records, or of theirs: of a record that two files hold only the
        joined one is kept.
        """
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
            self._db.execute("DELETE FROM holds WHERE source = ?", (one,))
            self._db.execute("DELETE FROM shares WHERE one = ?1 OR other = ?1", (one,))
        self._held = {}
        self.keep_sums()
        return family[1:]

    def _row(self, number: int, source: int, record: UsageRecord, actor: int, kind: int) -> Row:
        (
            _, fresh, creation, cached, output, reasoning, tools, cost, model, at, _, lower_bound,
            replayed, weight, hour, requests,
        ) = record  # fmt: skip
        whole = fresh + creation + cached
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
        if lower_bound:
            flags |= _LOWER
        if replayed:
            flags |= _REPLAYED
        name = self._names.get(model)
        if name is None:
            name = self._name(model)
        return (
            number, source, actor, name, flags, weight, instant_s(at),
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

    def _joined(self, old: Row, new: Row, rank: Rank) -> Row:
        """Join a stored row with a new one: the numbers by `join_records`, the owner by rank."""
        ours, theirs = self._record(old), self._record(new)
        joined = join_records(ours, theirs)
        owner = old
        if old[1] == new[1]:
            owner = old if joined.actor == ours.actor else new
        else:
            self._db.execute("INSERT OR IGNORE INTO shares VALUES (?, ?)", (old[1], new[1]))
            before = (bool(old[4] & _REPLAYED), old[5], self._rank(old[1]))
            if owns_before((bool(new[4] & _REPLAYED), new[5], rank), before):
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
            model=self._text(row[3]),
            at=row[6] or None,
            actor=self._actor_key(row[2]),
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
        sums = self._part.get(key)
        self._part[key] = [*by] if sums is None else [*map(add, sums, by)]

    def keep_sums(self) -> None:
        """Add what the current part of the transaction moved to what is to be written."""
        for key, moved in self._part.items():
            sums = self._sums.get(key)
            self._sums[key] = moved if sums is None else [*map(add, sums, moved)]
        self._part = {}

    def write_sums(self) -> None:
        """Write the sums that were moved."""
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

    # -- names

    def _name(self, text: str | None) -> int:
        known = self._names.get(text)
        if known is None and text is not None:
            text = _storable(text)
            self._db.execute("INSERT OR IGNORE INTO name VALUES (NULL, ?)", (text,))
            (known,) = self._db.execute("SELECT name FROM name WHERE text = ?", (text,)).fetchone()
            self._names[text] = known
        return int(known or 0)

    def _text(self, name: int) -> str | None:
        if name not in self._texts:
            row = self._db.execute("SELECT text FROM name WHERE name = ?", (name,)).fetchone()
            self._texts[name] = str(row[0])
        return self._texts[name]

    def actor(self, harness: str, key: str, source: int, *, told: bool = False) -> int:
        """Return the number of an actor that a source holds; ``told``: also without any usage."""
        known = self._actors.get(key)
        if known is None:
            key = _storable(key)
            row = self._db.execute("SELECT actor FROM actor WHERE key = ?", (key,)).fetchone()
            known = self._actors[key] = int(
                row[0]
                if row
                else self._db.execute(
                    "INSERT INTO actor VALUES (NULL, ?, ?, NULL)", (harness, key)
                ).lastrowid
                or 0
            )
        if told > self._held.get((source, known), -1):
            self._held[source, known] = told
            self._db.execute(
                "INSERT INTO holds VALUES (?1, ?2, ?3)"
                " ON CONFLICT (source, actor) DO UPDATE SET told = max(told, ?3)",
                (source, known, told),
            )
        return int(known)

    def _actor_key(self, actor: int) -> str:
        if actor not in self._keys:
            row = self._db.execute("SELECT key FROM actor WHERE actor = ?", (actor,)).fetchone()
            self._keys[actor] = str(row[0])
        return self._keys[actor]

    def link(self, key: str, parent: str) -> None:
        """Remember an actor's parent."""
        self._db.execute(
            "UPDATE actor SET parent = ? WHERE key = ?", (_storable(parent), _storable(key))
        )

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
        within: dict[int, list[Row]] = {}
        is_whole = since_s is None and until_s is None
        if not is_whole:
            query = (
                f"SELECT actor, model, flags, {_TOTALS} FROM record"
                f" WHERE at >= ? AND at < ? AND flags & {_REPLAYED} = 0"
                " GROUP BY actor, model, flags"
            )
            least = 0.0 if since_s is None else max(since_s, 1e-9)
            most = float("inf") if until_s is None else until_s
            for row in self._db.execute(query, (least, most)):
                within.setdefault(row[0], []).append(row[1:])
        found: dict[int, tuple[str, str, str | None, list[int], list[UsageGroup]]] = {}
        for source in sources:
            for actor, key, harness, parent, told in self._db.execute(
                "SELECT actor, key, harness, parent, told FROM holds JOIN actor USING (actor)"
                " WHERE source = ?",
                (source,),
            ).fetchall():
                if actor in found:
                    found[actor][3].append(source)
                    continue
                sums = within.get(actor, [])
                if is_whole:
                    query = f"SELECT model, flags, {_SUMS} FROM sums WHERE actor = ?"
                    sums = self._db.execute(query, (actor,)).fetchall()
                groups = [self._group(row[0], row[1], row[2:]) for row in sums if any(row[2:])]
                if groups or told:
                    found[actor] = (key, harness, parent, [source], groups)
        return list(found.values())

    def _group(self, model: int, flags: int, sums: Sequence[int]) -> UsageGroup:
        return UsageGroup(
            model=self._text(model),
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
