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
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from heddle_registry.adapters.index_rows import (
    FIELD_COLUMNS,
    KEY_COLUMNS,
    NotPlain,
    claim_sessions,
    entry_from_row,
    entry_row,
    key_row,
)
from heddle_registry.adapters.record_files import CLOCK_TICK_NS, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from heddle_registry.adapters.layout import Layout
    from heddle_registry.adapters.record_files import RecordFile, Stamp
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry

VERSION: Final = 1
_BUSY_S: Final = 0.05
_MOST_KEPT: Final = 32
_NO_RECORD: Final = "is_record = 0"
_FILE_COLUMNS: Final = (
    "name",
    "inode",
    "size",
    "mtime",
    "ctime",
    "read_at",
    "is_record",
    "is_plain",
)
_ENTRY_COLUMNS: Final = (*_FILE_COLUMNS, *KEY_COLUMNS, *FIELD_COLUMNS)
_AT_FIELDS: Final = len(_FILE_COLUMNS) + len(KEY_COLUMNS)
_SCHEMA: Final = f"""
CREATE TABLE meta (boot TEXT, agents INTEGER, claims INTEGER, tick INTEGER);
CREATE TABLE entries ({", ".join(_ENTRY_COLUMNS)}, PRIMARY KEY (name)) WITHOUT ROWID;
CREATE TABLE claims (name PRIMARY KEY, inode, size, mtime, ctime, read_at, is_record, is_plain,
                     thread, path, holder) WITHOUT ROWID;
CREATE TABLE claim_sessions (session_id, name, PRIMARY KEY (session_id, name)) WITHOUT ROWID;
CREATE INDEX entries_thread ON entries (thread, status);
CREATE INDEX entries_started ON entries (started_s DESC, started_n DESC, session_id);
CREATE INDEX entries_active ON entries (status) WHERE status = 'active';
CREATE INDEX entries_ended ON entries (ended_ns) WHERE ended_ns IS NOT NULL;
CREATE INDEX entries_bad ON entries (is_record) WHERE is_record = 0;
CREATE INDEX claims_path ON claims (path) WHERE path IS NOT NULL;
CREATE INDEX claims_held ON claims (holder) WHERE holder IS NOT NULL;
CREATE INDEX claims_bad ON claims (is_record) WHERE is_record = 0;
""" + "".join(
    f"CREATE INDEX entries_{name} ON entries ({name}) WHERE {name} IS NOT NULL;\n"
    for name in (
        "native_actor_key", "native_parent_actor_key", "native_instance_key",
        "client_instance_id", "heddle_session_id", "real_path", "judged_pid",
    )
)  # fmt: skip

Stamps = tuple[int, int]
"""The mtimes of ``agents`` and ``claims`` in nanoseconds; 0 for a missing folder."""


_left_behind: list[sqlite3.Connection] = []
"""Connections of a parent process: closing one here would touch the parent's locks."""


class EntryRow:
    """One entry's row: its file's name and stamp, and the entry if the columns hold all of it."""

    __slots__ = ("_values", "name", "stamp")

    def __init__(self, values: Sequence[Any]) -> None:
        self.name: str = values[0]
        self.stamp: Stamp = tuple(values[1:5])
        self._values = values

    @property
    def is_plain(self) -> bool:
        """Whether the row alone makes the entry."""
        return bool(self._values[7])

    def is_settled(self, tick_ns: int) -> bool:
        """Whether the file cannot have changed unseen right after the row was made."""
        return tick_ns == 0 or self._values[5] - self._values[4] > tick_ns

    def entry(self) -> AgentEntry:
        """Build the entry."""
        return entry_from_row(self._values[_AT_FIELDS:])


class Index:
    """One registry's index, as one process uses it. Safe for several OS threads.

    Writing methods need the store's lock, which the caller holds.
    """

    def __init__(self, layout: Layout, boot_id: Callable[[], str]) -> None:
        self._layout = layout
        self._boot_id = boot_id
        self._mutex = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int, int] | None = None  # pid, device, inode
        self.tick_ns = CLOCK_TICK_NS
        """Within how long after a change a file may change again without a trace."""
        self._kept_at: Stamps | None = None
        self._kept: dict[object, list[Any]] = {}
        self.is_off = os.environ.get("HEDDLE_REGISTRY_INDEX", "").lower() in {"0", "off", "no"}

    def forget_parent(self) -> None:
        """In a forked child: leave the parent's connection alone and begin with none."""
        self._mutex = threading.RLock()
        if self._connection is not None:
            _left_behind.append(self._connection)
        self._connection = None

    # -- trust -------------------------------------------------------------------------------

    def folder_stamps(self) -> Stamps:
        """Return the folders' mtimes as they are now."""
        return (_mtime(self._layout.agents), _mtime(self._layout.claims))

    def is_at(self, stamps: Stamps) -> bool:
        """Return whether the index describes the folders that bear ``stamps``."""
        if stamps == self._kept_at:
            return True
        if self._read(stamps, "SELECT 1", ()) is None:
            return False
        self._kept_at, self._kept = stamps, {}
        return True

    def kept(self, stamps: Stamps, asked: object) -> list[Any] | None:
        """Return what was kept of the same question at the same stamps."""
        return self._kept.get(asked) if stamps == self._kept_at else None

    def keep(self, stamps: Stamps, asked: object, answer: list[Any]) -> None:
        """Keep an answer for as long as nothing is renamed, made or removed in the folders."""
        if stamps == self._kept_at:
            if len(self._kept) >= _MOST_KEPT:
                self._kept = {}
            self._kept[asked] = answer

    def _read(
        self, stamps: Stamps, query: str, arguments: Sequence[Any]
    ) -> list[tuple[Any, ...]] | None:
        # Stamps and rows come from one read transaction; None where they are not of one moment.
        with self._mutex:
            connection = self._connect()
            if connection is None:
                return None
            try:
                connection.execute("BEGIN")
                try:
                    meta = connection.execute("SELECT * FROM meta").fetchone()
                    if meta is None or meta[0] != self._boot_id() or meta[1:3] != stamps:
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
        try:
            state = os.stat(self._layout.index)
        except OSError:
            self._drop()
            return None
        opened = (os.getpid(), state.st_dev, state.st_ino)
        if self._connection is not None and self._opened == opened:
            return self._connection
        self._drop()
        try:
            connection = _open(f"file:{_quoted(self._layout.index)}?mode=rw")
        except sqlite3.Error:
            try:
                connection = _open(f"file:{_quoted(self._layout.index)}?mode=ro")
            except sqlite3.Error:
                return None
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error:
            version = -1
        if version != VERSION:
            connection.close()
            return None
        self._connection, self._opened = connection, opened
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # -- look-ups ----------------------------------------------------------------------------

    def entry_rows(
        self, stamps: Stamps, where: str, arguments: Sequence[Any] = (), most: int | None = None
    ) -> list[EntryRow] | None:
        """Return rows newest first; None where the index is not at ``stamps``."""
        if where == _NO_RECORD and self.kept(stamps, where) == []:
            return []
        limit = f" LIMIT {most}" if most is not None else ""
        rows = self._read(
            stamps,
            f"SELECT * FROM entries WHERE {where}"  # noqa: S608 (our own text)
            f" ORDER BY started_s DESC, started_n DESC, session_id{limit}",
            arguments,
        )
        if rows is None:
            return None
        if where == _NO_RECORD and not rows:
            self.keep(stamps, where, [])
        return [EntryRow(row) for row in rows]

    def claim_names(
        self, stamps: Stamps, where: str, arguments: Sequence[Any] = ()
    ) -> list[str] | None:
        """Return names of claim files; None where the index is not at ``stamps``."""
        asked = ("claims", where, tuple(arguments))
        names = self.kept(stamps, asked)
        if names is None:
            rows = self._read(
                stamps,
                f"SELECT name FROM claims WHERE {where}",  # noqa: S608 (our own text)
                arguments,
            )
            if rows is None:
                return None
            names = [row[0] for row in rows]
            self.keep(stamps, asked, names)
        return names

    def claim_names_of(self, stamps: Stamps, session_id: str) -> list[str] | None:
        """Return names of the claims that name a session as holder or past holder."""
        rows = self._read(
            stamps, "SELECT name FROM claim_sessions WHERE session_id = ?", (session_id,)
        )
        return None if rows is None else [row[0] for row in rows]

    # -- writing: the caller holds the store's lock --------------------------------------------

    def record(
        self,
        before: Stamps,
        entries: dict[str, AgentEntry | None],
        claims: dict[str, Claim | None],
    ) -> None:
        """Note what was just written (None: removed), if the index was right ``before``.

        Otherwise nothing is stamped, and the next reader catches up.
        """
        with self._mutex:
            connection = self._connect()
            if connection is None:
                return
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    meta = connection.execute("SELECT * FROM meta").fetchone()
                    if meta is None or meta[0] != self._boot_id() or meta[1:3] != before:
                        connection.execute("ROLLBACK")
                        return
                    self._put_entries(connection, entries)
                    self._put_claims(connection, claims)
                    if not self._stamp(connection, before, bool(entries), bool(claims)):
                        connection.execute("ROLLBACK")
                        return
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError):
                self._drop()

    def _put_entries(
        self, connection: sqlite3.Connection, entries: dict[str, AgentEntry | None]
    ) -> None:
        for name, entry in entries.items():
            stamp = _stamp_at(self._layout.agents, name)
            if entry is None or stamp is None:
                connection.execute("DELETE FROM entries WHERE name = ?", (name,))
                continue
            connection.execute(_PUT_ENTRY, _entry_values(name, stamp, entry))

    def _put_claims(self, connection: sqlite3.Connection, claims: dict[str, Claim | None]) -> None:
        for name, claim in claims.items():
            connection.execute("DELETE FROM claim_sessions WHERE name = ?", (name,))
            stamp = _stamp_at(self._layout.claims, name)
            if claim is None or stamp is None:
                connection.execute("DELETE FROM claims WHERE name = ?", (name,))
                continue
            _put_claim(connection, name, stamp, claim)

    def _stamp(
        self, connection: sqlite3.Connection, before: Stamps, agents: bool, claims: bool
    ) -> bool:
        after = list(before)
        for place, (folder, changed) in enumerate(
            ((self._layout.agents, agents), (self._layout.claims, claims))
        ):
            if changed:
                stamp = new_stamp()
                os.utime(folder, ns=(stamp, stamp))
                if _mtime(folder) != stamp:
                    return False  # a file system that rounds: nothing can be told apart there
                after[place] = stamp
        connection.execute("UPDATE meta SET agents = ?, claims = ?", after)
        return True

    def prepare(
        self,
        entries: Iterable[RecordFile[AgentEntry]],
        claims: Iterable[RecordFile[Claim]],
    ) -> str | None:
        """Write a new index of these files beside the old one; its path, None if that failed.

        Needs no lock on the store, only that nobody else prepares one. It is trusted by nobody
        until it was `adopt`-ed and has caught up.
        """
        fresh = self._layout.index + ".building"
        _unlink(fresh)
        try:
            connection = _open(f"file:{_quoted(fresh)}?mode=rwc")
        except sqlite3.Error:
            return None
        try:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("BEGIN")
            connection.executemany(_PUT_ENTRY, map(_file_values, entries))
            for file in claims:
                _put_claim_file(connection, file)
            connection.execute("INSERT INTO meta VALUES ('', 0, 0, ?)", (_tick_of(fresh),))
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.close()
            from heddle_registry.adapters.atomic_file import folder_mode

            os.chmod(fresh, folder_mode(os.stat(self._layout.root)))
        except (sqlite3.Error, OSError):
            connection.close()
            _unlink(fresh)
            return None
        return fresh

    def adopt(self, fresh: str) -> bool:
        """Put a prepared index in place; whether that worked. It still has to catch up."""
        with self._mutex:
            self._drop()
            try:
                _unlink(self._layout.index + "-journal")
                os.replace(fresh, self._layout.index)
            except OSError:
                _unlink(fresh)
                return False
            return True

    def known_files(self, stamps_of: str) -> dict[str, Stamp] | None:
        """Return each row's file and stamp of ``entries`` or ``claims``, trusted or not."""
        with self._mutex:
            connection = self._connect()
            if connection is None:
                return None
            try:
                rows = connection.execute(
                    f"SELECT name, inode, size, mtime, ctime FROM {stamps_of}"  # noqa: S608
                ).fetchall()
            except sqlite3.Error:
                self._drop()
                return None
            return {row[0]: row[1:5] for row in rows}

    def catch_up(
        self,
        entries: Sequence[RecordFile[AgentEntry]],
        claims: Sequence[RecordFile[Claim]],
        gone_entries: Iterable[str],
        gone_claims: Iterable[str],
    ) -> bool:
        """Bring the rows of these files up to date and stamp the folders; whether that worked."""
        with self._mutex:
            connection = self._connect()
            if connection is None:
                return False
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_PUT_ENTRY, map(_file_values, entries))
                connection.executemany(
                    "DELETE FROM entries WHERE name = ?", [(name,) for name in gone_entries]
                )
                for name in [*gone_claims, *(file.name for file in claims)]:
                    connection.execute("DELETE FROM claim_sessions WHERE name = ?", (name,))
                    connection.execute("DELETE FROM claims WHERE name = ?", (name,))
                for file in claims:
                    _put_claim_file(connection, file)
                stamps = self.folder_stamps()
                connection.execute("UPDATE meta SET boot = ?", (self._boot_id(),))
                worked = self._stamp(connection, stamps, True, bool(stamps[1]))
                connection.execute("COMMIT" if worked else "ROLLBACK")
            except (sqlite3.Error, OSError):
                self._drop()
                return False
            return worked


_PUT_ENTRY: Final = (
    f"INSERT OR REPLACE INTO entries VALUES ({', '.join('?' * len(_ENTRY_COLUMNS))})"
)
_PUT_CLAIM: Final = f"INSERT OR REPLACE INTO claims VALUES ({', '.join('?' * 11)})"
_NO_FIELDS: Final = (None,) * (len(KEY_COLUMNS) + len(FIELD_COLUMNS))
_NO_VALUES: Final = (None,) * len(FIELD_COLUMNS)
_AT_SESSION: Final = FIELD_COLUMNS.index("session_id")


def _entry_values(name: str, stamp: Stamp, entry: AgentEntry) -> tuple[Any, ...]:
    try:
        fields, is_plain = entry_row(entry), 1
    except (NotPlain, TypeError, ValueError):
        fields, is_plain = _looked_up(entry), 0
    return (name, *stamp, time.time_ns(), 1, is_plain, *key_row(entry), *fields)


def _looked_up(entry: AgentEntry) -> tuple[Any, ...]:
    # Of an entry that no row can hold: only what look-ups ask for.
    values: list[Any] = list(_NO_VALUES)
    for place, column in enumerate(FIELD_COLUMNS):
        if column in _LOOKED_UP:
            values[place] = getattr(entry, column)
    values[FIELD_COLUMNS.index("status")] = entry.status.value
    return tuple(values)


_LOOKED_UP: Final = frozenset({
    "session_id", "thread", "native_actor_key", "native_parent_actor_key",
    "native_instance_key", "client_instance_id", "heddle_session_id",
})  # fmt: skip


def _file_values(file: RecordFile[AgentEntry]) -> tuple[Any, ...]:
    from heddle_registry.adapters.snapshot import entry_file_error

    stamp = file.stamp or (0, 0, 0, 0)
    if file.record is None or entry_file_error(file) is not None:
        return (_storable(file.name), *stamp, file.read_at_ns, 0, 0, *_NO_FIELDS)
    return _entry_values(file.name, stamp, file.record)


def _put_claim_file(connection: sqlite3.Connection, file: RecordFile[Claim]) -> None:
    from heddle_registry.adapters.snapshot import claim_file_error

    if file.record is None or claim_file_error(file) is not None:
        stamp = file.stamp or (0, 0, 0, 0)
        row = (_storable(file.name), *stamp, file.read_at_ns, 0, 0, None, None, None)
        connection.execute(_PUT_CLAIM, row)
        return
    _put_claim(connection, file.name, file.stamp or (0, 0, 0, 0), file.record)


def _put_claim(connection: sqlite3.Connection, name: str, stamp: Stamp, claim: Claim) -> None:
    holder = claim.holder.session_id if claim.holder is not None else None
    connection.execute(
        _PUT_CLAIM, (name, *stamp, time.time_ns(), 1, 0, claim.thread, claim.path, holder)
    )
    connection.executemany(
        "INSERT OR REPLACE INTO claim_sessions VALUES (?, ?)",
        [(session_id, name) for session_id in claim_sessions(claim)],
    )


def _storable(name: str) -> str | bytes:
    # A name that is not UTF-8 cannot be text in SQLite; its bytes can.
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def new_stamp() -> int:
    """Return an mtime that no clock gives: now, but for thirty random bits below it."""
    return (time.time_ns() >> 30 << 30) - (int.from_bytes(os.urandom(4), "big") >> 2) - 1


def _open(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = PERSIST")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _mtime(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _stamp_at(folder: str, name: str) -> Stamp | None:
    try:
        return stamp_of(os.lstat(os.path.join(folder, name)))
    except OSError:
        return None


def _tick_of(path: str) -> int:
    # Newer kernels give a file another time for every change that somebody could have told apart;
    # older ones round to their clock's tick.
    fd = os.open(path + ".tick", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(4):
            before = os.fstat(fd).st_ctime_ns
            os.write(fd, b".")
            if os.fstat(fd).st_ctime_ns == before:
                return CLOCK_TICK_NS
        return 0
    finally:
        os.close(fd)
        _unlink(path + ".tick")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
