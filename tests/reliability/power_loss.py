"""What a disk may hold after the power failed, derived from the calls that were made.

A pessimistic disk: data is on it once its file was synced, a name once its folder was; before
that each change may be there or not, in any order, and data may be missing or torn. A rename is
two changes. A new folder is a name as well: with it goes all that it holds.
"""

from __future__ import annotations

import itertools
import os
from os.path import dirname
from typing import TYPE_CHECKING

import attrs

from tests.reliability.boundaries import RECORDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.reliability.io_faults import Call

QUARANTINE = "agents/.quarantine"
KEPT = (*RECORDS, QUARANTINE)
"""The folders whose files nobody may lose."""
Disk = dict[str, bytes]
"""Names below the registry's folder, and what their files hold."""


@attrs.define
class _File:
    """An inode: what was written to it, and whether that was synced."""

    data: bytes = b""
    is_synced: bool = True
    synced: bytes = b""

    def after_power_loss(self) -> list[bytes]:
        if self.is_synced:
            return [self.data]
        torn = self.data[: len(self.data) // 2]
        return list(dict.fromkeys([self.data, self.synced, torn]))


@attrs.define
class _Folder:
    """Names that are on the disk for sure, and the changes that may be: name and its new file.

    ``is_there`` tells whether its own name is on the disk.
    """

    is_there: bool = True
    names: dict[str, _File] = attrs.Factory(dict)
    pending: list[tuple[str, _File | None]] = attrs.Factory(list)

    def now(self, name: str) -> _File | None:
        for changed, file in reversed(self.pending):
            if changed == name:
                return file
        return self.names.get(name)

    def sync(self) -> None:
        for name, file in self.pending:
            if file is None:
                self.names.pop(name, None)
            else:
                self.names[name] = file
        self.pending = []


class Model:
    """Plays recorded calls; `states` are the disks that a power cut could leave right now."""

    def __init__(self, before: Mapping[str, bytes]) -> None:
        self._folders: dict[str, _Folder] = {}
        self._open: dict[int, tuple[str, _File | None]] = {}
        for path, data in before.items():
            self._folder(dirname(path)).names[os.path.basename(path)] = _File(data)

    def _folder(self, name: str) -> _Folder:
        return self._folders.setdefault(name, _Folder())

    def play(self, call: Call) -> None:
        """Take one call into account."""
        folder = self._folder(dirname(call.path))
        name = os.path.basename(call.path)
        match call.name:
            case "open" | "create":
                file = folder.now(name)
                if file is None and call.name == "create":
                    file = _File(is_synced=False)
                    folder.pending.append((name, file))
                self._open[call.fd] = (call.path, file)
            case "write" | "pwrite":
                _, file = self._open.get(call.fd, ("", None))
                if file is not None:
                    if file.is_synced:
                        file.synced, file.is_synced = file.data, False
                    file.data += call.data
            case "ftruncate":
                _, file = self._open.get(call.fd, ("", None))
                if file is not None:
                    file.is_synced = False
            case "fsync":
                path, file = self._open.get(call.fd, ("", None))
                if file is not None:
                    file.is_synced = True
                else:
                    self._sync(path)
            case "mkdir":
                self._folder(call.path).is_there = False
            case "link":
                to = self._folder(dirname(call.to))
                to.pending.append((os.path.basename(call.to), folder.now(name)))
            case "replace" | "rename":
                file = folder.now(name)
                folder.pending.append((name, None))
                to = self._folder(dirname(call.to))
                to.pending.append((os.path.basename(call.to), file))
            case "unlink":
                folder.pending.append((name, None))

    def _sync(self, path: str) -> None:
        self._folder(path).sync()
        for name, folder in self._folders.items():
            if name != path and dirname(name) == ("" if path == "." else path):
                folder.is_there = True

    def _may_go(self, where: str) -> bool:
        return not self._folder(where).is_there or bool(where and self._may_go(dirname(where)))

    def states(self) -> Iterator[Disk]:
        """Yield every disk that the records' folders may be on after a power cut now."""
        choices: list[list[tuple[str, bytes | None]]] = []
        for where in KEPT:
            folder = self._folders.get(where)
            if folder is None:
                continue
            names = sorted({*folder.names, *(name for name, _ in folder.pending)})
            for name in filter(lambda name: name != ".lock", names):
                files = [folder.names.get(name), *([None] if self._may_go(where) else [])]
                files += [file for changed, file in folder.pending if changed == name]
                found: list[tuple[str, bytes | None]] = []
                for file in files:
                    datas: list[bytes | None] = [None]
                    if file is not None:
                        datas = list(file.after_power_loss())
                    found += [(f"{where}/{name}", data) for data in datas]
                choices.append(list(dict.fromkeys(found)))
        for chosen in itertools.product(*choices):
            yield {path: data for path, data in chosen if data is not None}


def states_of(before: Mapping[str, bytes], calls: Sequence[Call]) -> list[tuple[int, Disk]]:
    """Return each state with the number of calls after which it may be found, without repeats.

    Number ``len(calls)`` is a power cut after the operation has answered.
    """
    model = Model(before)
    found: list[tuple[int, Disk]] = []
    seen: set[tuple[bool, str]] = set()
    for number in range(len(calls) + 1):
        if number:
            model.play(calls[number - 1])
        for disk in model.states():
            key = (number == len(calls), repr(sorted(disk.items())))
            if key not in seen:
                seen.add(key)
                found.append((number, disk))
    return found
