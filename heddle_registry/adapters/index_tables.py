"""The tables of the index: their columns, what goes into them, and opening the database."""

from __future__ import annotations

import os
import sqlite3
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from heddle_registry.adapters.atomic_file import PRIVATE_MODE
from heddle_registry.adapters.folders import claim_file_error, claim_in, entry_file_error
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
from heddle_registry.adapters.sqlite_forks import is_safe
from heddle_registry.core.lifecycle import AgentStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heddle_registry.adapters.index_rows import RealPaths
    from heddle_registry.adapters.record_files import RecordFile, Stamp
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry

VERSION: Final = 9
_BUSY_S: Final = 0.05
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
_AT_KEYS: Final = len(_FILE_COLUMNS)
TABLES: Final = f"""
CREATE TABLE meta (boot TEXT, agents INTEGER, claims INTEGER, tick INTEGER);
CREATE TABLE entries ({", ".join(_ENTRY_COLUMNS)}, PRIMARY KEY (name)) WITHOUT ROWID;
CREATE TABLE claims (name PRIMARY KEY, inode, size, mtime, ctime, is_record,
                     thread, path, holder, sessions) WITHOUT ROWID;
CREATE TABLE claim_sessions (session_id, name, PRIMARY KEY (session_id, name)) WITHOUT ROWID;
"""
INDEXES: Final = """
CREATE INDEX entries_thread ON entries (thread, status, own_fence);
CREATE INDEX entries_pid ON entries (pid, owner_pid) WHERE pid IS NOT NULL;
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
        "client_instance_id", "heddle_session_id", "real_path",
    )
)  # fmt: skip

YOUNG: Final = "is_record = 1 AND read_at - ctime <= {tick_ns:d}"
"""Rows made within a tick of their file's change, after which it may have changed again."""
YOUNG_INDEX: Final = f"CREATE INDEX entries_young ON entries (ctime) WHERE {YOUNG}"
"""Made only where files' times are coarse: elsewhere nobody looks for young rows."""

PUT_ENTRY: Final = f"INSERT OR REPLACE INTO entries VALUES ({', '.join('?' * len(_ENTRY_COLUMNS))})"  # noqa: S608
PUT_CLAIM: Final = f"INSERT OR REPLACE INTO claims VALUES ({', '.join('?' * 10)})"  # noqa: S608
HIGHEST_FENCE: Final = "SELECT max({})".format(
    # The index is by status, too: of each the last one in it, so that none is read.
    ", ".join(
        "ifnull((SELECT max(own_fence) FROM entries"  # noqa: S608 (our own text)
        f" WHERE thread = ?1 AND status = '{status.value}'), 0)"
        for status in AgentStatus
    )
)
"""Of the thread ``?1``; 0 where no row of it has one."""
_NO_FIELDS: Final = (None,) * (len(KEY_COLUMNS) + len(FIELD_COLUMNS))
_NO_STAMP: Final = (None, None, None, None)
_NO_VALUES: Final = (None,) * len(FIELD_COLUMNS)
_started_of: Final = itemgetter(*map(_ENTRY_COLUMNS.index, ("started_s", "started_n")))
_session_of: Final = itemgetter(_ENTRY_COLUMNS.index("session_id"))
_AT_THREAD: Final = _ENTRY_COLUMNS.index("thread")


class Known(NamedTuple):
    """The row in ``meta``, and the name and stamp of each entry's and claim's file."""

    meta: tuple[Any, ...]
    entries: dict[str, Stamp]
    claims: dict[str, Stamp]


def read_known(connection: sqlite3.Connection) -> Known | None:
    """Read of which file each row was made; None where no row says of which moment they speak."""
    connection.execute("BEGIN")
    try:
        meta = connection.execute("SELECT * FROM meta").fetchone()
        entries, claims = (
            {
                shown_name(row[0]): row[1:]
                for row in connection.execute(
                    f"SELECT name, inode, size, mtime, ctime FROM {table}"  # noqa: S608 (our own)
                )
            }
            for table in ("entries", "claims")
        )
    finally:
        connection.execute("COMMIT")
    return Known(meta, entries, claims) if meta is not None else None


class EntryRow:
    """One entry's row: its file's name and stamp, and the entry if the columns hold all of it."""

    __slots__ = ("_values", "name", "stamp")

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.name: str = values[0]
        self.stamp: Stamp = values[1:5]
        self._values = values

    @property
    def thread(self) -> str | None:
        """The entry's thread, as the row knows it."""
        thread: str | None = self._values[_AT_THREAD]
        return thread

    def makes_record(self, tick_ns: int) -> bool:
        """Return whether the row alone makes the entry, as it is in the file.

        A file that changed within ``tick_ns`` before it was read may have changed again unseen.
        """
        values = self._values
        return bool(values[7]) and (tick_ns == 0 or values[5] - values[4] > tick_ns)

    def record(self) -> AgentEntry:
        """Build the entry."""
        return entry_from_row(self._values, _AT_KEYS)


def newest_first(rows: list[tuple[Any, ...]]) -> None:
    """Sort rows of records by their start, the newest first; equal starts by session id.

    Done here, for SQLite would fetch each row by way of an index, or carry all of it through its
    sorter: half again of what reading the rows takes.
    """
    rows.sort(key=_session_of)
    rows.sort(key=_started_of, reverse=True)


def entry_values(
    name: str,
    stamp: Stamp | tuple[None, ...],
    read_at_ns: int,
    entry: AgentEntry,
    real: RealPaths | None = None,
) -> tuple[Any, ...]:
    """Return the row of an entry, which its file was seen to hold at ``read_at_ns`` or later."""
    try:
        fields, is_plain = entry_row(entry), True
    except (NotPlain, TypeError, ValueError):
        fields, is_plain = _looked_up(entry), False
    return (name, *stamp, read_at_ns, True, is_plain, *key_row(entry, real), *fields)


def _looked_up(entry: AgentEntry) -> tuple[Any, ...]:
    # Of an entry that no row can hold: only what look-ups ask for.
    values: list[Any] = list(_NO_VALUES)
    for place, column in enumerate(FIELD_COLUMNS):
        if column in _LOOKED_UP:
            values[place] = getattr(entry, column)
    values[FIELD_COLUMNS.index("status")] = entry.status.value
    values[FIELD_COLUMNS.index("own_fence")] = entry.fence
    extension = entry.extension
    if extension is not None and extension.owner is not None:
        values[FIELD_COLUMNS.index("owner_pid")] = extension.owner.pid
    return tuple(values)


_LOOKED_UP: Final = frozenset({
    "session_id", "thread", "native_actor_key", "native_parent_actor_key",
    "native_instance_key", "client_instance_id", "heddle_session_id", "pid",
})  # fmt: skip


def file_values(file: RecordFile[AgentEntry], real: RealPaths | None = None) -> tuple[Any, ...]:
    """Return the row of a file in ``agents``, which may be no entry."""
    stamp = file.stamp or _NO_STAMP
    if file.record is None or entry_file_error(file) is not None:
        return (storable_name(file.name), *stamp, None, False, None, *_NO_FIELDS)
    return entry_values(file.name, stamp, file.read_at_ns, file.record, real)


def forget_claim(connection: sqlite3.Connection, file_name: str) -> None:
    """Take out what is said of a file in ``claims``."""
    name = storable_name(file_name)
    _name_sessions(connection, name, ())
    connection.execute("DELETE FROM claims WHERE name = ?", (name,))


def put_claim_file(connection: sqlite3.Connection, file: RecordFile[Claim]) -> None:
    """Put a file in ``claims``, which may be no claim, in place of what is said of it."""
    stamp, claim = file.stamp or _NO_STAMP, claim_in(file)
    if claim is not None:
        # That of a newer program stands, and is a problem too.
        is_record = claim_file_error(file) is None
        put_claim(connection, file.name, stamp, claim, is_record=is_record)
        return
    name = storable_name(file.name)
    _name_sessions(connection, name, ())
    connection.execute(PUT_CLAIM, (name, *stamp, False, None, None, None, ""))


def put_claim(
    connection: sqlite3.Connection,
    name: str,
    stamp: Stamp | tuple[None, ...],
    claim: Claim,
    *,
    is_record: bool = True,
) -> None:
    """Put a claim and the sessions that it names, in place of what is said of its file."""
    sessions = claim_sessions(claim)
    _name_sessions(connection, name, sessions)
    held = (claim.thread, claim.path, claim.holder_id, " ".join(sessions))
    connection.execute(PUT_CLAIM, (name, *stamp, is_record, *held))


def _name_sessions(
    connection: sqlite3.Connection, name: str | bytes, sessions: Sequence[str]
) -> None:
    # By their keys: there is no look-up of them by file, and claims are never pruned.
    row = connection.execute("SELECT sessions FROM claims WHERE name = ?", (name,)).fetchone()
    before = row[0].split() if row is not None else ()
    for session_id in before:
        if session_id not in sessions:
            connection.execute(
                "DELETE FROM claim_sessions WHERE session_id = ? AND name = ?", (session_id, name)
            )
    for session_id in sessions:
        if session_id not in before:
            connection.execute("INSERT INTO claim_sessions VALUES (?, ?)", (session_id, name))


def shown_name(stored: str | bytes) -> str:
    """Return the name of a file as `os.listdir` does, of what a row holds of it."""
    return os.fsdecode(stored)


def storable_name(name: str) -> str | bytes:
    """Return what a row holds of a file's name: one that is not UTF-8 cannot be text in SQLite."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def new_stamp() -> int:
    """Return an mtime that no clock gives: now, but for thirty random bits below it."""
    return (time.time_ns() >> 30 << 30) - (int.from_bytes(os.urandom(4), "big") >> 2) - 1


def open_database(uri: str) -> sqlite3.Connection:
    """Open or make a database at ``uri``; the caller is `inside`, as long as it uses it.

    Not WAL: a user who may only read the folder must be able to read it. Not synchronous: what a
    power loss takes, the next boot would not have trusted.

    :raises sqlite3.Error: it cannot be opened, or this process must not use SQLite
    """
    if not is_safe():
        raise sqlite3.OperationalError("another OS thread was inside SQLite at the fork")
    connection = sqlite3.connect(
        uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = PERSIST")
        connection.execute("PRAGMA synchronous = OFF")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def quoted(path: str) -> str:
    """Return a path as the path of a ``file:`` URI."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def mtime_of(folder: str) -> int:
    """Return a folder's mtime in nanoseconds, 0 for a missing one."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def stamp_at(folder: str, name: str) -> Stamp | None:
    """Return the stamp of a file in a folder; None for a missing one."""
    try:
        return stamp_of(os.lstat(os.path.join(folder, name)))
    except OSError:
        return None


def tick_of(path: str) -> int:
    """Return within how long after a change this file system may hide another."""
    # Newer kernels give a file another time for every change that somebody could have told apart;
    # older ones round to their clock's tick.
    unlink_quietly(path + ".tick")  # not truncated: it may be a link to somebody's file
    fd = os.open(path + ".tick", os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    try:
        for _ in range(4):
            before = os.fstat(fd).st_ctime_ns
            os.write(fd, b".")
            if os.fstat(fd).st_ctime_ns == before:
                return CLOCK_TICK_NS
        return 0
    finally:
        os.close(fd)
        unlink_quietly(path + ".tick")


def unlink_quietly(path: str) -> None:
    """Remove a file, if it is there and may be removed."""
    try:
        os.unlink(path)
    except OSError:
        return
