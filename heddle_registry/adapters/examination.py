"""What is unsafe about a registry's folder. Changes nothing; the repairs are in `repair`."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from heddle_registry.adapters import repair
from heddle_registry.adapters.filesystems import filesystem_of, is_doubtful
from heddle_registry.adapters.housekeeping import leftovers
from heddle_registry.adapters.lock_holders import flock_holder
from heddle_registry.adapters.lock_trial import lock_fault
from heddle_registry.adapters.os_faults import unavailable
from heddle_registry.adapters.record_files import shown_path
from heddle_registry.adapters.record_findings import record_findings, told
from heddle_registry.adapters.repair import counted, named
from heddle_registry.ports.findings import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from heddle_registry.adapters.directory import DirectoryStore
    from heddle_registry.adapters.layout import Layout
    from heddle_registry.ports import Host

_OWN_FILES: Final = ("config.toml", "faults.jsonl", "index.sqlite")


def examine(store: DirectoryStore, host: Host, lock_timeout_s: float | None) -> tuple[Check, ...]:
    """Return every finding about the folder, the good ones too."""
    layout = store.layout
    try:
        os.stat(layout.agents)
    except FileNotFoundError:
        detail = f"none yet at {shown_path(layout.root)}; the first reservation makes it"
        return (Check(name="folder", status="ok", detail=detail),)
    except OSError as error:
        return (_unseen("folder", layout.agents, error),)
    found: list[Check] = []
    looks: tuple[tuple[str, Callable[[], Iterable[Check]]], ...] = (
        ("folder", lambda: _folders(layout)),
        ("file system", lambda: [_filesystem(layout)]),
        ("lock", lambda: [_lock(layout)]),
        ("left over", lambda: [_left_over(store, lock_timeout_s)]),
        ("quarantine", lambda: [_quarantine(layout)]),
        ("index", lambda: [_index(store, lock_timeout_s)]),
        ("entries", lambda: record_findings(store, host, lock_timeout_s)),
    )
    for name, look in looks:
        try:
            found.extend(look())
        except OSError as error:
            # What cannot be looked at is no reason to say nothing of the rest.
            found.append(_unseen(name, error.filename or layout.root, error))
    return tuple(found)


def _unseen(name: str, path: str, error: OSError) -> Check:
    refused = unavailable(shown_path(path), error, "look at it")
    return Check(name=name, status="bad", detail=told(refused), fix=refused.hint)


def _folders(layout: Layout) -> Iterator[Check]:
    all_well = True
    own = os.geteuid() if hasattr(os, "geteuid") else None
    root_owner = os.stat(layout.root).st_uid
    for path in (
        layout.root, layout.agents, layout.claims, layout.live, layout.wait, layout.tmp,
        layout.queries, layout.quarantine,
    ):  # fmt: skip
        for finding in _folder(path, own, root_owner):
            all_well = False
            yield finding
    for path in _open_to_all(layout):
        all_well = False
        yield Check(
            name="permissions",
            status="bad",
            detail=f"{shown_path(path)} can be written by everybody on this machine",
            fix="take that permission away",
            repair=partial(repair.close_to_others, path) if _may_change(path) else None,
        )
    if not os.access(layout.agents, os.W_OK):
        all_well = False
        is_read_only = hasattr(os, "statvfs") and os.statvfs(layout.agents).f_flag & os.ST_RDONLY
        way = "mount its file system writable" if is_read_only else "ask its owner for permission"
        yield Check(
            name="folder",
            status="warn",
            detail=f"{shown_path(layout.agents)} cannot be written here: looks work, changes fail",
            fix=f"{way}, or work on another registry (--heddle-dir)",
        )
    if all_well:
        yield Check(name="folder", status="ok", detail=shown_path(layout.root))


def _folder(path: str, own: int | None, root_owner: int) -> Iterator[Check]:
    try:
        state = os.lstat(path)
    except FileNotFoundError:
        return
    shown = shown_path(path)
    if not stat.S_ISDIR(state.st_mode):
        if stat.S_ISLNK(state.st_mode) and os.path.isdir(path):
            yield Check(
                name="folder",
                status="warn",
                detail=f"{shown} is a link: whoever may change it may swap the records",
                fix="put a real folder in its place",
            )
            return
        yield Check(
            name="folder",
            status="bad",
            detail=f"{shown} is no folder",
            fix="move it away; a folder is made when it is needed",
        )
        return
    if own is not None and state.st_uid not in {own, root_owner}:
        yield Check(
            name="folder",
            status="warn",
            detail=f"{shown} belongs to user {state.st_uid}, the registry to {root_owner}",
            fix="give both the same owner",
        )
    elif own is not None and path.endswith(os.sep + "agents") and state.st_uid != own:
        yield Check(
            name="folder",
            status="warn",
            detail=f"{shown} belongs to user {state.st_uid}, and you are user {own}",
            fix="let its owner share it with a group, or use a registry of your own",
        )


def _open_to_all(layout: Layout) -> Iterator[str]:
    # Of the root only what is ours. What lies in `wait` and `tmp` is soon gone.
    paths = {os.path.join(layout.root, name) for name in _OWN_FILES}
    paths |= {layout.root, *layout.folders}
    for folder in (layout.agents, layout.claims, layout.live, layout.queries):
        if not os.path.islink(folder):  # what lies behind it is not ours to change
            with suppress(OSError):  # told by whoever reads the records
                paths |= {os.path.join(folder, name) for name in os.listdir(folder)}
    for path in sorted(paths):
        with suppress(OSError):  # not there, or gone meanwhile
            state = os.lstat(path)
            if state.st_mode & stat.S_IWOTH and not stat.S_ISLNK(state.st_mode):
                yield path


def _may_change(path: str) -> bool:
    if not hasattr(os, "geteuid"):
        return False
    return os.geteuid() in (0, os.lstat(path).st_uid)


def _filesystem(layout: Layout) -> Check:
    kind = filesystem_of(layout.agents)
    if kind is None:
        return Check(name="file system", status="ok", detail="its type cannot be told here")
    if is_doubtful(kind):
        return Check(
            name="file system",
            status="warn",
            detail=f"{kind}: a lock taken there may not exclude another machine",
            fix="keep the registry on a local file system (--heddle-dir)",
        )
    return Check(name="file system", status="ok", detail=kind)


def _lock(layout: Layout) -> Check:
    fix = "keep the registry on a file system that locks (--heddle-dir)"
    fault = lock_fault(layout.agents)
    if fault is not None:
        return Check(name="lock", status="bad", detail=fault, fix=fix)
    path = os.path.join(layout.agents, ".lock")
    detail = "excludes a second descriptor and another process"
    try:
        state = os.lstat(path)
    except OSError:
        return Check(name="lock", status="ok", detail=detail)
    if not stat.S_ISREG(state.st_mode):
        return Check(
            name="lock",
            status="bad",
            detail=f"{shown_path(path)} is no regular file: nothing can be changed",
            fix="move it away; it is made when it is needed",
        )
    holder = flock_holder(state.st_dev, state.st_ino)
    if holder is not None:
        detail += f"; held by process {holder} at this moment"
    return Check(name="lock", status="ok", detail=detail)


def _left_over(store: DirectoryStore, lock_timeout_s: float | None) -> Check:
    found = [os.path.relpath(path, store.layout.root) for path in leftovers(store.layout)]
    if not found:
        return Check(name="left over", status="ok", detail="no temp files, no dead waiters")
    return Check(
        name="left over",
        status="warn",
        detail=f"{len(found)} from killed programs: {named(found)}",
        fix="remove them, as `gc` does",
        repair=partial(repair.remove_leftovers, store, lock_timeout_s),
    )


def _quarantine(layout: Layout) -> Check:
    try:
        names = sorted(os.listdir(layout.quarantine))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    if not names:
        return Check(name="quarantine", status="ok", detail="empty")
    return Check(
        name="quarantine",
        status="warn",
        detail=f"{counted(len(names), 'damaged file')} in {shown_path(layout.quarantine)}: "
        f"{named(names)}",
        fix="look whether anybody needs them, then remove them by hand",
    )


def _index(store: DirectoryStore, lock_timeout_s: float | None) -> Check:
    index = store.index
    if index.is_off:
        return Check(
            name="index",
            status="warn",
            detail="switched off by HEDDLE_REGISTRY_INDEX; every question reads every file",
            fix="Unset HEDDLE_REGISTRY_INDEX",
        )
    me = os.geteuid() if hasattr(os, "geteuid") else 0
    if me not in (0, os.stat(store.layout.agents).st_uid):
        return Check(
            name="index",
            status="warn",
            detail="only the folder's owner can keep it; what you change is found by a scan",
        )
    if os.path.lexists(store.layout.index) and not os.path.isfile(store.layout.index):
        return Check(
            name="index",
            status="warn",
            detail=f"something that is no file lies at {shown_path(store.layout.index)}; every "
            "question reads every file",
            fix="Remove it; the next question makes the index",
        )
    if index.known() is None:
        return Check(
            name="index", status="ok", detail="none yet; the next question that needs it makes it"
        )
    edited = store.edited_in_place()
    if edited:
        return Check(
            name="index",
            status="warn",
            detail=f"{len(edited)} changed in place by another program "
            f"({named([os.path.join('agents', name) for name in edited])}): whoever asks for what "
            "they say now may not find them",
            fix="read them again",
            repair=partial(repair.refresh_index, store, lock_timeout_s),
        )
    if index.is_at(index.folder_stamps()):
        return Check(name="index", status="ok", detail="up to date")
    return Check(name="index", status="ok", detail="behind; the next question brings it up to date")
