"""The names beside the records: actors, who holds whose usage, and models.

What is new waits in memory until the part of the reading that brought it is kept, and is written
together with that of many files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

TABLES: Final = """
CREATE TABLE name (name INTEGER PRIMARY KEY, text TEXT UNIQUE);
CREATE TABLE actor (actor INTEGER PRIMARY KEY, harness TEXT, key TEXT UNIQUE, parent TEXT);
CREATE TABLE holds (
    source INTEGER, actor INTEGER, told INTEGER, PRIMARY KEY (source, actor)) WITHOUT ROWID;
"""
"""``holds``: whose usage a source has, ``told``: listed even without any."""

_ACTORS: Final = "INSERT INTO actor VALUES (?, ?, ?, NULL)"
_HOLDS: Final = """
INSERT INTO holds VALUES (?1, ?2, ?3)
ON CONFLICT (source, actor) DO UPDATE SET told = max(told, ?3)"""
_LINKS: Final = "UPDATE actor SET parent = ? WHERE key = ?"
BATCH_NAMES: Final = 5_000
_MANY: Final = 8
"""Where one in so many sources is asked for, one look at all is quicker than one at each."""


class _Models(dict[str | None, int]):
    """Numbers of models by their names; 0 where there is none."""

    def __init__(self, db: sqlite3.Connection) -> None:
        super().__init__({None: 0})
        self._db = db

    def __missing__(self, text: str) -> int:
        stored = _storable(text)
        self._db.execute("INSERT OR IGNORE INTO name VALUES (NULL, ?)", (stored,))
        query = "SELECT name FROM name WHERE text = ?"
        (known,) = self._db.execute(query, (stored,)).fetchone()
        number = self[text] = int(known)
        return number


class NameTable:
    """Numbers for names. Changes are kept by `keep`, taken back by `drop`, written by `write`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._new: dict[str, list[tuple[Any, ...]]] = {_ACTORS: [], _HOLDS: [], _LINKS: []}
        self._kept: dict[str, int] = dict.fromkeys(self._new, 0)
        self._next_actor = 0
        self._none_before = False
        """No actor was known when this reading began."""
        self.forget_cache()

    def forget_cache(self) -> None:
        """Look up everything anew, after some of it was rolled back."""
        self.models = _Models(self._db)
        self._texts: dict[int, str | None] = {0: None}
        self._actors: dict[str, int] = {}
        self._keys: dict[int, str] = {}
        self._held: dict[tuple[int, int], bool] = {}
        self._none_before = False

    def keep(self) -> None:
        """Keep what is new; it will be written, at the latest when there is much of it."""
        for kind, rows in self._new.items():
            self._kept[kind] = len(rows)
        if self._kept[_HOLDS] >= BATCH_NAMES:
            self.write()

    def drop(self) -> None:
        """Take back what is new since the last `keep`."""
        for kind, rows in self._new.items():
            del rows[self._kept[kind] :]

    def write(self) -> None:
        """Write what was kept."""
        for statement, rows in self._new.items():
            if kept := self._kept[statement]:
                self._db.executemany(statement, rows[:kept])
                del rows[:kept]
                self._kept[statement] = 0

    # -- models

    def text(self, name: int) -> str | None:
        """Return the name that has a number."""
        if name not in self._texts:
            row = self._db.execute("SELECT text FROM name WHERE name = ?", (name,)).fetchone()
            self._texts[name] = str(row[0])
        return self._texts[name]

    # -- actors

    def actor(self, harness: str, key: str, source: int, *, told: bool = False) -> int:
        """Return the number of an actor that a source holds; ``told``: also without any usage."""
        known = self._actors.get(key)
        if known is None:
            stored = _storable(key)
            known = self._actors.get(stored)
            if known is None:
                known = self._actors[stored] = self._number(harness, stored)
            self._actors[key] = known
        if told > self._held.get((source, known), -1):
            self._held[source, known] = told
            self._new[_HOLDS].append((source, known, told))
        return known

    def _number(self, harness: str, key: str) -> int:
        if not self._next_actor:
            (most,) = self._db.execute("SELECT max(actor) FROM actor").fetchone()
            self._next_actor, self._none_before = (most or 0) + 1, most is None
        if not self._none_before:
            row = self._db.execute("SELECT actor FROM actor WHERE key = ?", (key,)).fetchone()
            if row is not None:
                return int(row[0])
        number = self._next_actor
        self._next_actor += 1
        self._new[_ACTORS].append((number, harness, key))
        self._keys[number] = key
        return number

    def actor_key(self, actor: int) -> str:
        """Return the native key of an actor."""
        if actor not in self._keys:
            row = self._db.execute("SELECT key FROM actor WHERE actor = ?", (actor,)).fetchone()
            self._keys[actor] = str(row[0])
        return self._keys[actor]

    def link(self, key: str, parent: str) -> None:
        """Remember an actor's parent."""
        self._new[_LINKS].append((_storable(parent), _storable(key)))

    def is_most(self, sources: Sequence[int]) -> bool:
        """Tell whether one look at all is quicker than one for each of these sources."""
        (most,) = self._db.execute("SELECT max(source) FROM holds").fetchone()
        return is_worth_all(sources, most or 0)

    def holders(
        self, sources: Iterable[int]
    ) -> Iterator[tuple[int, int, str, str, str | None, bool]]:
        """Yield ``(source, actor, key, harness, parent, told)`` for all that the sources hold."""
        query = (
            "SELECT source, actor, key, harness, parent, told FROM holds JOIN actor USING (actor)"
        )
        wanted = list(sources)
        if self.is_most(wanted):
            among = set(wanted)
            ranked = self._db.execute(query + " ORDER BY source").fetchall()
            yield from (row for row in ranked if row[0] in among)
            return
        for source in wanted:
            yield from self._db.execute(query + " WHERE source = ?", (source,)).fetchall()

    def forget(self, source: int) -> None:
        """Forget whose usage a source holds."""
        self._db.execute("DELETE FROM holds WHERE source = ?", (source,))
        self._held = {}


class SourceActors(dict[str | None, int]):
    """Actor numbers by the name that a record gives; None is the one that the source declared."""

    def __init__(self, names: NameTable, harness: str, source: int, own: str) -> None:
        super().__init__()
        self._names, self._harness, self._source, self._own = names, harness, source, own
        self._declared: str | None = None

    def declare(self, name: str | None) -> None:
        """From now on None is this one; where it is None too, the file itself."""
        self._declared = name
        self.pop(None, None)

    def __missing__(self, name: str | None) -> int:
        whose = self._declared if name is None else name
        key = self._own if whose is None else f"{self._harness}:{whose}"
        told = whose is not None and whose == self._declared
        number = self[name] = self._names.actor(self._harness, key, self._source, told=told)
        return number


def is_worth_all(wanted: Sequence[object], most: int) -> bool:
    """Tell whether so many rows of at most so many are better looked for among all."""
    return len(wanted) > most // _MANY


def _storable(name: str) -> str:
    """Replace what is no text: JSON may hold halves of characters."""
    return name if name.isascii() else name.encode("utf-8", "replace").decode()
