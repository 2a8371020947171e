"""Every operation of the store, and what must be true of it whatever call fails in it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import beat
from heddle_registry.adapters import directory, procfs
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.layout import thread_hash
from heddle_registry.codec import claim_from_toml, entry_from_toml
from heddle_registry.core.attach import AttachFacts
from heddle_registry.core.entry import ContextQueryEntry
from heddle_registry.core.limits import MAX_KEPT_QUERIES
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.transaction import Keys
from heddle_registry.errors import (
    CoreError,
    LockUnsupported,
    OutcomeUnknown,
    RecordCorrupt,
    RegistryError,
    StoreUnavailable,
)
from heddle_registry.ports.query import Query
from heddle_registry.registry import AgentRegistry
from tests.registry.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.testing.fake_host import FakeHost

AT = Timestamp("2026-07-01T12:00:00Z")
DAYS_8 = 8 * 86_400
NO_CLAIMS_FENCE = 7
NO_CLAIM = b'schema = 1\nthread = "main"\nfence = 7\n\n[holder\n'
"""What is left of a claim's file after damage."""
RECORDS = ("agents", "claims", "queries")


def in_folder(world: World, folder: Path, *, index: bool = True) -> World:
    """Return the same world with the registry's folder elsewhere, and nothing remembered of it."""
    forget(folder)
    moved = World.__new__(World)
    moved.host, moved.folder = world.host, folder
    moved.store = DirectoryStore(str(folder), world.host, lock_timeout_s=5)
    moved.registry = AgentRegistry(store=moved.store, host=world.host)
    # However fast this machine is: the same files are read again, or not, in every run.
    for files in (moved.store._folders.agents, moved.store._folders.claims):
        files.tick_ns = 0
    moved.store._index.is_off = not index
    return moved


def forget(folder: Path) -> None:
    """Let this process know nothing of a folder any more, as a new one would."""
    kept = directory._shared.pop(os.path.realpath(folder), None)
    if kept is not None:
        kept[1]._drop()


def _held(world: World) -> Any:
    return world.reserve(pid=world.host.spawn(["holder"]), path=str(world.folder.parent))


def _timed(world: World) -> Any:
    return world.reserve()


class _Machine:
    """What the quick heartbeat asks the kernel, answered by the world's host."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.awake_ns = lambda: host.now().awake_ns
        self.boot_id = lambda: host.boot_id
        self.time_ns = lambda: host.time_ns
        self.pid_ns = lambda: host.pid_ns

    def running_since(self, pid: int) -> int | None:
        owner = self._host.owner_for(pid)
        return owner.start_ticks if owner is not None else None


def _beat(world: World, held: Any) -> bool:
    """Renew as the command does; whether the quick heartbeat could."""
    host = world.host
    words = (held.entry.session_id, "--token", held.token, "--heddle-dir", str(world.folder))
    clock = SimpleNamespace(time_ns=lambda: host.now().at.unix_ns, gmtime=time.gmtime)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        for name in [name for name in os.environ if name.startswith("HEDDLE")]:
            patch.delenv(name)
        patch.setenv("HOME", str(world.folder))
        patch.setattr(procfs, "Procfs", lambda: _Machine(host))
        patch.setattr(beat, "time", clock)
        status = beat.beat(words)
    if status is None:  # whatever stood in its way, the registry does it or says what is wrong
        world.registry.heartbeat(held.entry.session_id, held.token)
    return status == 0


def _nothing(world: World) -> None:
    world.present("agent-elsewhere", "elsewhere")


def _expired(world: World) -> Any:
    held = world.reserve()
    world.host.advance(301)
    return held


def _dead_and_stale(world: World) -> Any:
    world.registry.save(world.entry("agent-old", "old"))
    world.registry.update_status("agent-old", "complete")
    world.host.advance(DAYS_8)
    held = _held(world)
    gone = world.host.spawn(["gone"])
    world.present("agent-dead", pid=gone)
    world.host.kill(gone)
    world.host.kill(held.entry.pid)
    return held


def _present(world: World) -> None:
    world.present("agent-there", pid=world.host.spawn(["there"]))


def _full_log(world: World) -> Any:
    queries = tuple(
        ContextQueryEntry(path=f"p{number}", scope="s", queried_at=AT)
        for number in range(MAX_KEPT_QUERIES)
    )
    world.registry.save(world.entry("agent-log", context_queries=queries))
    world.registry.log_context_query("agent-log", _query("before"))


def _query(path: str) -> ContextQueryEntry:
    return ContextQueryEntry(path=path, scope="s", queried_at=AT)


def _many(world: World) -> Any:
    for number in range(3):
        world.present(f"agent-{number}", f"f/{number}", native_actor_key=f"x:{number}")
    held = _held(world)
    world.registry.list()
    return held


def _changed_by_a_stranger(world: World) -> Any:
    held = _many(world)
    path = world.folder / "agents" / "agent-1.toml"
    other = path.with_name("agent-9.toml")
    other.write_bytes(path.read_bytes().replace(b"agent-1", b"agent-9"))
    (world.folder / "agents" / "agent-2.toml").unlink()
    return held


def _without_index(world: World) -> Any:
    held = _many(world)
    for path in world.folder.glob("index.sqlite*"):
        path.unlink()
    return held


def _join(world: World, _: Any) -> None:
    with world.store.join_line("main", 60) as place:
        assert place.ticket


def _hold_by_lock(world: World, _: Any) -> None:
    liveness = world.store.hold_liveness("agent-alive")
    assert liveness is not None
    liveness.discard()


def _take(world: World, _: Any) -> object:
    return world.reserve(pid=world.host.spawn(["taker"]))


def _ask(world: World, _: Any) -> object:
    return world.refused(pid=world.host.spawn(["asker"]))


def _ask_folder(world: World, _: Any) -> object:
    pid = world.host.spawn(["asker"])
    return world.refused("other", pid=pid, path=str(world.folder.parent))


def _looks(world: World, _: Any) -> object:
    # What cannot be read is named as a problem; nothing is silently missing.
    world.registry.find_active_by_native_actor_key("x:1")
    look = world.registry.look(Query())
    unread: dict[str, set[str]] = {"agents": set(), "claims": set()}
    for problem in look.problems:
        folder, name = os.path.split(problem.path)
        unread[os.path.basename(folder)].add(name.partition(".")[0])
    if "main" in {entry.thread for entry in look.entries}:
        is_told = "main" in look.claims or thread_hash("main") in unread["claims"]
        assert is_told, "a holder was shown without its claim"
    return {entry.session_id for entry in look.entries} | unread["agents"]


def _attach(world: World, _: Any) -> object:
    facts = AttachFacts(
        thread="main", native_actor_key="codex:thread:1", owner=world.host.owner_for(100)
    )
    return world.registry.attach(facts, "base").created


@attrs.frozen
class Operation:
    """``prepare`` makes the folder, ``act`` is what meets the fault.

    ``grants`` says that it gives the branch ``main`` away, and gives it back where nobody can be
    told the token; ``refuses`` that it never may change anything. ``keeps`` is what a damaged file
    holds: moved or not, it is never lost. ``mends`` is done again before the next writer comes.
    ``proves`` asserts, of a folder and an answer, what must be so once it is done.
    """

    name: str
    prepare: Callable[[World], Any]
    act: Callable[[World, Any], object]
    refuses: bool = False
    grants: bool = False
    looks: bool = False
    index: bool = True
    keeps: bytes | None = None
    mends: Callable[[World], object] | None = None
    proves: Callable[[Path, Any], None] | None = None


OPERATIONS = (
    Operation("the first reserve of all", lambda _: None, _take, grants=True),
    Operation("reserve", _nothing, _take, grants=True),
    Operation("reserve, refused by a holder", _held, _ask, refuses=True),
    Operation("reserve, refused by an agent that is there", _present, _ask,
              refuses=True),
    Operation("reserve, refused by the folder's holder", _held, _ask_folder, refuses=True),
    Operation("reserve, refused by a holder, by a scan", _held, _ask, refuses=True, index=False),
    Operation("reserve, refused by one that is there, by a scan", _present, _ask, refuses=True,
              index=False),
    Operation("reserve, refused by the folder's holder, by a scan", _held, _ask_folder,
              refuses=True, index=False),
    Operation("take over after the TTL", _expired, _take, grants=True),
    Operation("reserve over the dead and the stale", _dead_and_stale, _take, grants=True),
    Operation("force", _held, lambda w, _: w.on_terms(force_reason="x", ttl_s=60), grants=True),
    Operation("renew", _held, lambda w, h: w.registry.heartbeat(h.entry.session_id, h.token)),
    Operation("renew by the quick heartbeat", _held, _beat),
    Operation("release", _held, lambda w, h: w.registry.release(h.entry.session_id, token=h.token)),
    Operation("hand over", _held,
              lambda w, h: w.registry.hand_over(h.entry.session_id, h.token, to_ttl_s=60)),
    Operation("update an entry", _held, lambda w, h: w.registry.update_entry(
        h.entry.session_id, lambda entry: attrs.evolve(entry, model="new"))),
    Operation("save a new entry", _nothing, lambda w, _: w.registry.save(w.entry("agent-new"))),
    Operation("end by update_status", _held,
              lambda w, h: w.registry.update_status(h.entry.session_id, "complete")),
    Operation("delete", _held, lambda w, h: w.registry.delete(h.entry.session_id)),
    Operation("delete the holder of no folder", _timed,
              lambda w, h: w.registry.delete(h.entry.session_id)),
    Operation("release by the holder of no folder", _timed,
              lambda w, h: w.registry.release(h.entry.session_id, token=h.token)),
    Operation("sweep and prune", _dead_and_stale, lambda w, _: w.registry.sweep()),
    Operation("log a query over the brim", _full_log,
              lambda w, _: w.registry.log_context_query("agent-log", _query("after"))),
    Operation("attach", _nothing, _attach),
    Operation("join the line", _held, _join),
    Operation("hold a liveness lock", _nothing, _hold_by_lock),
    Operation("tidy", _held, lambda w, _: w.store.tidy()),
    Operation("look, by a right index", _many, _looks, looks=True),
    Operation("look, by an index that must catch up", _changed_by_a_stranger, _looks, looks=True),
    Operation("look, without an index", _without_index, _looks, looks=True),
    Operation("check a fence", _held, lambda w, h: w.registry.check("main", h.fence).valid,
              looks=True),
)  # fmt: skip


def records_of(folder: Path) -> dict[str, bytes]:
    """Return every file that is a record: what a failed operation must leave as it was."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in RECORDS
        for path in sorted((folder / name).glob("*.*"))
        if path.is_file() and path.name != ".lock"
    }


def signature_of(folder: Path) -> object:
    """Return what tells apart the states in which a fault may leave a folder.

    Two folders with one signature go on alike: the same records, the same names elsewhere, and
    an index with the same rows that is, or is not, believed.
    """
    names = {
        name: sorted(re.sub(r"\.([0-9a-f]{16}\.tmp|[0-9a-f]{8})(?=$|/)", ".x",
                            str(path.relative_to(folder)))
                     for path in (folder / name).rglob("*"))
        for name in ("tmp", "live", "wait", "agents")
    }  # fmt: skip
    index: object = None
    path = folder / "index.sqlite"
    if path.exists():
        try:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                [meta] = connection.execute("SELECT boot, agents, claims FROM meta").fetchall()
                stamps = tuple((folder / name).stat().st_mtime_ns if (folder / name).exists() else 0
                               for name in ("agents", "claims"))  # fmt: skip
                rows = connection.execute("SELECT name, status, thread FROM entries").fetchall()
                claims = connection.execute("SELECT name, holder, path FROM claims").fetchall()
                index = (meta[0], meta[1:] == stamps, rows, claims)
        except (sqlite3.Error, ValueError) as error:
            index = str(error)
    return repr((records_of(folder), names, index))


def fences_of(folder: Path) -> dict[str, int]:
    """Return the fence of each branch: its claim's, and without one its entries' copies."""
    found: dict[str, int] = {}
    for path in filter(Path.is_file, (folder / "claims").glob("*.toml")):
        data = path.read_bytes()
        if data == NO_CLAIM:
            found["main"] = NO_CLAIMS_FENCE
            continue
        with contextlib.suppress(RecordCorrupt):  # told as a problem, where it is one
            claim = claim_from_toml(data, str(path))
            found[claim.thread] = claim.fence
    copies: dict[str, int] = {}
    for path in filter(Path.is_file, (folder / "agents").glob("agent-*.toml")):
        with contextlib.suppress(RecordCorrupt):
            entry = entry_from_toml(path.read_bytes(), str(path))
            copies[entry.thread] = max(copies.get(entry.thread, 0), entry.fence or 0)
    return copies | found


def assert_kept(folder: Path, data: bytes | None) -> None:
    """Assert that a damaged file's bytes are still somewhere, under whatever name."""
    files = (path for place in ("agents", "claims") for path in (folder / place).rglob("*")
             if path.is_file())  # fmt: skip
    assert data is None or data in [path.read_bytes() for path in files], "damage was lost"


def assert_sound(world: World, fences: dict[str, int], *, wrote: bool) -> None:
    """Assert what every newcomer may rely on, after whatever went wrong before."""
    folder = world.folder
    for path in (folder / "agents").glob("*.toml"):
        entry_from_toml(path.read_bytes(), str(path))  # readable, not a byte torn
    newest = fences_of(folder)
    for thread, fence in fences.items():
        assert newest.get(thread, 0) >= fence, f"the fence of {thread} fell"
    look = world.store.look(Query(include_stale=True))
    assert not look.problems, look.problems
    for thread in ("main", "other", "elsewhere"):
        loaded, now = world.store.peek(Keys(threads=(thread,)))
        claim = loaded.claim_on(thread, now)
        standing = world.registry.standing_of(claim, loaded.entries.values(), now)
        if standing.is_valid:
            assert claim.holder is not None
            holder = loaded.entries[claim.holder.session_id]
            assert holder.is_active
            assert holder.fence == claim.fence
            assert claim.fence >= fences.get(thread, 0)
    if wrote:
        assert not list((folder / "tmp").glob("*")), "temp files outlived the next write"


def aftermath(world: World, fences: dict[str, int]) -> None:
    """Let the next writer come, then look that nothing stands in anybody's way."""
    fresh = in_folder(world, world.folder)
    pid = fresh.host.spawn(["next"])
    elsewhere = fresh.reserve("the next one's", pid=pid)
    assert elsewhere.fence >= 1
    assert_sound(fresh, fences, wrote=True)
    outcome = fresh.on_terms("main", force_reason="to see that it can be had", ttl_s=60)
    assert outcome.fence > fences.get("main", 0)
    assert_sound(fresh, fences, wrote=True)
    forget(world.folder)


def copy_of(template: Path, target: Path) -> None:
    """Copy a registry, its folders' times included, so that its index is still right."""
    if template.exists():
        shutil.copytree(template, target, symlinks=True)


def classify(error: BaseException | None) -> str:
    """Return the class of an outcome for the table; raises what is none."""
    if error is None:
        return "done"
    if isinstance(error, OutcomeUnknown):
        return "unknown"
    if isinstance(error, (StoreUnavailable, LockUnsupported)):
        return "refused"
    if isinstance(error, CoreError):
        return "denied"
    if isinstance(error, RegistryError):
        return error.code
    raise error
