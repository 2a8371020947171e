"""One folder of TOML records: what is readable, what is not, and what was parsed before.

A parsed record is used again while its file's inode, size and times are what they were. A file
that changed within one tick of the kernel's clock before it was read may change again without a
trace, so it is read again until it is older than that.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from heddle_registry.adapters.atomic_file import UnreadableFile, read_with_stat
from heddle_registry.adapters.layout import SUFFIX, toml_names
from heddle_registry.core.limits import MAX_ENTRY_BYTES
from heddle_registry.errors import RecordCorrupt, RegistryError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Protocol

    R_co = TypeVar("R_co", covariant=True)

    class Row(Protocol[R_co]):
        """What an index keeps of one file."""

        @property
        def name(self) -> str:
            """The file's name."""

        @property
        def stamp(self) -> Stamp:
            """The file's, when the row was made."""

        def makes_record(self, tick_ns: int) -> bool:
            """Return whether the row alone makes the record of the file as it is.

            It does not where the file may have changed within ``tick_ns`` after it was read.
            """

        def record(self) -> R_co:
            """Build the record."""


R = TypeVar("R")
Stamp = tuple[int, int, int, int]
"""Inode, size, mtime and ctime in nanoseconds."""

_FOLDER_FLAGS: Final = getattr(os, "O_DIRECTORY", os.O_RDONLY)
_FEW: Final = 8
"""So many files are asked for by path: for them a folder is not worth opening."""
CLOCK_TICK_NS: Final = 20_000_000
"""Twice the coarsest step of file times that Linux has (10 ms at 100 Hz)."""


def stamp_of(state: os.stat_result) -> Stamp:
    """Return what tells a file's versions apart."""
    return (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


class RecordFile(Generic[R]):
    """One file as it was found: a record, or the reason why it is none."""

    __slots__ = ("_path", "data", "error", "is_sound", "name", "read_at_ns", "record", "stamp")

    def __init__(self, name: str, path: str, read_at_ns: int) -> None:
        self.name = name
        self._path = path
        self.record: R | None = None
        self.error: RegistryError | None = None
        self.data: bytes | None = None
        """Of a file that is no record: its content, for whoever can still read a line of it."""
        self.stamp: Stamp | None = None
        self.read_at_ns = read_at_ns
        self.is_sound = False
        """Whether somebody has seen that the record belongs under this name."""

    @property
    def path(self) -> str:
        """The file's path, as text that can be printed."""
        return shown_path(self._path)

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name[: -len(SUFFIX)]

    def is_still(self, stamp: Stamp, tick_ns: int) -> bool:
        """Return whether a file with ``stamp`` is surely this one, unchanged."""
        return self.stamp == stamp and (not tick_ns or self.read_at_ns - stamp[3] > tick_ns)


def is_closed(file: RecordFile[Any]) -> bool:
    """Return whether nobody could read the file just now.

    What one user may not read, or nobody for want of a descriptor, may be a record all the same: an
    index that called it none would hide it from everybody, for ever.
    """
    return isinstance(file.error, StoreUnavailable) and bool(file.error.errno)


class RecordFiles(Generic[R]):
    """The ``*.toml`` files of one folder. Safe for several OS threads; holds no descriptor."""

    def __init__(self, folder: str, parse: Callable[[bytes, str], R]) -> None:
        self.folder = folder
        self._below = folder + os.sep
        self._parse = parse
        self._known: dict[str, RecordFile[R]] = {}
        self.tick_ns = CLOCK_TICK_NS
        """0 where the file system gives every visible change a time of its own."""

    def names(self) -> list[str]:
        """Return the names of the files, ascending. A missing folder is empty.

        :raises StoreUnavailable: the folder cannot be read.
        """
        try:
            return sorted(toml_names(os.listdir(self.folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._closed(error) from error

    def read_each(self, names: Iterable[str]) -> Iterator[RecordFile[R]]:
        """Read these files and keep none: thousands need no more memory than one."""
        return filter(None, map(self._read, names))

    def scan(self) -> list[RecordFile[R]]:
        """Return every file, parsed anew only where it changed. A missing folder is empty.

        :raises StoreUnavailable: the folder cannot be read.
        """
        found: dict[str, RecordFile[R]] = {}
        try:
            with os.scandir(self.folder) as entries:
                names = [item.name for item in entries]
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            raise self._closed(error) from error
        for name in toml_names(names):
            file = self._as_it_is(name)
            if file is not None:
                found[name] = file
        self._known = found
        return list(found.values())

    def one(self, name: str) -> RecordFile[R] | None:
        """Return one file; None when there is none."""
        file = self._as_it_is(name)
        if file is not None:
            self._known[name] = file
        return file

    def _as_it_is(self, name: str) -> RecordFile[R] | None:
        # What was known is taken out: of one that is gone nothing stays.
        known = self._known.pop(name, None)
        if known is not None:
            with suppress(OSError):
                if known.is_still(stamp_of(os.lstat(self._below + name)), self.tick_ns):
                    return known
        return self._read(name)

    def resolve(
        self, rows: Sequence[Row[R]], tick_ns: int, seen: Mapping[str, Stamp] | None = None
    ) -> list[RecordFile[R]]:
        """Return the files that the index has these rows of, as they are now; those gone left out.

        A file is read only where it is no longer the one that its row was made from, or may have
        changed within ``tick_ns`` after.

        :param seen: the stamps of all files, where the caller has just looked at them
        """
        found: list[RecordFile[R]] = []
        keep, below, known_files = found.append, self._below, self._known
        known_stamps = nullcontext(seen.get) if seen is not None else self._stamps(len(rows))
        with known_stamps as stamp_at:
            for row in rows:
                name = row.name
                now = stamp_at(name)
                if now is None:
                    continue
                known = known_files.get(name)
                if known is not None and known.is_still(now, self.tick_ns):
                    keep(known)
                elif now == row.stamp and row.makes_record(tick_ns):
                    # The index vouches for it, whenever the file was last changed.
                    file: RecordFile[R] = RecordFile(name, below + name, sys.maxsize)
                    file.stamp = now
                    file.record = row.record()
                    file.is_sound = True  # or it would be no row that makes a record
                    known_files[name] = file  # last: other OS threads look there
                    keep(file)
                else:
                    read = self.one(name)
                    if read is not None:
                        keep(read)
        return found

    def verified(self, files: list[RecordFile[R]]) -> list[RecordFile[R]]:
        """Return these files as they are now: those that changed read again, those gone left out.

        One ``stat`` a file: this is what a repeated listing costs.
        """
        still: list[RecordFile[R]] = []
        with self._stamps(len(files)) as stamp_at:
            for file in files:
                stamp = stamp_at(file.name)
                if stamp is None:
                    continue
                if file.is_still(stamp, self.tick_ns):
                    still.append(file)
                    continue
                changed = self.one(file.name)
                if changed is not None:
                    still.append(changed)
        return still

    @contextmanager
    def _stamps(self, count: int) -> Iterator[Callable[[str], Stamp | None]]:
        # How to ask for the stamps of so many files: of many by descriptor of the folder, half the
        # price of a path each.
        folder = None
        try:
            if count > _FEW and os.stat in os.supports_dir_fd:
                with suppress(FileNotFoundError):  # then no file of it is there either
                    folder = os.open(self.folder, _FOLDER_FLAGS)
            below = "" if folder is not None else self._below
            lstat = os.stat

            def stamp_at(name: str) -> Stamp | None:
                try:
                    state = lstat(below + name, dir_fd=folder, follow_symlinks=False)
                except FileNotFoundError:
                    return None
                return (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)

            yield stamp_at
        except OSError as error:
            raise self._closed(error) from error
        finally:
            if folder is not None:
                os.close(folder)

    def remember(self, name: str, record: R) -> None:
        """Note what the caller, holding the store's lock, has just written under that name."""
        path = self._below + name
        file: RecordFile[R] = RecordFile(name, path, time.time_ns())
        try:
            file.stamp = stamp_of(os.lstat(path))
        except OSError:
            return
        file.record = record
        self._known[name] = file

    def changed_since(self, known: dict[str, Stamp]) -> tuple[list[RecordFile[R]], list[str]]:
        """Return the files whose stamp is not the known one, read, and the names that are gone."""
        stamps = self.stamps()
        changed = [name for name, stamp in stamps.items() if known.get(name) != stamp]
        files = [file for file in map(self.one, changed) if file is not None]
        return files, [name for name in known if name not in stamps]

    def forget_all(self) -> None:
        """Read everything again next time."""
        self._known = {}

    def forget(self, name: str) -> None:
        """Read that file again next time: the caller is about to change it."""
        self._known.pop(name, None)

    def stamps(self) -> dict[str, Stamp]:
        """Return each file's stamp, for a look at whether anything changed meanwhile.

        :raises StoreUnavailable: the folder cannot be read.
        """
        found: dict[str, Stamp] = {}
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return found
        except OSError as error:
            # Taken for gone, every record would be forgotten for want of a descriptor.
            raise self._closed(error) from error
        with self._stamps(len(names)) as stamp_at:
            for name in toml_names(names):
                stamp = stamp_at(name)
                if stamp is not None:
                    found[name] = stamp
        return found

    def _closed(self, error: OSError) -> StoreUnavailable:
        # Never "empty": whoever may not look must not conclude that nobody is there.
        return StoreUnavailable(
            shown_path(self.folder),
            f"it cannot be read ({error.strerror})",
            "Ask its owner for permission, or name another folder with --heddle-dir",
            errno=error.errno,
        )

    def _read(self, name: str) -> RecordFile[R] | None:
        path = self._below + name
        file: RecordFile[R] = RecordFile(name, path, time.time_ns())
        try:
            found = read_with_stat(path, MAX_ENTRY_BYTES)
        except UnreadableFile as error:
            file.error = _unreadable(file.path, error)
            return file
        if found is None:
            return None
        data, state = found
        file.stamp = stamp_of(state)
        try:
            file.record = self._parse(data, file.path)
        except RegistryError as error:
            file.error = error
            file.data = data
        return file


def _unreadable(path: str, error: UnreadableFile) -> RegistryError:
    if error.code in ("no_permission", "io"):
        return StoreUnavailable(
            path,
            error.message,
            "Ask its owner for permission" if error.code == "no_permission" else "",
            errno=error.errno,
        )
    return RecordCorrupt(path, [error.message], "Nothing reads it; remove it if nobody needs it")


def shown_path(path: str) -> str:
    """Return a path as text that can be printed, whatever bytes it holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
