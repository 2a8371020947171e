"""What runs of the harnesses in a repository, put together from processes and live files.

The part of `heddle_registry.unregistered` that costs: imported once something was found.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.chain import precedence
from heddle_registry.core.harness import Process, native_id
from heddle_registry.core.record import Record
from heddle_registry.core.timestamp import NS_PER_S, Timestamp
from heddle_registry.detection import known_harnesses
from heddle_registry.ports.process import ProcessInfo
from heddle_registry.ports.query import Query
from heddle_registry.probe import process_of
from heddle_registry.unregistered import json_object_in, names_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.harness import Harness, Role
    from heddle_registry.ports import Host
    from heddle_registry.registry import AgentRegistry


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Unregistered(Record):
    """A running harness in this repository that no Active entry speaks of.

    ``pid`` is its outermost process. ``evidence`` names what showed it: ``program:<name>``,
    ``live_file``. ``confidence`` is lower where the harness is known from documents only.
    """

    harness: str
    pid: int
    cwd: str
    native_actor_key: str | None = None
    since: Timestamp | None = None
    evidence: tuple[str, ...] = ()
    confidence: float


class _Instance:
    # One running harness, as far as it has been put together.
    def __init__(self, harness: Harness, first: ProcessInfo) -> None:
        self.harness = harness
        self.processes = [first]
        self.evidence: list[str] = []
        self.key: str | None = None


def running_without_entry(
    registry: AgentRegistry,
    seen: Mapping[int, ProcessInfo],
    live: Iterable[tuple[int, str, str, str]],
    is_here: Callable[[str | None], bool],
) -> tuple[Unregistered, ...]:
    """Return the harnesses among ``seen`` that are here and that no Active entry speaks of.

    :param seen: processes that may be harnesses, and their ancestors, by pid
    :param live: pid, start ticks, session and folder of Claude Code's live files
    :param is_here: whether a working directory belongs to the repository
    """
    ranked = precedence(known_harnesses())
    instances = _instances(seen, ranked)
    _add_live_files(registry.host, seen, instances, ranked, live)
    here = [i for i in instances if is_here(i.processes[0].cwd)]
    return tuple(
        Unregistered(
            harness=instance.harness.name,
            pid=instance.processes[0].pid,
            cwd=instance.processes[0].cwd or "",
            native_actor_key=instance.key,
            since=_since(instance.processes[0]),
            evidence=tuple(dict.fromkeys(instance.evidence)),
            confidence=instance.harness.ceiling,
        )
        for instance in _without_entry(registry, here, seen)
    )


def _instances(seen: Mapping[int, ProcessInfo], ranked: Sequence[Harness]) -> list[_Instance]:
    """Group the processes of harnesses: a launcher, what it starts and its workers are one."""
    matched: dict[int, tuple[Harness, Role, str]] = {}
    for info in seen.values():
        process = Process(
            pid=info.pid, argv=info.argv, exe=info.exe or "", comm=info.comm, cwd=info.cwd or ""
        )
        for harness in ranked:
            match = harness.program_role(process)
            if match is not None:
                matched[info.pid] = (harness, *match)
                break
    instance_of: dict[int, _Instance] = {}

    def place(pid: int) -> _Instance:
        if pid in instance_of:
            return instance_of[pid]
        harness, role, name = matched[pid]
        parent = seen[pid].ppid or 0
        above = matched.get(parent)
        belongs = above is not None and above[0] is harness
        if belongs and above is not None and (role == "worker" or above[1] == "launcher"):
            instance = place(parent)
            instance.processes.append(seen[pid])
        else:
            instance = _Instance(harness, seen[pid])
        instance.evidence.append(f"program:{name}")
        instance_of[pid] = instance
        return instance

    for pid in matched:
        place(pid)
    return list({id(instance): instance for instance in instance_of.values()}.values())


def _add_live_files(
    host: Host,
    seen: Mapping[int, ProcessInfo],
    instances: list[_Instance],
    ranked: Sequence[Harness],
    live: Iterable[tuple[int, str, str, str]],
) -> None:
    by_pid = {info.pid: instance for instance in instances for info in instance.processes}
    by_name = {harness.name: harness for harness in ranked}
    for pid, started, session, cwd in live:
        owner = host.owner_for(pid)
        if owner is None or str(owner.start_ticks) != started:
            continue  # left behind by a crash: the pid is another process's now
        instance = by_pid.get(pid)
        if instance is None:
            info = seen.get(pid) or ProcessInfo(pid=pid, start_ticks=owner.start_ticks, cwd=cwd)
            instance = _Instance(by_name["claude-code"], info)
            instances.append(instance)
        instance.key = f"claude-code:session:{session}"
        instance.evidence.append("live_file")
    for instance in instances:
        if instance.harness.name == "qwen-code":
            found = _qwen_session(host, instance)
            if found is not None:
                instance.key = f"qwen-code:session:{found}"
                instance.evidence.append("live_file")


def _qwen_session(host: Host, instance: _Instance) -> str | None:
    """Return the session whose ``runtime.json`` names the process and is younger than it."""
    cwd = instance.processes[0].cwd or ""
    slug = "".join(char if char.isascii() and char.isalnum() else "-" for char in cwd)
    folder = os.path.join(host.home(), ".qwen", "projects", slug, "chats")
    pids = {info.pid for info in instance.processes}
    since = _since(instance.processes[0])
    for name in names_in(folder):
        path = os.path.join(folder, name)
        if not name.endswith(".runtime.json") or since is None:
            continue
        live = json_object_in(path)
        session = live.get("session_id")
        try:
            written_ns = os.stat(path).st_mtime_ns
        except OSError:
            continue
        # It is left behind when the terminal closes; an older one is an earlier process's.
        if (
            live.get("pid") in pids
            and native_id(session) is not None
            and written_ns >= since.unix_ns - NS_PER_S
        ):
            return str(session)
    return None


def _since(info: ProcessInfo) -> Timestamp | None:
    started_at = process_of(info).started_at
    return Timestamp.from_unix_ns(int(started_at) * NS_PER_S) if started_at is not None else None


def _without_entry(
    registry: AgentRegistry, instances: Sequence[_Instance], seen: Mapping[int, ProcessInfo]
) -> list[_Instance]:
    own = {info.pid for instance in instances for info in instance.processes}
    pids = tuple(sorted(own | set(seen)))
    active = registry.look(Query(owner_pids=pids, active_only=True)).entries
    by_owner: dict[tuple[int, int | None], list[AgentEntry]] = {}
    for entry in active:
        if entry.owner is not None:
            owner = (entry.owner.pid, entry.owner.start_ticks)
            by_owner.setdefault(owner, []).append(entry)
    found = []
    for instance in instances:
        first = instance.processes[0]
        if any((info.pid, info.start_ticks) in by_owner for info in instance.processes):
            continue
        key = f"{instance.harness.name}:process:{first.pid}-{first.start_ticks}"
        if registry.look(Query(native_instance_key=key, active_only=True)).entries:
            continue
        if not _runs_under_another(first, seen, by_owner):
            found.append(instance)
    return found


def _runs_under_another(
    info: ProcessInfo,
    seen: Mapping[int, ProcessInfo],
    by_owner: Mapping[tuple[int, int | None], Sequence[AgentEntry]],
) -> bool:
    """Whether the nearest entry above has no agent yet, as `run` makes one: then it is that."""
    at, walked = info.ppid, {info.pid}
    while at is not None and at in seen and at not in walked:
        walked.add(at)
        above = by_owner.get((at, seen[at].start_ticks))
        if above:
            return any(_awaits_agent(entry) for entry in above)
        at = seen[at].ppid
    return False


def _awaits_agent(entry: AgentEntry) -> bool:
    made_by_run = entry.extension is not None and entry.extension.runner_pid is not None
    return made_by_run and entry.native_actor_key is None
