"""Mending a registry's folder: each repair looks again under the lock, then changes one thing."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from heddle_registry.adapters.atomic_file import replace_file, sync_folder
from heddle_registry.adapters.housekeeping import tidy
from heddle_registry.adapters.layout import SUFFIX, thread_hash
from heddle_registry.adapters.os_faults import unavailable
from heddle_registry.adapters.snapshot import Folders, claim_file_error, entry_file_error
from heddle_registry.codec.salvage import remains_of_claim
from heddle_registry.core.evidence import judge
from heddle_registry.core.limits import is_session_id
from heddle_registry.core.recovery import fence_above, recover_claim
from heddle_registry.core.transaction import Decision, Keys, PutClaim, PutEntry
from heddle_registry.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from heddle_registry.adapters.directory import DirectoryStore
    from heddle_registry.adapters.layout import Layout
    from heddle_registry.adapters.record_files import RecordFile
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.recovery import Recovered
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Facts, Loaded
    from heddle_registry.errors import RegistryError
    from heddle_registry.ports import Host

NOTHING_LEFT: Final = "nothing is wrong with it any more"
_MOST_NAME: Final = 200


def close_to_others(path: str) -> str:
    """Take write permission from everybody who is neither owner nor group."""
    try:
        state = os.lstat(path)
        if stat.S_ISLNK(state.st_mode):
            return NOTHING_LEFT
        os.chmod(path, stat.S_IMODE(state.st_mode) & ~stat.S_IWOTH)
    except OSError as error:
        raise unavailable(path, error, "change its permissions") from error
    return f"its mode is {stat.S_IMODE(os.lstat(path).st_mode):04o} now"


def remove_leftovers(store: DirectoryStore, lock_timeout_s: float | None) -> str:
    """Remove what `tidy` removes."""
    return f"removed {len(tidy(store, lock_timeout_s))}"


def name_by_content(layout: Layout, file: RecordFile[AgentEntry]) -> str | None:
    """Return the name that a misnamed but readable entry should have, if that is free."""
    if file.record is None or not is_session_id(file.record.session_id):
        return None
    name = file.record.session_id + SUFFIX
    is_free = not os.path.lexists(os.path.join(layout.agents, name))
    return name if is_free and name != file.name else None


def rename_entry(
    store: DirectoryStore, name: str, new_name: str, lock_timeout_s: float | None
) -> str:
    """Give an entry's file the name that its session id asks for."""
    layout = store.layout
    with store.lock().held(lock_timeout_s):
        file = Folders(layout).agents.one(name)
        if file is None or entry_file_error(file) is None:
            return NOTHING_LEFT
        if name_by_content(layout, file) != new_name:
            raise StoreUnavailable(file.path, "it changed meanwhile", "Look again")
        _move(layout.agents, name, layout.agents, new_name)
    return f"it is agents/{new_name} now"


def quarantine_entry(store: DirectoryStore, name: str, lock_timeout_s: float | None) -> str:
    """Move a damaged entry out of the way, whatever it is. Nothing is deleted.

    :raises StoreUnavailable: it cannot be read or moved just now.
    """
    layout = store.layout
    with store.lock().held(lock_timeout_s):
        file = Folders(layout).agents.one(name)
        error = entry_file_error(file) if file is not None else None
        if error is None:
            return NOTHING_LEFT
        _refuse_unread(error)
        layout.make_folder(layout.quarantine)
        kept = _kept_name(name)
        _move(layout.agents, name, layout.quarantine, kept)
    return f"it is agents/.quarantine/{kept} now"


def _refuse_unread(error: RegistryError) -> None:
    # What cannot be read just now may be sound, and may hold the fence that is above all others.
    if isinstance(error, StoreUnavailable):
        raise error


def _kept_name(name: str) -> str:
    shorter = name if len(os.fsencode(name)) <= _MOST_NAME else name[: _MOST_NAME // 4]
    return f"{shorter}.{os.urandom(4).hex()}"


def _move(folder: str, name: str, to_folder: str, new_name: str) -> None:
    path = os.path.join(folder, name)
    try:
        os.rename(path, os.path.join(to_folder, new_name))
    except OSError as error:
        raise unavailable(path, error, "move it") from error
    sync_folder(to_folder, changed=path)
    if folder != to_folder:
        sync_folder(folder, changed=path)


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
        _put_aside(layout, file)
        _write(store, found)
    holder = found.claim.holder
    who = f"{holder.session_id} still holds it" if holder is not None else "nobody holds it"
    return f"the claim on {thread!r} has fence {found.claim.fence} now; {who}"


def _put_aside(layout: Layout, file: RecordFile[Claim]) -> None:
    path = os.path.join(layout.claims, file.name)
    kept = _kept_name(f"claim-{file.name}")
    layout.make_folder(layout.quarantine)
    try:
        is_file = stat.S_ISREG(os.lstat(path).st_mode)
    except OSError as error:
        raise unavailable(path, error, "look at it") from error
    if not is_file:
        # A link or a folder in its place could not be replaced.
        _move(layout.claims, file.name, layout.quarantine, _kept_name(file.name))
        return
    try:
        # A second name for it: `_write` replaces the first in one step, and never is there none.
        os.link(path, os.path.join(layout.quarantine, kept))
    except OSError as error:
        if file.data is None:
            raise unavailable(path, error, "keep a copy of it") from error
        # Not every file system has second names.
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
