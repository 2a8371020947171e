"""The plain heartbeat, at the cost of little more than a bare interpreter.

A script that renews a claim every few seconds pays for the start of a process each time. So the
plainest case is done here without the registry: a claim of ours that its bearer evidently holds,
in a file that is letter for letter what `codec.claims` writes. The lock is the registry's own, and
what is written is byte for byte what the registry would write at that instant.

Rule 1: whatever is not plain (an odd option, a config file, a TTL that has passed, an owner that
is not seen alive, a line in another form than ours) is left to the registry: `beat` answers None
with nothing changed, and the registry then does it or says what is wrong.
Rule 2: neither attrs nor ``typing``, ``re``, ``json`` or a TOML parser is imported.
"""

from __future__ import annotations

import os
import sys
import time

from heddle_registry.core.digest import is_same, sha256_hex
from heddle_registry.plain_records import CLAIM, ENTRY, plain_record, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    from heddle_registry.adapters.procfs import Procfs
    from heddle_registry.plain_records import Record

_SCHEMA: Final = "1"
_MOST_BYTES: Final = 1_048_576
_MOST_ID: Final = 200
_MOST_TOKEN_BYTES: Final = 10_000
_SECOND_NS: Final = 1_000_000_000
_FOLDERS: Final = ("agents", "claims", "live", "wait", "tmp", "queries", "agents/.quarantine")
_LATER_SAID: Final = (
    "HEDDLE_REGISTRY_LOCK_TIMEOUT",
    "HEDDLE_REGISTRY_DEFAULT_TTL",
    "HEDDLE_REGISTRY_DETECTION",
)


class Reading:
    """One reading of the clocks, as `core.timestamp.Instant` has it."""

    __slots__ = ("awake_ns", "boot_id", "time_ns", "unix_ns")

    def __init__(self, *, unix_ns: int, awake_ns: int, boot_id: str, time_ns: str) -> None:
        self.unix_ns = unix_ns
        self.awake_ns = awake_ns
        self.boot_id = boot_id
        self.time_ns = time_ns


# -- the command -----------------------------------------------------------------------------


def beat(words: Sequence[str]) -> int | None:
    """Renew as the arguments ``words`` of ``heartbeat`` say; the exit status, None if not plain.

    Waits for the registry's lock as long as it takes.
    """
    if not sys.platform.startswith("linux") or sys.stdout is None:
        return None
    try:
        asked = _arguments(words)
        heddle_dir = _heddle_dir(asked) if asked is not None else None
        if asked is None or heddle_dir is None or not _is_unconfigured(heddle_dir):
            return None
        told = _renew(heddle_dir, asked["id"], asked["token"])
        if told is None:
            return None
        print(told, flush=True)  # noqa: T201
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("heddle-registry: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except Exception:  # noqa: BLE001 - the registry says what it is, also if it is ours
        return None
    return 0


def _arguments(words: Sequence[str]) -> dict[str, str] | None:
    asked: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, value = "id", word
        if word.startswith("-"):
            name, is_joined, value = word.partition("=")
            if name not in ("--token", "--token-file", "--heddle-dir"):
                return None
            if not is_joined:
                value = next(rest, "")
                if value.startswith("-"):
                    return None
            name = name[2:]
        if name in asked or not value or "\0" in value or value == "-":
            return None
        asked[name] = value
    if "token" in asked and "token-file" in asked:
        return None
    if "token-file" in asked:
        with open(asked["token-file"], "rb") as file:
            asked["token"] = os.fsdecode(file.read(_MOST_TOKEN_BYTES).strip())
    environ = os.environ
    asked.setdefault("token", environ.get("HEDDLE_AGENT_TOKEN", ""))
    asked.setdefault("id", environ.get("HEDDLE_AGENT_SESSION_ID", ""))
    is_id = not asked["id"].strip("abcdefghijklmnopqrstuvwxyz0123456789-")
    return asked if asked["token"] and asked["id"] and is_id else None


def _heddle_dir(asked: Mapping[str, str]) -> str | None:
    told = asked.get("heddle-dir") or os.environ.get("HEDDLE_DIR")
    if told:
        return os.path.abspath(os.path.expanduser(told))
    above = folder = os.getcwd()
    home = os.path.realpath(os.path.expanduser("~"))
    while True:
        found = os.path.join(above, ".heddle")
        if os.path.isdir(found) and (above == folder or os.path.realpath(above) != home):
            return found
        if os.path.lexists(os.path.join(above, ".git")) or above == os.path.dirname(above):
            return None
        above = os.path.dirname(above)


def _is_unconfigured(heddle_dir: str) -> bool:
    # A setting may be wrong, and then the answer is that.
    user = os.path.expanduser(os.path.join("~", ".config", "heddle-registry", "config.toml"))
    own = os.path.join(heddle_dir, "config.toml")
    said = any(os.environ.get(name) for name in _LATER_SAID)
    return not (said or os.path.lexists(own) or os.path.lexists(user))


def _renew(heddle_dir: str, session_id: str, token: str) -> str | None:
    from heddle_registry.adapters.atomic_file import read_file, replace_file, sweep_temps
    from heddle_registry.adapters.flock import DirectoryLock
    from heddle_registry.adapters.liveness_file import observe_liveness
    from heddle_registry.adapters.procfs import Procfs

    machine = Procfs()
    agents = os.path.join(heddle_dir, "agents")
    claims = os.path.join(heddle_dir, "claims")
    tmp = os.path.join(heddle_dir, "tmp")
    if len(session_id) > _MOST_ID or not (os.path.isdir(agents) and os.access(heddle_dir, os.R_OK)):
        return None
    if any(os.path.islink(os.path.join(heddle_dir, name)) for name in _FOLDERS):
        return None  # what lies behind a link is not ours to sweep or to write

    def is_held(device: int, inode: int) -> bool:
        live = os.path.join(heddle_dir, "live", session_id)
        return observe_liveness(live, device, inode) == "held"

    with DirectoryLock(agents).held():
        now = Reading(
            unix_ns=time.time_ns(),
            awake_ns=machine.awake_ns(),
            boot_id=machine.boot_id(),
            time_ns=machine.time_ns(),
        )
        entry = read_file(os.path.join(agents, f"{session_id}.toml"), _MOST_BYTES)
        thread = plain_thread(entry or b"", session_id)
        if thread is None:
            return None
        name = f"{sha256_hex(thread.encode())[:32]}.toml"
        data = read_file(os.path.join(claims, name), _MOST_BYTES)
        claim = plain_claim(data or b"", thread, session_id, token)
        if data is None or claim is None or not is_running(claim, now, machine, is_held):
            return None
        # A renewal moves no row, so those who trust the set of claims may go on doing so.
        stamp = os.stat(claims).st_mtime_ns
        sweep_temps(tmp)
        try:
            replace_file(claims, name, renewed(data, now), tmp_dir=tmp, durable_dir=False)
        finally:
            os.utime(claims, ns=(stamp, stamp))
    ttl_s = claim["[holder]"][0].get("ttl_s")
    return "noted" if ttl_s is None else f"renewed; again within {float(ttl_s):g} s"


# -- what the files say: pure ------------------------------------------------------------------


def plain_thread(data: bytes, session_id: str) -> str | None:
    """Return the thread of an Active entry with that id; None where the file is not plain."""
    entry = plain_record(data, ENTRY)
    if entry is None:
        return None
    own = entry[""][0]
    extension = entry.get("[heddle_registry]", [{}])[0]
    if (
        text_of(own["session_id"]) != session_id
        or text_of(own["status"]) != "active"
        or extension.get("schema", _SCHEMA) != _SCHEMA
        or ("context_queries" in own and "[[context_queries]]" in entry)
    ):
        return None
    thread = text_of(own["thread"])
    return thread or None


def plain_claim(data: bytes, thread: str, session_id: str, token: str) -> Record | None:
    """Return the claim on ``thread`` if that session holds it by that token, and it is plain."""
    claim = plain_record(data, CLAIM)
    if claim is None or "[holder.token]" not in claim or "[holder.renewed]" not in claim:
        return None
    own, holder = claim[""][0], claim["[holder]"][0]
    if (
        own["schema"] != _SCHEMA
        or text_of(own["thread"]) != thread
        or text_of(holder["session_id"]) != session_id
        or "lost_at" in holder
    ):
        return None
    return claim if _is_token(token, claim["[holder.token]"][0]) else None


def is_running(
    claim: Record, now: Reading, machine: Procfs, is_held: Callable[[int, int], bool]
) -> bool:
    """Return whether the claim's TTL runs on this boot's awake clock and its owner is seen alive.

    A claim without owner and liveness lock lives by its TTL. ``is_held`` looks at the lock with
    that device and inode.
    """
    holder = claim["[holder]"][0]
    since = claim["[holder.renewed]"][0]
    if "ttl_s" in holder:
        clock = (text_of(since["boot_id"]), text_of(since.get("time_ns", '""')))
        if not now.boot_id or clock != (now.boot_id, now.time_ns):
            return False
        elapsed_s = (now.awake_ns - int(since["awake_ns"])) / _SECOND_NS
        if float(holder["ttl_s"]) - elapsed_s <= 0:
            return False
    owner = claim.get("[holder.owner]", [{}])[0]
    lock = claim.get("[holder.liveness]", [{}])[0]
    if lock and is_held(int(lock["device"]), int(lock["inode"])):
        return True
    if not owner:
        return not lock
    known = [text_of(owner.get(name, '""')) for name in ("boot_id", "pid_ns", "time_ns")]
    here = [machine.boot_id(), machine.pid_ns(), machine.time_ns()]
    if known != here or not here[0] or "start_ticks" not in owner:
        return False
    return machine.running_since(int(owner["pid"])) == int(owner["start_ticks"])


def renewed(data: bytes, now: Reading) -> bytes:
    """Return a plain claim's file with ``now`` as its renewal."""
    start = data.index(b"\n[holder.renewed]\n") + 1
    end = data.find(b"\n\n", start) + 1 or len(data)
    lines = [
        "[holder.renewed]",
        f'at = "{_rfc3339(now.unix_ns)}"',
        f"awake_ns = {now.awake_ns}",
        f'boot_id = "{now.boot_id}"',
    ]
    if now.time_ns:
        lines.append(f'time_ns = "{now.time_ns}"')
    return data[:start] + ("\n".join(lines) + "\n").encode() + data[end:]


def _rfc3339(unix_ns: int) -> str:
    # As `core.timestamp.Timestamp.from_unix_ns` writes it: 0, 3, 6 or 9 digits.
    seconds, nanos = divmod(unix_ns, _SECOND_NS)
    at = time.gmtime(seconds)
    digits = f".{nanos:09d}"
    while nanos and digits.endswith("000"):
        digits = digits[:-3]
    return (
        f"{at[0]:04d}-{at[1]:02d}-{at[2]:02d}T{at[3]:02d}:{at[4]:02d}:{at[5]:02d}"
        f"{digits if nanos else ''}Z"
    )


def _is_token(token: str, kept: Mapping[str, str]) -> bool:
    salt = bytes.fromhex(text_of(kept["salt"]))
    digest = sha256_hex(salt + token.encode("utf-8", "surrogatepass"))
    return is_same(digest.encode(), text_of(kept["digest"]).encode())
