"""Mending a registry's folder: each repair looks again under the lock, then changes one thing."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from heddle_registry.adapters.atomic_file import replace_file
from heddle_registry.adapters.folders import (
    Folders,
    claim_file_error,
    damage_of,
    entry_file_error,
)
from heddle_registry.adapters.housekeeping import leftovers, tidy
from heddle_registry.adapters.layout import thread_hash
from heddle_registry.adapters.moving import kept_name, move, name_again, put_aside
from heddle_registry.adapters.os_faults import unavailable
from heddle_registry.adapters.record_files import shown_path
from heddle_registry.codec.salvage import remains_of_claim
from heddle_registry.core.evidence import judge
from heddle_registry.core.limits import is_session_id
from heddle_registry.core.recovery import fence_above, recover_claim
from heddle_registry.core.transaction import Decision, Keys, PutClaim, PutEntry
from heddle_registry.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from heddle_registry.adapters.directory import DirectoryStore
    from heddle_registry.adapters.layout import Layout
    from heddle_registry.adapters.record_files import RecordFile, RecordFiles
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.recovery import Recovered
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Facts, Loaded
    from heddle_registry.errors import RegistryError
    from heddle_registry.ports import Host

R = TypeVar("R")
_MOST_NAMED: Final = 5
_HASH_DIGITS: Final = 32
_FRESH_S: Final = 60.0
"""A file that is younger may be one that somebody is still writing in place."""
NOTHING_LEFT: Final = "nothing is wrong with it any more"


def close_to_others(path: str) -> str:
    """Take write permission from everybody who is neither owner nor group."""
    try:
        state = os.lstat(path)
        if stat.S_ISLNK(state.st_mode):
            return NOTHING_LEFT
        mode = stat.S_IMODE(state.st_mode) & ~stat.S_IWOTH
        os.chmod(path, mode)
    except OSError as error:
        raise unavailable(path, error, "change its permissions") from error
    return f"its mode is {mode:04o} now"


def remove_leftovers(store: DirectoryStore, lock_timeout_s: float | None) -> str:
    """Remove what `tidy` removes, and say what would not go."""
    removed = tidy(store, lock_timeout_s)
    left = [os.path.relpath(path, store.layout.root) for path in leftovers(store.layout)]
    return f"removed {len(removed)}" + (f"; left: {named(left)}" if left else "")


def counted(number: int, what: str) -> str:
    """Return a number of things for people."""
    return f"{number} {what}" + ("s" if number != 1 else "")


def named(names: Sequence[str]) -> str:
    """Return a few names for people, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(shown_path(name) for name in names[:_MOST_NAMED]) + more


def refresh_index(store: DirectoryStore, lock_timeout_s: float | None) -> str:
    """Have the index read again what another program wrote in place.

    :raises StoreUnavailable: the index cannot be kept just now.
    """
    with store.lock().held(lock_timeout_s):
        if not store.edited_in_place():
            return NOTHING_LEFT
        if not store.catch_up():
            raise StoreUnavailable(
                store.layout.index, "it cannot be brought up to date", "Looks read every file"
            )
    return "it is up to date"


def name_by_content(layout: Layout, file: RecordFile[AgentEntry]) -> str | None:
    """Return the name that a misnamed but readable entry should have, if that is free."""
    if file.record is None or not is_session_id(file.record.session_id):
        return None
    return _own_name(layout.agents, file, layout.entry_name(file.record.session_id))


def _own_name(folder: str, file: RecordFile[Any], name: str) -> str | None:
    try:
        # A second name of the same file is what an earlier repair left that was killed.
        there = os.lstat(os.path.join(folder, name)).st_ino
        is_free = file.stamp is not None and there == file.stamp[0]
    except FileNotFoundError:
        is_free = True
    except OSError:
        return None
    return name if is_free and name != file.name else None


def rename_entry(
    store: DirectoryStore, name: str, new_name: str, lock_timeout_s: float | None
) -> str:
    """Give an entry's file the name that its session id asks for."""
    files = Folders(store.layout).agents
    return _rename(store, files, entry_file_error, name_by_content, name, new_name, lock_timeout_s)


def why_wait(
    store: DirectoryStore, host: Host, file: RecordFile[AgentEntry], error: RegistryError
) -> str | None:
    """Return why a damaged entry may not be moved yet; None where it may."""
    subject = damage_of(file, error).subject
    if subject is not None and judge(subject, store.observe(host, subject)).is_alive:
        return f"Wait until process {subject.pid} has ended: it may still write to its branch"
    try:
        age_s = time.time() - os.lstat(os.path.join(store.layout.agents, file.name)).st_mtime
    except OSError:
        return None
    if file.data is not None and 0 <= age_s < _FRESH_S:
        return "Wait a minute: somebody may be writing it at this moment"
    return None


def quarantine_entry(
    store: DirectoryStore, host: Host, name: str, lock_timeout_s: float | None
) -> str:
    """Move a damaged entry out of the way, whatever it is. Nothing is deleted.

    :raises StoreUnavailable: it cannot be read or moved just now, or somebody may need it there.
    """
    layout = store.layout
    with store.lock().held(lock_timeout_s):
        file = Folders(layout).agents.one(name)
        error = entry_file_error(file) if file is not None else None
        if file is None or error is None:
            return NOTHING_LEFT
        _refuse_unread(error)
        wait = why_wait(store, host, file, error)
        if wait is not None:
            raise StoreUnavailable(file.path, "it changed meanwhile", wait)
        kept = kept_name(name)
        put_aside(layout, layout.agents, name, kept)
    return f"it is agents/.quarantine/{kept} now"


def claim_name_by_content(layout: Layout, file: RecordFile[Claim]) -> str | None:
    """Return the name that a misnamed but readable claim should have, if that is free."""
    if file.record is None:
        return None
    return _own_name(layout.claims, file, layout.claim_name(file.record.thread))


def rename_claim(
    store: DirectoryStore, name: str, new_name: str, lock_timeout_s: float | None
) -> str:
    """Give a claim's file the name that its branch asks for: only there it holds that."""
    files = Folders(store.layout).claims
    own_name = claim_name_by_content
    return _rename(store, files, claim_file_error, own_name, name, new_name, lock_timeout_s)


def _rename(
    store: DirectoryStore,
    files: RecordFiles[R],
    error_of: Callable[[RecordFile[R]], RegistryError | None],
    own_name_of: Callable[[Layout, RecordFile[R]], str | None],
    name: str,
    new_name: str,
    lock_timeout_s: float | None,
) -> str:
    with store.lock().held(lock_timeout_s):
        file = files.one(name)
        if file is None or error_of(file) is None:
            return NOTHING_LEFT
        if own_name_of(store.layout, file) != new_name:
            raise StoreUnavailable(file.path, "it changed meanwhile", "Look again")
        move(files.folder, name, files.folder, new_name)
    return f"it is {os.path.basename(files.folder)}/{new_name} now"


def is_spare(layout: Layout, file: RecordFile[Claim]) -> bool:
    """Return whether no branch loses anything with a file that is none's claim.

    It is a copy of a claim that is there and has no smaller fence, or bears no claim's name and
    says nothing of a branch.
    """
    if file.record is None:
        is_hash = len(file.stem) == _HASH_DIGITS and set(file.stem) <= set("0123456789abcdef")
        return not is_hash and remains_of_claim(file.data or b"").thread is None
    own = Folders(layout).claims.one(layout.claim_name(file.record.thread))
    if own is None or own.record is None or claim_file_error(own) is not None:
        return False
    return own.name != file.name and own.record.fence >= file.record.fence


def quarantine_claim(store: DirectoryStore, name: str, lock_timeout_s: float | None) -> str:
    """Move a file out of the way that is no branch's claim. Nothing is deleted.

    :raises StoreUnavailable: it cannot be read or moved just now.
    """
    layout = store.layout
    with store.lock().held(lock_timeout_s):
        file = Folders(layout).claims.one(name)
        error = claim_file_error(file) if file is not None else None
        if file is None or error is None:
            return NOTHING_LEFT
        _refuse_unread(error)
        if not is_spare(layout, file) or claim_name_by_content(layout, file) is not None:
            raise StoreUnavailable(file.path, "it changed meanwhile", "Look again")
        kept = kept_name(f"claim-{name}")
        put_aside(layout, layout.claims, name, kept)
    return f"it is agents/.quarantine/{kept} now"


def _refuse_unread(error: RegistryError) -> None:
    # What cannot be read just now may be sound, and may hold the fence that is above all others.
    if isinstance(error, StoreUnavailable):
        raise error


def thread_of_claim(file: RecordFile[Claim], entries: Iterable[AgentEntry]) -> str | None:
    """Return whose branch an unreadable claim is: its name is the hash of the thread."""
    named = remains_of_claim(file.data or b"").thread
    for thread in (named, *(entry.thread for entry in entries)):
        if thread is not None and thread_hash(thread) == file.stem:
            return thread
    return None


def next_fence(file: RecordFile[Claim], thread: str, entries: Iterable[AgentEntry]) -> int:
    """Return the fence under which an unreadable claim would be written anew."""
    return fence_above(thread, remains_of_claim(file.data or b""), entries)


def rebuild_claim(
    store: DirectoryStore, host: Host, name: str, lock_timeout_s: float | None
) -> str:
    """Write a damaged claim anew, as `core.recovery` finds it; the damaged file is kept.

    :raises StoreUnavailable: it, or an entry that may remember its fence, cannot be read just now.
    """
    layout = store.layout
    with store.lock().held(lock_timeout_s):
        folders = Folders(layout)
        file = folders.claims.one(name)
        error = claim_file_error(file) if file is not None else None
        if file is None or error is None:
            return NOTHING_LEFT
        _refuse_unread(error)
        entries: list[AgentEntry] = []
        for found_file in folders.agents.scan():
            entry_error = entry_file_error(found_file)
            if entry_error is not None:
                _refuse_unread(entry_error)
            elif found_file.record is not None:
                entries.append(found_file.record)
        thread = thread_of_claim(file, entries)
        if thread is None:
            raise StoreUnavailable(
                file.path, "nothing says whose branch it is", "Remove it by hand"
            )
        found = recover_claim(
            thread,
            remains_of_claim(file.data or b""),
            entries,
            lambda subject: judge(subject, store.observe(host, subject)),
            host.now(),
        )
        _keep(layout, file)
        _write(store, found)
    holder = found.claim.holder
    who = f"{holder.session_id} still holds it" if holder is not None else "nobody holds it"
    return f"the claim on {thread!r} has fence {found.claim.fence} now; {who}"


def _keep(layout: Layout, file: RecordFile[Claim]) -> None:
    path = os.path.join(layout.claims, file.name)
    kept = kept_name(f"claim-{file.name}")
    try:
        is_file = stat.S_ISREG(os.lstat(path).st_mode)
    except OSError as error:
        raise unavailable(path, error, "look at it") from error
    if not is_file:
        # A link or a folder in its place could not be replaced.
        put_aside(layout, layout.claims, file.name, kept)
        return
    layout.make_folder(layout.quarantine)
    # `_write` replaces its first name in one step, and never is there no claim.
    if not name_again(path, os.path.join(layout.quarantine, kept)):
        if file.data is None:
            put_aside(layout, layout.claims, file.name, kept)
            return
        replace_file(layout.quarantine, kept, file.data, tmp_dir=layout.tmp)


def _write(store: DirectoryStore, found: Recovered) -> None:
    def decide(_loaded: Loaded, _now: Instant, _facts: Facts) -> Decision[None]:
        effects: list[PutEntry | PutClaim] = []
        if found.entry is not None:
            effects.append(PutEntry(found.entry))
        effects.append(PutClaim(found.claim))
        return Decision(effects=tuple(effects))

    keys = Keys(sessions=(found.entry.session_id,) if found.entry is not None else ())
    outcome = store.transact(keys, decide, {})
    if isinstance(outcome, Decision) and outcome.refusal is not None:
        raise outcome.refusal
