"""The index: SQLite over the two folders of records. Derived; may vanish at any time.

Rule 1: the *set* of rows is trusted only while both folders bear the mtimes that the index's
writer gave them. Anything that is renamed, made or removed there, by whomever, ends that.
Rule 2: a row is used only while its file has the inode, size and times that the row was made
from; else the file is read.
Rule 3: the index never makes a request fail. Missing, damaged, of another version or another
boot: it is rebuilt, and until then everything is scanned.

Only the folder's owner can give it an mtime; for anybody else a change is followed by a scan.
Connections are not carried over a fork.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from heddle_registry.adapters.index_tables import (
    HIGHEST_FENCE,
    PUT_ENTRY,
    VERSION,
    YOUNG,
    EntryRow,
    Known,
    entry_values,
    file_values,
    forget_claim,
    mtime_of,
    new_stamp,
    newest_first,
    open_database,
    put_claim,
    put_claim_file,
    quoted,
    read_known,
    shown_name,
    stamp_at,
    storable_name,
    unlink_quietly,
)
from heddle_registry.adapters.record_files import CLOCK_TICK_NS, is_closed
from heddle_registry.adapters.sqlite_forks import inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from heddle_registry.adapters.layout import Layout
    from heddle_registry.adapters.record_files import RecordFile
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry

_MOST_KEPT: Final = 32
_SETTLED_AT_ONCE: Final = 8
_NO_RECORD: Final = "is_record = 0"
Stamps = tuple[int, int]
"""The mtimes of ``agents`` and ``claims`` in nanoseconds; 0 for a missing folder."""

_left_behind: list[sqlite3.Connection | None] = []
"""Connections of a parent process: closing one here would touch the parent's locks."""


class Index:
    """One registry's index, as one process uses it. Safe for several OS threads.

    Writing methods need the store's lock, which the caller holds.
    """

    def __init__(self, layout: Layout, boot_id: Callable[[], str]) -> None:
        self._layout = layout
        self.boot_id = boot_id
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int, int] | None = None  # pid, device, inode
        self.tick_ns = CLOCK_TICK_NS
        """Within how long after a change a file may change again without a trace."""
        # Of which moment, and what: in one, for other OS threads move on at any time.
        self._kept: tuple[Stamps | None, dict[object, list[Any]]] = (None, {})
        self.is_off = os.environ.get("HEDDLE_REGISTRY_INDEX", "").lower() in {"0", "off", "no"}

    def forget_parent(self) -> None:
        """In a forked child: leave the parent's connection alone and begin with none."""
        _left_behind.append(self._connection)
        self._connection = None

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        with inside():
            self._drop()

    def __del__(self) -> None:
        if self._opened is not None and self._opened[0] != os.getpid():
            _left_behind.append(self._connection)
        else:
            self.close()

    # -- trust -------------------------------------------------------------------------------

    def folder_stamps(self) -> Stamps:
        """Return the folders' mtimes as they are now."""
        return (mtime_of(self._layout.agents), mtime_of(self._layout.claims))

    def is_at(self, stamps: Stamps) -> bool:
        """Return whether the index describes the folders that bear ``stamps``."""
        if stamps == self._kept[0]:
            return True
        # What nearly every question asks next costs no look of its own.
        asked = (_names_in("entries", _NO_RECORD), ())
        rows = self._read(stamps, *asked)
        if rows is None:
            return False
        self._kept = (stamps, {asked: rows})
        return True

    def kept(self, stamps: Stamps, asked: object) -> list[Any] | None:
        """Return what was kept of the same question at the same stamps."""
        at, answers = self._kept
        return answers.get(asked) if stamps == at else None

    def keep(self, stamps: Stamps, asked: object, answer: list[Any]) -> None:
        """Keep an answer for as long as nothing is renamed, made or removed in the folders."""
        at, answers = self._kept
        if stamps == at:
            if len(answers) >= _MOST_KEPT:
                answers.clear()
            answers[asked] = answer

    def _answer(
        self, stamps: Stamps, query: str, arguments: tuple[Any, ...]
    ) -> list[tuple[Any, ...]] | None:
        # As `_read`, but asked once only.
        asked = (query, arguments)
        rows = self.kept(stamps, asked)
        if rows is None:
            rows = self._read(stamps, query, arguments)
            if rows is not None:
                self.keep(stamps, asked, rows)
        return rows

    def _read(
        self, stamps: Stamps, query: str, arguments: Sequence[Any]
    ) -> list[tuple[Any, ...]] | None:
        # Stamps and rows come from one read transaction; None where they are not of one moment.
        with inside():
            connection = self._connect()
            if connection is None:
                return None
            try:
                connection.execute("BEGIN")
                try:
                    meta = connection.execute("SELECT * FROM meta").fetchone()
                    if meta is None or meta[0] != self.boot_id() or meta[1:3] != stamps:
                        return None
                    self.tick_ns = meta[3]
                    return connection.execute(query, arguments).fetchall()
                finally:
                    connection.execute("COMMIT")
            except sqlite3.Error:
                self._drop()
                return None

    def _connect(self) -> sqlite3.Connection | None:
        if self.is_off:
            return None
        there = self._there()
        if there is None or there != self._opened:
            self._drop()
        if there is not None and self._connection is None:
            self._connection, self._opened = _opened(self._layout.index), there
        return self._connection

    def _there(self) -> tuple[int, int, int] | None:
        try:
            state = os.lstat(self._layout.index)
        except OSError:
            return None
        if not stat.S_ISREG(state.st_mode):
            return None  # a link to somebody's own database is not ours to change
        return (os.getpid(), state.st_dev, state.st_ino)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # -- look-ups ----------------------------------------------------------------------------

    def entry_rows(
        self, stamps: Stamps, where: str, arguments: Sequence[Any] = (), most: int | None = None
    ) -> list[EntryRow] | None:
        """Return rows of records newest first; None where the index is not at ``stamps``.

        At ``most`` so many are those that ended first: to sort all for a few of them is dear.
        """
        limit = f" ORDER BY ended_ns LIMIT {most}" if most is not None else ""
        rows = self._read(
            stamps,
            f"SELECT * FROM entries WHERE {where}{limit}",  # noqa: S608 (our own text)
            arguments,
        )
        if rows is None:
            return None
        newest_first(rows)
        return [EntryRow(row) for row in rows]

    def names(
        self,
        stamps: Stamps,
        table: Literal["entries", "claims", "claim_sessions"],
        where: str,
        arguments: Sequence[Any] = (),
    ) -> list[str] | None:
        """Return names of files; None where the index is not at ``stamps``."""
        rows = self._answer(stamps, _names_in(table, where), tuple(arguments))
        return None if rows is None else [shown_name(row[0]) for row in rows]

    def names_of_no_records(
        self, stamps: Stamps, table: Literal["entries", "claims"]
    ) -> list[str] | None:
        """Return names of files that are no records; None where the index is not at ``stamps``."""
        return self.names(stamps, table, _NO_RECORD)

    def claim_names_of(self, stamps: Stamps, session_id: str) -> list[str] | None:
        """Return names of the claims that name a session as holder or past holder."""
        return self.names(stamps, "claim_sessions", "session_id = ?", (session_id,))

    def highest_fence(self, stamps: Stamps, thread: str) -> int | None:
        """Return the greatest fence of a thread's rows, 0 for none; None where not at ``stamps``.

        The files are not looked at again: a fence that is too great does no harm.
        """
        rows = self._answer(stamps, HIGHEST_FENCE, (thread,))
        return None if rows is None else rows[0][0]

    # -- writing: the caller holds the store's lock --------------------------------------------

    def record(
        self,
        before: Stamps,
        entries: dict[str, AgentEntry | None],
        claims: dict[str, Claim | None],
        read: Callable[[str], RecordFile[AgentEntry] | None],
    ) -> None:
        """Note what was just written (None: removed), if the index was right ``before``.

        Otherwise nothing is stamped, and the next reader catches up. ``read`` reads one file.
        """
        with inside():
            connection = self._connect()
            if connection is None:
                return
            try:
                with connection:  # ends the transaction, however this ends
                    connection.execute("BEGIN IMMEDIATE")
                    meta = connection.execute("SELECT * FROM meta").fetchone()
                    if meta is None or meta[0] != self.boot_id() or meta[1:3] != before:
                        return
                    self._put_entries(connection, entries)
                    if meta[3]:
                        self._settle(connection, meta[3], read)
                    self._put_claims(connection, claims)
                    self._stamp(connection, before, bool(entries), bool(claims))
            except (sqlite3.Error, OSError):
                self._drop()

    def _put_entries(
        self, connection: sqlite3.Connection, entries: dict[str, AgentEntry | None]
    ) -> None:
        for name, entry in entries.items():
            seen_at_ns = time.time_ns()
            stamp = stamp_at(self._layout.agents, name)
            if entry is None or stamp is None:
                connection.execute("DELETE FROM entries WHERE name = ?", (name,))
                continue
            connection.execute(PUT_ENTRY, entry_values(name, stamp, seen_at_ns, entry))

    def _settle(
        self,
        connection: sqlite3.Connection,
        tick_ns: int,
        read: Callable[[str], RecordFile[AgentEntry] | None],
    ) -> None:
        # Where the clock is coarse, a row made within a tick of its file's change may miss
        # another change in that tick. Once the tick is over, one more look settles it.
        rows = connection.execute(
            f"{_names_in('entries', YOUNG.format(tick_ns=tick_ns))} AND ctime < ? LIMIT ?",
            (time.time_ns() - tick_ns, _SETTLED_AT_ONCE),
        ).fetchall()
        for (name,) in rows:
            file = read(name)
            if file is not None and not is_closed(file):
                connection.execute(PUT_ENTRY, file_values(file))

    def _put_claims(self, connection: sqlite3.Connection, claims: dict[str, Claim | None]) -> None:
        for name, claim in claims.items():
            stamp = stamp_at(self._layout.claims, name)
            if claim is None or stamp is None:
                forget_claim(connection, name)
            else:
                put_claim(connection, name, stamp, claim)

    def _stamp(
        self, connection: sqlite3.Connection, before: Stamps, agents: bool, claims: bool
    ) -> None:
        # Where a file system rounds it, no folder ever bears what is said here.
        after = list(before)
        for place, (folder, changed) in enumerate(
            ((self._layout.agents, agents), (self._layout.claims, claims))
        ):
            if changed:
                stamp = after[place] = new_stamp()
                os.utime(folder, ns=(stamp, stamp))
        connection.execute("UPDATE meta SET agents = ?, claims = ?", after)

    def adopt(self, fresh: str) -> bool:
        """Put in place what `build_index` made; whether that worked. It still has to catch up."""
        with inside():
            self._drop()
            try:
                unlink_quietly(self._layout.index + "-journal")
                os.replace(fresh, self._layout.index)
            except OSError:
                unlink_quietly(fresh)
                return False
            return True

    def known(self) -> Known | None:
        """Return of which file each row was made, up to date or not.

        None where another boot made them: a power loss may have torn what no stamp shows.
        """
        with inside():
            connection = self._connect()
            try:
                found = read_known(connection) if connection is not None else None
            except sqlite3.Error:
                self._drop()
                return None
            return found if found is not None and found.meta[0] == self.boot_id() else None

    def is_still(self, known: Known) -> bool:
        """Return whether ``known`` is what `known` would return now."""
        with inside():
            connection = self._connect()
            try:
                found = connection and connection.execute("SELECT * FROM meta").fetchone()
            except sqlite3.Error:
                self._drop()
                return False
            return bool(found == known.meta)

    def catch_up(
        self,
        known: Known,
        entries: Sequence[RecordFile[AgentEntry]],
        claims: Sequence[RecordFile[Claim]],
        gone_entries: Iterable[str],
        gone_claims: Iterable[str],
    ) -> bool:
        """Make the rows of these files, which changed since ``known``, and stamp the folders.

        Return whether that worked; it does not on another index that came in its place meanwhile.
        """
        with inside():
            connection = self._connect()
            if connection is None:
                return False
            try:
                with connection:  # ends the transaction, however this ends
                    connection.execute("BEGIN IMMEDIATE")
                    if connection.execute("SELECT * FROM meta").fetchone() != known.meta:
                        return False
                    connection.executemany(PUT_ENTRY, map(file_values, entries))
                    connection.executemany(
                        "DELETE FROM entries WHERE name = ?",
                        [(storable_name(name),) for name in gone_entries],
                    )
                    for name in gone_claims:
                        forget_claim(connection, name)
                    for file in claims:
                        put_claim_file(connection, file)
                    stamps = self.folder_stamps()
                    self._stamp(connection, stamps, True, bool(stamps[1]))
            except (sqlite3.Error, OSError):
                self._drop()
                return False
            return True


def _names_in(table: str, where: str) -> str:
    return f"SELECT name FROM {table} WHERE {where}"  # noqa: S608 (our own text)


def _opened(path: str) -> sqlite3.Connection | None:
    # Of this layout, to be changed, or where that is not allowed to be read.
    connection = None
    try:
        try:
            connection = open_database(f"file:{quoted(path)}?mode=rw")
        except sqlite3.Error:
            connection = open_database(f"file:{quoted(path)}?mode=ro")
        if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
            return connection
    except sqlite3.Error:
        pass
    if connection is not None:
        connection.close()
    return None
