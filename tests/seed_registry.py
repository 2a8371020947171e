"""The Rust original's registry, ported line by line to Python with every fault it has.

It is no part of the product. It serves three purposes:

* each fault test runs against our registry and, as a strict expected failure, against this port:
  a fault test that passes here proves nothing;
* started as a program it is "the Rust tool" in another process: same files, same `flock`, and
  unknown keys are dropped whenever it rewrites an entry;
* its full scan is what benchmarks compare the index with.

Entries are plain dicts: the keys of the TOML file, times as RFC 3339 text, paths as text, None left
out. Methods carry the original's names; a `&mut` closure is a callable that changes its dict in
place. `HeddleError::Config` is `HeddleError`, an I/O error is the `OSError` itself. The clock, the
boot id and the id source are constructor arguments, so that a test steps time, moves to another
host or forces a collision without patching anything.

    python tests/seed_registry.py HEDDLE_DIR OP ARGS...      (OP: see `OPERATIONS` and `main`)
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import math
import os
import re
import select
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import tomli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Entry = dict[str, Any]

STALE_AGENT_TTL_S = 7 * 24 * 3600
STATUSES = ("active", "abandoned", "complete", "merged")


class HeddleError(ValueError):
    """A bad id, a file that is no entry, a lock that cannot be had, a thread already taken."""


@dataclass(frozen=True)
class Reserved:
    """The new entry now holds the thread."""

    entry: Entry


@dataclass(frozen=True)
class LiveOwner:
    """Somebody else holds it."""

    entry: Entry


# --- times: chrono's DateTime<Utc> as (seconds since 1970, nanoseconds) --------------------------

_TIME = re.compile(
    r"([+-]\d{4,6}|\d{4})-(\d\d?)-(\d\d?)[Tt ](\d\d?):(\d\d?):(\d\d?)(\.\d+)?"
    r"(?:[Zz]|([+-]\d\d):?(\d\d))"
)
# 400 years repeat exactly, which carries datetime's calendar to the years that it lacks.
_CYCLE_YEARS, _CYCLE_S = 400, 146_097 * 86_400
_LEAP_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHRONO_YEARS = 262_142


def parse_instant(text: str) -> tuple[int, int]:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    year, month, day, hour, minute, second = (int(match[index]) for index in range(1, 7))
    if abs(year) > _CHRONO_YEARS:
        raise ValueError(f"year out of range: {text!r}")
    nanos = int((match[7] or ".0")[1:10].ljust(9, "0"))
    if second == 60:  # chrono keeps a leap second as second 59 with more than 10^9 nanoseconds
        second, nanos = 59, nanos + _LEAP_NS
    cycles, year_in_cycle = divmod(year - 1970, _CYCLE_YEARS)
    civil = datetime(1970 + year_in_cycle, month, day, hour, minute, second, tzinfo=UTC)
    seconds = (civil - _EPOCH) // timedelta(seconds=1) + cycles * _CYCLE_S
    if match[8]:
        sign = -1 if match[8][0] == "-" else 1
        seconds -= sign * (int(match[8][1:]) * 3600 + int(match[9]) * 60)
    return seconds, nanos


def format_instant(seconds: int, nanos: int) -> str:
    leap, nanos = divmod(nanos, _LEAP_NS)
    cycles, rest_s = divmod(seconds, _CYCLE_S)
    civil = _EPOCH + timedelta(seconds=rest_s)
    year = civil.year + cycles * _CYCLE_YEARS
    text = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+05d}"
    text += f"-{civil:%m-%dT%H:%M}:{civil.second + leap:02d}"
    if nanos:
        digits = 3 if nanos % 1_000_000 == 0 else 6 if nanos % 1_000 == 0 else 9
        text += f".{nanos:09d}"[: digits + 1]
    return text + "Z"


def rfc3339(at: datetime) -> str:
    seconds, rest = divmod(at - _EPOCH, timedelta(seconds=1))
    return format_instant(seconds, rest.microseconds * 1000)


# --- the entry type: what serde accepts ----------------------------------------------------------


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"expected a string, found {value!r:.80}")
    return value


def _time(value: Any) -> str:
    return format_instant(*parse_instant(_text(value)))


def _status(value: Any) -> str:
    if value not in STATUSES:
        raise ValueError(f"unknown variant {value!r:.80}, expected one of {STATUSES}")
    return _text(value)


def _unsigned(bits: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise ValueError(f"expected a u{bits}, found {value!r:.80}")
        return value

    return check


def _as_f32(value: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _f32(value: Any) -> float:
    """The f64 whose shortest spelling is the f32's shortest spelling: 0.96, not 0.9599999785."""
    if type(value) not in (int, float):
        raise ValueError(f"expected an f32, found {value!r:.80}")
    single = _as_f32(float(value))
    spellings = (float(f"{single:.{digits}g}") for digits in range(1, 10))
    return next((short for short in spellings if _as_f32(short) == single), single)


def _list_of(check: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def check_all(value: Any) -> list[Any]:
        if type(value) is not list:
            raise ValueError(f"expected a sequence, found {value!r:.80}")
        return [check(item) for item in value]

    return check_all


def _table(fields: dict[str, Callable[[Any], Any]], required: tuple[str, ...] = ()) -> Any:
    """A serde struct: unknown keys vanish, None is absence, the order is the struct's."""

    def check(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError(f"expected a table, found {value!r:.80}")
        checked: dict[str, Any] = {}
        for key, check_field in fields.items():
            if value.get(key) is not None:
                try:
                    checked[key] = check_field(value[key])
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
            elif key in required:
                raise ValueError(f"missing field `{key}`")
        return checked

    return check


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "session_id": _text,
    "client_instance_id": _text,
    "native_actor_key": _text,
    "native_parent_actor_key": _text,
    "native_instance_key": _text,
    "heddle_session_id": _text,
    "thread_id": _text,
    "thread": _text,
    "pid": _unsigned(32),
    "boot_id": _text,
    "liveness_path": _text,
    "heartbeat_at": _time,
    "anchor_state": _text,
    "anchor_root": _text,
    "reservation_token": _text,
    "path": _text,
    "base_state": _text,
    "started_at": _time,
    "provider": _text,
    "model": _text,
    "harness": _text,
    "thinking_level": _text,
    "usage_summary": _table(
        {
            "input_tokens": _unsigned(64),
            "output_tokens": _unsigned(64),
            "reasoning_tokens": _unsigned(64),
            "tool_calls": _unsigned(32),
            "cost_micros_usd": _unsigned(64),
        }
    ),
    "last_progress_at": _time,
    "report_flush_state": _text,
    "attach_reason": _text,
    "task_assignment_id": _text,
    "attach_precedence": _list_of(_text),
    "winning_attach_rule": _text,
    "probe_source": _text,
    "probe_confidence": _f32,
    "status": _status,
    "completed_at": _time,
    "context_queries": _list_of(
        _table({"path": _text, "scope": _text, "queried_at": _time}, ("path", "queried_at"))
    ),
}
KNOWN_KEYS = tuple(_FIELDS)
REQUIRED_KEYS = ("session_id", "thread", "base_state", "started_at", "status")
_check_entry = _table(_FIELDS, REQUIRED_KEYS)
_CHAIN_KEYS = (
    *("session_id", "native_actor_key", "native_parent_actor_key", "thread", "status"),
    *("provider", "model", "harness"),
)


def checked_entry(value: Entry) -> Entry:
    """A deep copy of `value` as the struct would hold it. `HeddleError` if it cannot."""
    try:
        filled = {"usage_summary": {}, "attach_precedence": [], "context_queries": [], **value}
        return _check_entry(filled)
    except ValueError as error:
        raise HeddleError(str(error)) from None


def entry_from_toml(content: str) -> Entry:
    try:
        return checked_entry(tomli.loads(content))
    except (ValueError, RecursionError) as error:
        raise HeddleError(str(error)) from None


# --- toml::to_string_pretty ----------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SHORT_ESCAPES = {"\b": r"\b", "\t": r"\t", "\f": r"\f", "\r": r"\r", "\\": r"\\"}


def _escaped(match: re.Match[str]) -> str:
    return _SHORT_ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04X}"


def _toml_string(value: str) -> str:
    control = bool(_CONTROL.search(value))
    line_break = "\n" if "\n" in value else ""
    tabbed = value.replace("\t", r"\t")
    if not (control or line_break or "\\" in value or '"' in value):
        return f'"{tabbed}"'
    if not (control or line_break or "'" in value):
        return f"'{value}'"
    if not (control or "\\" in value or '"""' in value):
        return f'"""{line_break}{tabbed}"""'
    if not (control or "'''" in value):
        return f"'''{line_break}{value}'''"
    value = re.sub(r"[\x00-\x09\x0b-\x1f\x7f\\]", _escaped, value)
    if line_break:
        return '"""\n' + value.replace('"""', '""\\"') + '"""'
    return '"' + value.replace('"', r"\"") + '"'


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        return _toml_string(value)
    if isinstance(value, list):
        if len(value) < 2:
            return f"[{''.join(map(_toml_value, value))}]"
        return "[\n" + "".join(f"    {_toml_value(item)},\n" for item in value) + "]"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        text = f"{Decimal(str(value)):f}"
        return text if "." in text else text + ".0"
    return str(value)


def entry_to_toml(entry: Entry) -> str:
    """The bytes that the Rust writer makes of this entry, as text."""
    entry = checked_entry(entry)
    usage = entry.pop("usage_summary")
    queries = entry.pop("context_queries") if entry["context_queries"] else []

    def lines(table: dict[str, Any]) -> str:
        return "".join(f"{key} = {_toml_value(value)}\n" for key, value in table.items())

    tables = [lines(entry), "[usage_summary]\n" + lines(usage)]
    tables += ["[[context_queries]]\n" + lines(query) for query in queries]
    return "\n".join(tables)


# --- liveness, ids, lock, atomic write -----------------------------------------------------------


def current_boot_id() -> str | None:
    if sys.platform == "darwin":
        answer = subprocess.run(
            ["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=False
        )
        head, brace, _date = answer.stdout.strip().partition("}")
        return head + brace or None
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except OSError:
        return None


def process_alive(pid: int) -> bool:
    if not 0 < pid < 1 << 31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def generate_agent_id() -> str:
    return "agent-" + base64.b32encode(os.urandom(12)).decode().rstrip("=").lower()


@dataclass
class _Gate:
    """One lock file in this process: an OS thread may take it again, another waits."""

    owner: Any = field(default_factory=threading.RLock)
    depth: int = 0
    fd: int = -1


_gates: dict[str, _Gate] = {}
_gates_guard = threading.Lock()
_temp_counter = itertools.count()


@dataclass
class WriteLock:
    """Make the folder, truncate the file, wait for ever; closing alone releases, as in Rust.

    The way from release to the next request is as short as Python allows: that haste is what lets
    one busy process of the original take nearly every grant.
    """

    path: str

    def __enter__(self) -> None:
        try:
            gate = _gates.get(self.path) or self._gate()
            gate.owner.acquire()
            try:
                if gate.depth == 0:
                    gate.fd = self._locked_fd()
                gate.depth += 1
            except BaseException:
                gate.owner.release()
                raise
        except OSError as error:
            raise HeddleError(f"failed to acquire agent registry lock: {error}") from error
        self.gate = gate

    def __exit__(self, *_failure: object) -> None:
        gate = self.gate
        gate.depth -= 1
        if gate.depth == 0:
            os.close(gate.fd)
        gate.owner.release()

    def _gate(self) -> _Gate:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with _gates_guard:
            gate = _gates.setdefault(os.path.realpath(self.path), _Gate())
            return _gates.setdefault(self.path, gate)

    def _locked_fd(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            fd = os.open(self.path, flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
        return fd


def write_file_atomic(path: str, content: bytes) -> None:
    """Temp file beside the target, fsync, rename, fsync of the folder. A crash leaves the temp."""
    folder, name = os.path.split(path)
    temp = f"{folder}/.{name}.tmp-{os.getpid()}-{time.time_ns()}-{next(_temp_counter)}"
    try:
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(temp)
        raise
    os.rename(temp, path)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


# --- the registry --------------------------------------------------------------------------------


def _canonical(path: str | os.PathLike[str]) -> str:
    try:
        return os.path.realpath(path, strict=True)
    except OSError:
        return os.fspath(path)


def _matches_root(entry: Entry, canonical_root: str) -> bool:
    return "path" in entry and _canonical(entry["path"]) == canonical_root


class SeedRegistry:
    """`AgentRegistry` of the original over `<heddle_dir>/agents/`."""

    def __init__(
        self,
        heddle_dir: str | os.PathLike[str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        boot_id: Callable[[], str | None] = current_boot_id,
        generate_id: Callable[[], str] = generate_agent_id,
    ) -> None:
        self.agents_dir = os.path.join(os.fspath(heddle_dir), "agents")
        self._now = now
        self._boot_id = boot_id
        self._generate_id = generate_id

    def _entry_path(self, session_id: str) -> str:
        if re.fullmatch(r"[a-z0-9-]+", session_id) is None:
            raise HeddleError(f"invalid session ID '{session_id}': only [a-z0-9-] are allowed")
        return os.path.join(self.agents_dir, f"{session_id}.toml")

    def _write_lock(self) -> WriteLock:
        return WriteLock(os.path.join(self.agents_dir, ".lock"))

    def _write_entry_file(self, entry: Entry) -> None:
        os.makedirs(self.agents_dir, exist_ok=True)
        path = self._entry_path(entry["session_id"])
        write_file_atomic(path, entry_to_toml(entry).encode())

    def _read_entry_file(self, path: str) -> Entry:
        with open(path, "rb") as file:
            return entry_from_toml(file.read().decode())

    def _load_entry_from_path(self, path: str) -> Entry | None:
        # `exists` answers False to every error: no permission, a name too long, a dangling link.
        return self._read_entry_file(path) if os.path.exists(path) else None

    def _entry_paths(self) -> Iterator[str]:
        with os.scandir(self.agents_dir) as folder:
            for item in folder:
                stem, _dot, extension = item.name.rpartition(".")
                if stem and extension == "toml":
                    yield item.path

    def _timestamp(self) -> str:
        return rfc3339(self._now())

    def _is_stale_terminal(self, entry: Entry) -> bool:
        if entry["status"] == "active":
            return False
        ended = parse_instant(entry.get("completed_at") or entry["started_at"])
        now_s, now_ns = parse_instant(self._timestamp())
        return ended <= (now_s - STALE_AGENT_TTL_S, now_ns)

    def _prune(self, path: str) -> None:
        if os.path.exists(path):
            os.remove(path)

    def liveness_for(self, entry: Entry) -> str:
        """`"alive"`, `"dead"` or `"unknown"`, from the pid and the boot id alone."""
        if entry["status"] != "active":
            return "dead"
        if entry.get("pid") is None:
            return "unknown"
        if not process_alive(entry["pid"]):
            return "dead"
        recorded, current = entry.get("boot_id"), self._boot_id()
        return "dead" if None not in (recorded, current) and recorded != current else "alive"

    def _abandon(self, entry: Entry) -> None:
        # Written under the id *inside* the entry, whatever file it came from.
        ended = {"status": "abandoned", "completed_at": self._timestamp()}
        self._write_entry_file({**entry, **ended})

    def _reap_dead_locked(self, thread: str | None) -> int:
        if not os.path.exists(self.agents_dir):
            return 0
        reaped = 0
        for path in self._entry_paths():
            entry = self._load_entry_from_path(path)
            if entry is None or entry["status"] != "active":
                continue
            if thread is not None and entry["thread"] != thread:
                continue
            if self.liveness_for(entry) == "dead":
                self._abandon(entry)
                reaped += 1
        return reaped

    def reap_dead_for_thread(self, thread: str) -> int:
        with self._write_lock():
            return self._reap_dead_locked(thread)

    def reap_dead(self) -> int:
        with self._write_lock():
            return self._reap_dead_locked(None)

    def _create_locked(
        self, generate_id: Callable[[], str], build: Callable[[str], Entry]
    ) -> Entry:
        while True:
            session_id = generate_id()
            if os.path.exists(self._entry_path(session_id)):
                continue
            entry = checked_entry(build(session_id))
            self._write_entry_file(entry)
            return entry

    def create_generated_entry_with(
        self, generate_id: Callable[[], str], build: Callable[[str], Entry]
    ) -> Entry:
        with self._write_lock():
            return self._create_locked(generate_id, build)

    def create_generated_entry(self, build: Callable[[str], Entry]) -> Entry:
        return self.create_generated_entry_with(self._generate_id, build)

    def save(self, entry: Entry) -> None:
        with self._write_lock():
            self._write_entry_file(entry)

    def load(self, session_id: str) -> Entry | None:
        path = self._entry_path(session_id)
        entry = self._load_entry_from_path(path)
        if entry is not None and self._is_stale_terminal(entry):
            with self._write_lock():
                latest = self._load_entry_from_path(path)
                if latest is not None and self._is_stale_terminal(latest):
                    self._prune(path)
                    return None
        return entry

    def list(self) -> list[Entry]:
        if not os.path.exists(self.agents_dir):
            return []
        stale_paths, entries = [], []
        for path in self._entry_paths():
            entry = self._read_entry_file(path)
            if self._is_stale_terminal(entry):
                stale_paths.append(path)
            else:
                entries.append(entry)
        if stale_paths:
            with self._write_lock():
                for path in stale_paths:
                    latest = self._load_entry_from_path(path)
                    if latest is not None and self._is_stale_terminal(latest):
                        self._prune(path)
        entries.sort(key=lambda entry: parse_instant(entry["started_at"]), reverse=True)
        return entries

    def update_status(self, session_id: str, status: str) -> None:
        with self._write_lock():
            entry = self._load_entry_from_path(self._entry_path(session_id))
            if entry is not None:
                entry["status"] = status
                entry["completed_at"] = None if status == "active" else self._timestamp()
                self._write_entry_file(entry)

    def update_entry(self, session_id: str, change: Callable[[Entry], object]) -> Entry | None:
        with self._write_lock():
            entry = self._load_entry_from_path(self._entry_path(session_id))
            if entry is None:
                return None
            change(entry)
            self._write_entry_file(entry)
            return checked_entry(entry)

    def heartbeat(self, session_id: str) -> Entry | None:
        """What the command `agent heartbeat` did: no token, no proof, and nobody reads the time."""
        return self.update_entry(
            session_id, lambda entry: entry.update(heartbeat_at=self._timestamp())
        )

    def find_or_create_active_entry(
        self,
        matches: Callable[[Entry], bool],
        update: Callable[[Entry], object],
        build: Callable[[str], Entry],
    ) -> tuple[Entry, bool]:
        with self._write_lock():
            for path in self._entry_paths():
                entry = self._load_entry_from_path(path)
                if entry is None:
                    continue
                if self._is_stale_terminal(entry):
                    self._prune(path)
                elif entry["status"] == "active" and matches(entry):
                    update(entry)
                    self._write_entry_file(entry)
                    return checked_entry(entry), False
            return self._create_locked(self._generate_id, build), True

    def try_reserve_thread(
        self, thread: str, build: Callable[[str], Entry]
    ) -> Reserved | LiveOwner:
        with self._write_lock():
            for path in self._entry_paths():
                entry = self._load_entry_from_path(path)
                if entry is None:
                    continue
                if self._is_stale_terminal(entry):
                    self._prune(path)
                elif entry["status"] == "active" and entry["thread"] == thread:
                    if self.liveness_for(entry) != "dead":
                        return LiveOwner(entry)
                    self._abandon(entry)
            return Reserved(self._create_locked(self._generate_id, build))

    def create_generated_entry_for_thread(
        self, thread: str, build: Callable[[str], Entry]
    ) -> Entry:
        outcome = self.try_reserve_thread(thread, build)
        if isinstance(outcome, LiveOwner):
            holder = outcome.entry["session_id"]
            raise HeddleError(f"thread '{thread}' already has active reservation {holder}")
        return outcome.entry

    def reserve_command(
        self, thread: str, *, pid: int | None = None, path: str | None = None, task: str = ""
    ) -> Reserved | LiveOwner:
        """What the one-shot `agent reserve` did: without `pid`, the command's own is recorded.

        The token lies in the entry as it is shown, and `liveness_path` names a file that nothing
        ever makes.
        """

        def build(session_id: str) -> Entry:
            now = self._timestamp()
            return {
                "session_id": session_id,
                "thread_id": thread,
                "thread": thread,
                "pid": os.getpid() if pid is None else pid,
                "boot_id": self._boot_id(),
                "liveness_path": os.path.join(self.agents_dir, f"{session_id}.live"),
                "heartbeat_at": now,
                "reservation_token": generate_agent_id(),
                "path": path,
                "base_state": "hd-base",
                "started_at": now,
                "attach_reason": task or None,
                "attach_precedence": ["agent-reserve"],
                "winning_attach_rule": "agent-reserve",
                "status": "active",
            }

        return self.try_reserve_thread(thread, build)

    def _find_active(self, matches: Callable[[Entry], bool]) -> Entry | None:
        active = (entry for entry in self.list() if entry["status"] == "active")
        return next((entry for entry in active if matches(entry)), None)

    def find_active_by_path(self, worktree_root: str | os.PathLike[str]) -> Entry | None:
        root = _canonical(worktree_root)
        return self._find_active(lambda entry: _matches_root(entry, root))

    def find_active_by_heddle_session_id(self, key: str) -> Entry | None:
        return self._find_active(lambda entry: entry.get("heddle_session_id") == key)

    def find_active_by_client_instance_id(self, key: str) -> Entry | None:
        return self._find_active(lambda entry: entry.get("client_instance_id") == key)

    def find_active_by_native_actor_key(self, key: str) -> Entry | None:
        return self._find_active(lambda entry: entry.get("native_actor_key") == key)

    def find_active_by_native_instance_key_at_path(
        self, key: str, worktree_root: str | os.PathLike[str]
    ) -> Entry | None:
        root = _canonical(worktree_root)
        return self._find_active(
            lambda entry: entry.get("native_instance_key") == key and _matches_root(entry, root)
        )

    def actor_chain_for_session(self, session_id: str) -> list[Entry]:
        entries = self.list()
        by_session = {entry["session_id"]: entry for entry in entries}
        # The list is newest first, so of two equal keys the oldest entry stays.
        by_key = {e["native_actor_key"]: e for e in entries if "native_actor_key" in e}
        leaf_to_root: list[Entry] = []
        seen: set[str] = set()
        current = by_session.get(session_id)
        while current is not None and current["session_id"] not in seen:
            seen.add(current["session_id"])
            leaf_to_root.append({key: current[key] for key in _CHAIN_KEYS if key in current})
            current = by_key.get(current.get("native_parent_actor_key"))
        return leaf_to_root[::-1]

    def log_context_query(self, session_id: str, query: Entry) -> None:
        with self._write_lock():
            entry = self._load_entry_from_path(self._entry_path(session_id))
            if entry is not None and entry["status"] == "active":
                entry["context_queries"].append(query)
                self._write_entry_file(entry)

    def delete(self, session_id: str) -> None:
        path = self._entry_path(session_id)
        if os.path.exists(path):
            os.remove(path)


# --- as a program --------------------------------------------------------------------------------


def _answer(outcome: Reserved | LiveOwner) -> Entry:
    name = "reserved" if isinstance(outcome, Reserved) else "live_owner"
    return {"outcome": name, "entry": outcome.entry}


def _try_reserve_thread(registry: SeedRegistry, thread: str, pid: str) -> Entry:
    """Reserve for `pid`; `none` records no pid."""

    def build(session_id: str) -> Entry:
        owner = {} if pid == "none" else {"pid": int(pid), "boot_id": current_boot_id()}
        now = rfc3339(datetime.now(UTC))
        return {
            "session_id": session_id,
            "thread": thread,
            "base_state": "hd-base",
            "started_at": now,
            "status": "active",
            **owner,
        }

    return _answer(registry.try_reserve_thread(thread, build))


def _hold_lock(registry: SeedRegistry, seconds: str) -> None:
    """Say `locked` once the lock is held; let go at end of input, or after `seconds`."""
    with registry._write_lock():
        print("locked", flush=True)
        until = time.monotonic() + float(seconds)
        while (left_s := until - time.monotonic()) > 0:
            if select.select([0], [], [], left_s)[0] and not os.read(0, 4096):
                return


OPERATIONS: dict[str, Callable[..., Any]] = {
    "save": lambda registry, entry: registry.save(json.loads(entry)),
    "load": SeedRegistry.load,
    "list": SeedRegistry.list,
    "update_status": SeedRegistry.update_status,
    "touch": lambda registry, session_id: registry.update_entry(session_id, lambda _entry: None),
    "heartbeat": SeedRegistry.heartbeat,
    "delete": SeedRegistry.delete,
    "reap_dead": SeedRegistry.reap_dead,
    "reserve": lambda registry, thread: _answer(registry.reserve_command(thread)),
    "try_reserve_thread": _try_reserve_thread,
    "hold_lock": _hold_lock,
}


def main(arguments: list[str]) -> int:
    """Print the answer as one line of JSON; a failure as `{"error": …}` with status 1."""
    heddle_dir, operation, *rest = arguments
    try:
        answer = OPERATIONS[operation](SeedRegistry(heddle_dir), *rest)
    except (HeddleError, OSError, UnicodeDecodeError) as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return 1
    if operation != "hold_lock":
        print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
