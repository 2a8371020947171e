"""What is unsafe about a registry's folder. Changes nothing; the repairs are in `repair`."""

from __future__ import annotations

import os
import stat
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from heddle_registry.adapters import repair
from heddle_registry.adapters.filesystems import filesystem_of, is_doubtful
from heddle_registry.adapters.housekeeping import leftovers
from heddle_registry.adapters.lock_holders import flock_holder
from heddle_registry.adapters.lock_trial import lock_fault
from heddle_registry.adapters.record_files import shown_path
from heddle_registry.adapters.snapshot import (
    Folders,
    claim_file_error,
    damage_of,
    entry_file_error,
)
from heddle_registry.core.claim import ClaimState
from heddle_registry.core.evidence import Subject, judge
from heddle_registry.core.standing import Witness, stand
from heddle_registry.core.transaction import fact_key
from heddle_registry.errors import RegistryError, StoreUnavailable
from heddle_registry.ports import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.directory import DirectoryStore
    from heddle_registry.adapters.layout import Layout
    from heddle_registry.adapters.record_files import RecordFile
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.transaction import Facts
    from heddle_registry.ports import Host

_MOST_NAMED: Final = 5
_FRESH_S: Final = 60.0
"""A file that is younger may be one that somebody is still writing in place."""


def examine(store: DirectoryStore, host: Host, lock_timeout_s: float | None) -> tuple[Check, ...]:
    """Return every finding about the folder, the good ones too."""
    layout = store.layout
    if not os.path.isdir(layout.agents):
        detail = f"none yet at {shown_path(layout.root)}; the first reservation makes it"
        return (Check(name="folder", status="ok", detail=detail),)
    return (
        *_folders(layout),
        _filesystem(layout),
        _lock(layout),
        _left_over(store, lock_timeout_s),
        _quarantine(layout),
        _index(store),
        *_records(store, host, lock_timeout_s),
    )


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
        yield Check(
            name="folder",
            status="warn",
            detail=f"{shown_path(layout.agents)} cannot be written here: looks work, changes fail",
            fix="ask its owner for permission, or work on another registry (--heddle-dir)",
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
    for folder in (layout.root, layout.agents, layout.claims, layout.live, layout.wait, layout.tmp):
        try:
            states = [(folder, os.lstat(folder))]
            if folder in (layout.agents, layout.claims):
                with os.scandir(folder) as items:
                    states += [(i.path, i.stat(follow_symlinks=False)) for i in items]
        except OSError:
            continue
        for path, state in states:
            is_link = stat.S_ISLNK(state.st_mode)
            if state.st_mode & stat.S_IWOTH and not is_link:
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
    try:
        fault = lock_fault(layout.agents)
    except OSError as error:
        return Check(name="lock", status="bad", detail=f"it cannot be tried ({error.strerror})")
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
        detail=f"{len(found)} from killed programs: {_named(found)}",
        fix="remove them, as `gc` does",
        repair=partial(repair.remove_leftovers, store, lock_timeout_s),
    )


def _quarantine(layout: Layout) -> Check:
    try:
        names = sorted(os.listdir(layout.quarantine))
    except OSError:
        names = []
    if not names:
        return Check(name="quarantine", status="ok", detail="empty")
    return Check(
        name="quarantine",
        status="warn",
        detail=f"{len(names)} damaged files in {shown_path(layout.quarantine)}: {_named(names)}",
        fix="look whether anybody needs them, then remove them by hand",
    )


def _index(store: DirectoryStore) -> Check:
    index = store.index
    if index.is_off:
        return Check(
            name="index",
            status="warn",
            detail="switched off by HEDDLE_REGISTRY_INDEX; every question reads every file",
            fix="Unset HEDDLE_REGISTRY_INDEX",
        )
    if hasattr(os, "geteuid") and os.stat(store.layout.agents).st_uid not in (0, os.geteuid()):
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
    if index.known_files("entries") is None:
        return Check(
            name="index", status="ok", detail="none yet; the next question that needs it makes it"
        )
    if index.is_at(index.folder_stamps()):
        return Check(name="index", status="ok", detail="up to date")
    return Check(name="index", status="ok", detail="behind; the next question brings it up to date")


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(shown_path(name) for name in names[:_MOST_NAMED]) + more


def _records(store: DirectoryStore, host: Host, lock_timeout_s: float | None) -> Iterator[Check]:
    folders = Folders(store.layout)
    try:
        entry_files, claim_files = folders.agents.scan(), folders.claims.scan()
    except RegistryError as refused:
        yield Check(name="records", status="bad", detail=refused.message, fix=refused.hint)
        return
    entries: dict[str, AgentEntry] = {}
    unreadable: set[str] = set()
    for entry_file in sorted(entry_files, key=lambda file: file.name):
        error = entry_file_error(entry_file)
        if error is None and entry_file.record is not None:
            entries[entry_file.stem] = entry_file.record
        elif error is not None:
            unreadable.add(entry_file.stem)
            yield _entry(store, host, entry_file, error, lock_timeout_s)
    elsewhere = _in_other_namespaces(host, entries)
    if elsewhere:
        yield Check(
            name="entries",
            status="warn",
            detail=f"{len(elsewhere)} run in another pid or time namespace ({_named(elsewhere)}): "
            "nobody here can tell when they end",
            fix="release them from there, or give them a TTL",
        )
    if not unreadable and not elsewhere:
        yield Check(name="entries", status="ok", detail=f"{len(entries)} readable")
    damaged = 0
    for claim_file in sorted(claim_files, key=lambda file: file.name):
        error = claim_file_error(claim_file)
        finding = None
        if error is not None:
            finding = _claim(store, host, claim_file, error, entries, lock_timeout_s)
        elif claim_file.record is not None and claim_file.record.holder_id not in unreadable:
            finding = _lost(store, host, claim_file.record, entries)
        if finding is not None:
            damaged += 1
            yield finding
    if not damaged:
        yield Check(name="claims", status="ok", detail=f"{len(claim_files)} readable")


def _in_other_namespaces(host: Host, entries: dict[str, AgentEntry]) -> list[str]:
    here = host.observe(Subject(session_id="doctor"))
    found = []
    for session_id, entry in entries.items():
        owner = entry.owner
        if owner is None or not entry.is_active or owner.boot_id != here.boot_id:
            continue
        if (owner.pid_ns and owner.pid_ns != here.pid_ns) or (
            owner.time_ns and owner.time_ns != here.time_ns
        ):
            found.append(session_id)
    return found


def _entry(
    store: DirectoryStore,
    host: Host,
    file: RecordFile[AgentEntry],
    error: RegistryError,
    lock_timeout_s: float | None,
) -> Check:
    path = os.path.join(store.layout.agents, file.name)

    def bad(fix: str, mending: partial[str] | None = None) -> Check:
        detail = error.message
        return Check(name="entries", status="bad", detail=detail, fix=fix, repair=mending)

    if isinstance(error, StoreUnavailable):
        return bad(error.hint or "make the file readable")
    own_name = repair.name_by_content(store.layout, file)
    if own_name is not None:
        return bad(
            f"rename it to agents/{own_name}",
            partial(repair.rename_entry, store, file.name, own_name, lock_timeout_s),
        )
    subject = damage_of(file, error).subject
    if subject is not None and judge(subject, store.observe(host, subject)).is_alive:
        return bad(f"wait until process {subject.pid} has ended: it may still write to its branch")
    try:
        age_s = time.time() - os.lstat(path).st_mtime
    except OSError:
        age_s = _FRESH_S
    if file.data is not None and 0 <= age_s < _FRESH_S:
        return bad("wait a minute: somebody may be writing it at this moment")
    return bad(
        "move it to agents/.quarantine",
        partial(repair.quarantine_entry, store, file.name, lock_timeout_s),
    )


def _claim(
    store: DirectoryStore,
    host: Host,
    file: RecordFile[Claim],
    error: RegistryError,
    entries: dict[str, AgentEntry],
    lock_timeout_s: float | None,
) -> Check:
    if isinstance(error, StoreUnavailable):
        fix, mending = error.hint or "make the file readable", None
    else:
        thread = repair.thread_of_claim(file, entries.values())
        if thread is None:
            fix = "nothing says whose branch it is: once nobody works there, remove it by hand"
            mending = None
        else:
            fence = repair.next_fence(file, thread, entries.values())
            fix = f"write the claim on {thread!r} anew, with fence {fence}"
            mending = partial(repair.rebuild_claim, store, host, file.name, lock_timeout_s)
    return Check(name="claims", status="bad", detail=error.message, fix=fix, repair=mending)


def _lost(
    store: DirectoryStore, host: Host, claim: Claim, entries: dict[str, AgentEntry]
) -> Check | None:
    facts: Facts = {}
    now = host.now()
    witness = Witness(facts)
    standing = stand(claim, entries, witness, now)
    need = witness.missing()
    if need is not None:
        facts.update({fact_key(s): store.observe(host, s) for s in need.subjects})
        standing = stand(claim, entries, Witness(facts), now)
    if standing.state is not ClaimState.LOST or claim.holder is None:
        return None
    return Check(
        name="claims",
        status="warn",
        detail=f"branch {claim.thread!r} is lost: another program ended the entry of "
        f"{claim.holder.session_id}, which may still write",
        fix=f"{standing.frees_when()}; or take it with `reserve --force --reason`",
    )
