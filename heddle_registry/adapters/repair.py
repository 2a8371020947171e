"""Mending a registry's folder: each repair looks again under the lock, then changes one thing."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.adapters.atomic_file import sync_folder
from heddle_registry.adapters.housekeeping import tidy
from heddle_registry.adapters.layout import SUFFIX, thread_hash
from heddle_registry.adapters.os_faults import unavailable
from heddle_registry.adapters.snapshot import Folders, claim_file_error, entry_file_error
from heddle_registry.core.claim import Claim, claim_of_entry
from heddle_registry.core.evidence import judge
from heddle_registry.core.limits import is_session_id
from heddle_registry.core.transaction import Decision, Keys, PutClaim, PutEntry
from heddle_registry.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from heddle_registry.adapters.directory import DirectoryStore
    from heddle_registry.adapters.layout import Layout
    from heddle_registry.adapters.record_files import RecordFile
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Facts, Loaded
    from heddle_registry.ports import Host

NOTHING_LEFT: Final = "nothing is wrong with it any more"
_MOST_NAME: Final = 200
_FENCE_LINE: Final = re.compile(rb"^\s*fence\s*=\s*(\d{1,19})\b", re.MULTILINE)
_MAX_FENCE: Final = 2**63 - 2


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
    """Move a damaged entry out of the way, whatever it is. Nothing is deleted."""
    layout = store.layout
    with store.lock().held(lock_timeout_s):
        file = Folders(layout).agents.one(name)
        if file is None or entry_file_error(file) is None:
            return NOTHING_LEFT
        layout.make_folder(layout.quarantine)
        kept = _kept_name(name)
        _move(layout.agents, name, layout.quarantine, kept)
    return f"it is agents/.quarantine/{kept} now"


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
    for thread in (_thread_line(file.data or b""), *(entry.thread for entry in entries)):
        if thread is not None and thread_hash(thread) == file.stem:
            return thread
    return None


def _thread_line(data: bytes) -> str | None:
    import tomli

    for line in data.splitlines():
        if line.startswith(b"thread"):
            with suppress(ValueError, RecursionError):
                thread = tomli.loads(line.decode()).get("thread")
                if isinstance(thread, str):
                    return thread
    return None


def fence_above(file: RecordFile[Claim], thread: str, entries: Iterable[AgentEntry]) -> int:
    """Return a fence above every one that the file or an entry on the branch still shows."""
    found = [int(digits) for digits in _FENCE_LINE.findall(file.data or b"")]
    found += [
        entry.fence for entry in entries if entry.thread == thread and entry.fence is not None
    ]
    return 1 + max((fence for fence in found if fence <= _MAX_FENCE), default=0)


def rebuild_claim(
    store: DirectoryStore, host: Host, name: str, lock_timeout_s: float | None
) -> str:
    """Write an unreadable claim anew.

    Its newest holder that is known and not proven dead keeps the branch, under the new fence and
    with its old token: the file is damaged, not the holder. Otherwise nobody holds it.
    """
    layout = store.layout
    with store.lock().held(lock_timeout_s):
        folders = Folders(layout)
        file = folders.claims.one(name)
        if file is None or claim_file_error(file) is None:
            return NOTHING_LEFT
        entries = [f.record for f in folders.agents.scan() if f.record and not entry_file_error(f)]
        thread = thread_of_claim(file, entries)
        if thread is None:
            raise StoreUnavailable(
                file.path, "nothing says whose branch it is", "Remove it by hand"
            )
        fence = fence_above(file, thread, entries)
        holder = _newest_holder(store, host, thread, entries)
        _put_aside(layout, name)
        _write(store, thread, fence, holder)
    who = f"{holder.session_id} still holds it" if holder is not None else "nobody holds it"
    return f"the claim on {thread!r} has fence {fence} now; {who}"


def _newest_holder(
    store: DirectoryStore, host: Host, thread: str, entries: list[AgentEntry]
) -> AgentEntry | None:
    holders = [e for e in entries if e.thread == thread and e.is_active and e.fence is not None]
    newest = max(holders, key=lambda entry: entry.fence or 0, default=None)
    if newest is None:
        return None
    subject = newest.subject()
    if judge(subject, store.observe(host, subject)).is_dead:
        return None
    return newest


def _put_aside(layout: Layout, name: str) -> None:
    # A link or a folder in its place could not be replaced; a file is, in one step, by `_write`.
    path = os.path.join(layout.claims, name)
    if stat.S_ISREG(os.lstat(path).st_mode):
        return
    layout.make_folder(layout.quarantine)
    _move(layout.claims, name, layout.quarantine, _kept_name(name))


def _write(store: DirectoryStore, thread: str, fence: int, holder: AgentEntry | None) -> None:
    def decide(_loaded: Loaded, now: Instant, _facts: Facts) -> Decision[None]:
        claim = Claim(thread=thread)
        effects: list[PutEntry | PutClaim] = []
        if holder is not None:
            kept = holder.extended(fence=fence)
            claim = claim_of_entry(kept, now)
            effects.append(PutEntry(kept))
        effects.append(PutClaim(attrs.evolve(claim, fence=fence)))
        return Decision(effects=tuple(effects))

    keys = Keys(sessions=(holder.session_id,) if holder is not None else ())
    outcome = store.transact(keys, decide, {})
    if isinstance(outcome, Decision) and outcome.refusal is not None:
        raise outcome.refusal
