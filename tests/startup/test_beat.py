"""The fast heartbeat against the registry's own: the same bytes under the same lock, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heddle_registry import beat as fast
from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.adapters.host import LocalHost
from heddle_registry.adapters.layout import Layout
from heddle_registry.beat import Reading
from heddle_registry.codec import (
    claim_from_toml,
    claim_to_toml,
    entry_from_toml,
    entry_to_toml,
)
from heddle_registry.core.claim import Claim, ClaimHolder, PastHolder
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.evidence import LivenessFile, Observation, Owner, ProcessState
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.renew import Renewed, decide_renew
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.token import hash_token
from heddle_registry.core.transaction import Decision, Loaded, NeedFacts, PutClaim, fact_key
from heddle_registry.errors import RegistryError
from heddle_registry.plain_records import CLAIM, ENTRY, plain_record
from tests.codec import strategies as nasty
from tests.process_helpers import ROOT, flock_waiters, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Heddle

BOOT, TIME_NS, PID_NS = "f3564707-cd73-4157-8f9d-660c22b3533a", "4026531834", "4026531836"
AWAKE = 5_000_000_000_000
TOKEN, SALT = "a-token", bytes(8)
KEPT = hash_token(TOKEN, SALT)


class Machine:
    """One process runs here, and the lock is held or not."""

    def __init__(self, ticks: int | None, *, is_held: bool) -> None:
        self.ticks = ticks
        self.is_held = is_held

    def boot_id(self) -> str:
        return BOOT

    def pid_ns(self) -> str:
        return PID_NS

    def time_ns(self) -> str:
        return TIME_NS

    def running_since(self, pid: int) -> int | None:
        return self.ticks if pid == 4242 else None

    def looks_held(self, device: int, inode: int) -> bool:
        return self.is_held and (device, inode) == (1, 2)

    def observation(self) -> Observation:
        from heddle_registry.core.evidence import LivenessFact

        return Observation(
            boot_id=BOOT, pid_ns=PID_NS, time_ns=TIME_NS,
            process=ProcessState.MISSING if self.ticks is None else ProcessState.RUNNING,
            start_ticks=self.ticks,
            liveness=LivenessFact.HELD if self.is_held else LivenessFact.FREE,
        )  # fmt: skip


def renew_fast(
    entry: bytes, claim: bytes, token: str, now: Instant, machine: Machine
) -> bytes | None:
    """What the fast path makes of the two files, without the disk."""
    thread = fast.plain_thread(entry, "agent-a")
    found = fast.plain_claim(claim, thread, "agent-a", token) if thread is not None else None
    reading = Reading(
        unix_ns=now.at.unix_ns, awake_ns=now.awake_ns, boot_id=now.boot_id, time_ns=now.time_ns
    )
    if found is None or not fast.is_running(found, reading, machine, machine.looks_held):
        return None
    return fast.renewed(claim, reading)


def renew_fully(
    entry: bytes, claim: bytes, token: str, now: Instant, machine: Machine
) -> bytes | None:
    """What the registry makes of them: the claim's new file, None for every refusal."""
    try:
        record, held = entry_from_toml(entry, "e"), claim_from_toml(claim, "c")
    except RegistryError:
        return None
    if record.session_id != "agent-a" or record.thread != held.thread:
        return None
    loaded = Loaded(entries={"agent-a": record}, claims={held.thread: held})
    decision: Decision[Renewed] | NeedFacts = decide_renew("agent-a", token, loaded, now, {})
    while isinstance(decision, NeedFacts):
        facts = {fact_key(subject): machine.observation() for subject in decision.subjects}
        decision = decide_renew("agent-a", token, loaded, now, facts)
    if decision.refusal is not None:
        return None
    (effect,) = decision.effects
    assert isinstance(effect, PutClaim)
    return claim_to_toml(effect.claim)


plain_text = st.one_of(
    st.text("abcdefghijklmnopqrstuvwxyz/-_ .0123456789é=#[]", min_size=1, max_size=12),
    st.sampled_from(['say "x"', "C:\\x", "it's", "日本", "{}", "a = b"]),
)
maybe_text = st.none() | plain_text
instants = st.integers(0, 4_000_000_000_000_000_000).map(Timestamp.from_unix_ns)
owners = st.builds(
    Owner, pid=st.sampled_from([4242, 1]), boot_id=st.sampled_from([BOOT, BOOT, "", "other"]),
    host=st.sampled_from(["", "h"]), pid_ns=st.sampled_from([PID_NS, PID_NS, "", "1"]),
    time_ns=st.sampled_from([TIME_NS, TIME_NS, ""]),
    start_ticks=st.sampled_from([77, 77, None, 78]), command=plain_text,
)  # fmt: skip
holders = st.builds(
    ClaimHolder, session_id=st.sampled_from(["agent-a", "agent-a", "agent-a", "agent-b"]),
    token=st.sampled_from([KEPT, KEPT, KEPT, None, hash_token("b", SALT)]),
    owner=st.none() | owners,
    liveness=st.sampled_from([None, *(LivenessFile(device=1, inode=inode) for inode in (2, 3))]),
    ttl_s=st.sampled_from([None, 60.0, 60.0, 1.5, 0.1, 2_592_000.0]), granted_at=instants,
    renewed_at=st.builds(
        Instant, at=instants, awake_ns=st.integers(AWAKE - 70_000_000_000, AWAKE),
        boot_id=st.sampled_from([BOOT, BOOT, BOOT, "other", ""]),
        time_ns=st.sampled_from([TIME_NS, TIME_NS, ""]),
    ),
    lost_at=st.sampled_from([None, None, None, Timestamp("2026-07-01T12:00:00Z")]),
)  # fmt: skip
past = st.builds(
    PastHolder, session_id=plain_text, fence=st.integers(0, 9), token=st.sampled_from([None, KEPT]),
    ended_at=instants, cause=st.sampled_from(list(nasty.EndCause)), by=st.just("") | plain_text,
    reason=st.just("") | plain_text,
)  # fmt: skip
claims = st.builds(
    Claim, thread=st.sampled_from(["main", 'odd "name"']), fence=st.integers(0, 9),
    path=maybe_text, holder=holders, past=st.lists(past, max_size=3).map(tuple),
    schema=st.sampled_from([1, 1, 1, 2]),
)  # fmt: skip
_TEXTS = ("native_actor_key", "native_parent_actor_key", "task_assignment_id", "attach_reason")
plain_seconds = st.integers(1, 2_592_000).map(float) | st.floats(1, 2_592_000)
plain_extensions = st.builds(
    nasty.EntryExtension, owner=st.none() | owners, fence=st.none() | st.integers(0, 9),
    ttl_s=st.none() | plain_seconds, token=st.sampled_from([None, KEPT]),
    usage_sources=st.lists(plain_text, max_size=3).map(tuple),
)  # fmt: skip
plain_entries = st.builds(
    AgentEntry, session_id=st.just("agent-a"), thread=st.sampled_from(["main", 'odd "name"']),
    base_state=plain_text, started_at=instants, heartbeat_at=st.none() | instants,
    attach_precedence=st.lists(plain_text, max_size=3).map(tuple),
    probe_confidence=st.none() | st.sampled_from([0.5, 0.25, 1.0]),
    usage_summary=nasty.usages,
    status=st.sampled_from([AgentStatus.ACTIVE] * 4 + [AgentStatus.COMPLETE]),
    context_queries=st.lists(
        st.builds(nasty.ContextQueryEntry, path=plain_text, queried_at=instants), max_size=2
    ).map(tuple),
    extension=st.none() | plain_extensions,
    **dict.fromkeys(_TEXTS, maybe_text),
)  # fmt: skip
nows = st.builds(
    Instant, at=instants, awake_ns=st.integers(AWAKE, AWAKE + 5_000_000_000),
    boot_id=st.just(BOOT), time_ns=st.sampled_from([TIME_NS, TIME_NS, ""]),
)  # fmt: skip
machines = st.builds(Machine, st.sampled_from([77, 77, 77, None, 78]), is_held=st.booleans())
tokens = st.sampled_from([TOKEN, TOKEN, TOKEN, TOKEN, "wrong", "\udcff"])


def broken(data: st.DataObject, text: bytes) -> bytes:
    """The file with one small wound: what a hand, a torn write or another program leaves."""
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.sampled_from([0, 0, 1, 1, 8]))
    put = data.draw(st.sampled_from(
        [b"", b"\n", b" ", b'"', b"'", b"\\", b"1", b"0", b"-", b".0", b"# x\n", b"\r", b"[past]\n",
         b'x = "y"\n', b"\xff", "\u2028".encode(), b"\n[holder]\n", b"fence = 3\n", b"Z"]
    ))  # fmt: skip
    return text[:at] + put + text[at + cut :]


@settings(max_examples=150, deadline=None)
@given(plain_entries | nasty.entries, claims | nasty.claims, tokens, nows, machines, st.data())
def test_what_the_fast_path_writes_is_byte_for_byte_what_the_registry_would_write(
    entry, claim, token, now, machine, data
):
    files = [entry_to_toml(entry), claim_to_toml(attrs.evolve(claim, thread=entry.thread))]
    wounded = data.draw(st.sampled_from([None, None, 0, 1]))
    if wounded is not None:
        files[wounded] = broken(data, files[wounded])
    quick = renew_fast(*files, token, now, machine)
    if quick is not None:
        assert quick == renew_fully(*files, token, now, machine)


@settings(max_examples=100, deadline=None)
@given(plain_entries, claims, nows)
def test_a_plain_claim_that_is_evidently_held_takes_the_fast_path(entry, claim, now):
    entry = attrs.evolve(entry, status=AgentStatus.ACTIVE, thread="main", completed_at=None)
    since = Instant(at=now.at, awake_ns=now.awake_ns, boot_id=BOOT, time_ns=now.time_ns)
    holder = attrs.evolve(
        claim.holder, session_id="agent-a", token=KEPT, lost_at=None, renewed_at=since
    )
    if holder.owner is not None:
        owner = Owner(pid=4242, boot_id=BOOT, pid_ns=PID_NS, time_ns=TIME_NS, start_ticks=77)
        holder = attrs.evolve(holder, owner=owner)
    elif holder.liveness is not None:
        holder = attrs.evolve(holder, liveness=LivenessFile(device=1, inode=2))
    claim = attrs.evolve(claim, thread="main", schema=1, holder=holder)
    files = entry_to_toml(entry), claim_to_toml(claim)
    machine = Machine(77, is_held=True)
    quick = renew_fast(*files, TOKEN, now, machine)
    assert quick is not None
    assert quick == renew_fully(*files, TOKEN, now, machine)


@settings(max_examples=100, deadline=None)
@given(nasty.entries | plain_entries, nasty.claims | claims, st.data())
def test_a_plain_file_is_one_that_the_codec_reads(entry, claim, data):
    text = broken(data, entry_to_toml(entry))
    if plain_record(text, ENTRY) is not None:
        try:
            entry_from_toml(text, "e")
        except RegistryError:
            # The two that are no matter of one line; the callers ask for them.
            assert fast.plain_thread(text, "agent-a") is None
    text = broken(data, claim_to_toml(claim))
    found = plain_record(text, CLAIM)
    if found is not None and ("[holder]" not in found or "[holder.renewed]" in found):
        assert claim_to_toml(claim_from_toml(text, "c")) == text


@pytest.mark.parametrize(
    "text", ["2026-07-01T12:00:0Z", "2026-07-01T12:00:00.Z", "2026-07-01T12:00:00", "Z", ""]
)
def test_a_time_cut_short_is_not_plain(text):
    whole = (ROOT / "tests" / "data" / "golden" / "golden-minimal.toml").read_text()
    lines = [
        f'started_at = "{text}"' if line.startswith("started_at") else line
        for line in whole.splitlines()
    ]
    assert plain_record(whole.encode(), ENTRY) is not None
    assert plain_record(("\n".join(lines) + "\n").encode(), ENTRY) is None


@pytest.mark.parametrize(("late_ns", "runs"), [(-1, True), (0, False), (1, False)])
def test_a_ttl_runs_to_its_last_nanosecond_and_no_further(late_ns, runs):
    at = Timestamp("2026-07-01T12:00:00Z")
    since = Instant(at=at, awake_ns=AWAKE, boot_id=BOOT, time_ns=TIME_NS)
    holder = ClaimHolder(
        session_id="agent-a", token=KEPT, ttl_s=1.5, granted_at=at, renewed_at=since
    )
    claim = plain_record(claim_to_toml(Claim(thread="main", fence=1, holder=holder)), CLAIM)
    awake_ns = AWAKE + 1_500_000_000 + late_ns
    now = Reading(unix_ns=at.unix_ns, awake_ns=awake_ns, boot_id=BOOT, time_ns=TIME_NS)
    machine = Machine(77, is_held=True)
    assert fast.is_running(claim, now, machine, machine.looks_held) is runs


@example(0)
@example(1_783_000_000_120_000_000)
@example(1_783_000_000_000_001_000)
@given(st.integers(0, 250_000_000_000_000_000_000))
def test_instants_are_written_as_the_registry_writes_them(unix_ns):
    assert fast._rfc3339(unix_ns) == Timestamp.from_unix_ns(unix_ns).text


def test_the_tables_of_the_files_are_those_of_the_codec():
    from heddle_registry.codec import claims as claim_codec
    from heddle_registry.codec import entries as entry_codec

    def keys(table, header: str) -> dict[str, list[str]]:
        found = {header: []}
        for field in table._fields:
            inner = getattr(field, "table", None)
            if inner is None or getattr(field, "keep_empty", False):
                found[header].append(field.key)
            if inner is not None:
                name = ".".join(filter(None, (header.strip("[]"), field.key)))
                is_array = type(field).__name__ == "TableArray"
                found |= keys(inner, f"[[{name}]]" if is_array else f"[{name}]")
        return found

    for spec, table in ((CLAIM, claim_codec.CLAIM), (ENTRY, entry_codec.ENTRY)):
        assert {header: list(kinds) for header, kinds in spec.items()} == keys(table, "")
        assert list(spec) == list(keys(table, ""))


@pytest.mark.parametrize("name", ["golden-full", "golden-minimal"])
def test_what_the_rust_tool_writes_is_plain(name):
    path = ROOT / "tests" / "data" / "golden" / f"{name}.toml"
    assert path.exists()
    assert plain_record(path.read_bytes(), ENTRY) is not None


# -- on the disk -----------------------------------------------------------------------------


def refuse_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, a command that does not go the fast way fails the test."""

    def refuse(words: list[str]) -> int:
        raise AssertionError(f"the long way: {words}")

    monkeypatch.setattr("heddle_registry.cli.application.run_command", refuse)


def reserved(heddle: Heddle, *words: object) -> tuple[str, str]:
    won = heddle.json("reserve", "main", *words)
    return won["entry"]["session_id"], won["token"]


def the_claim(heddle: Heddle) -> tuple[bytes, tuple[int, int]]:
    claims = heddle.folder / "claims"
    (path,) = claims.glob("*.toml")
    return path.read_bytes(), (claims.stat().st_mtime_ns, path.stat().st_mode)


@pytest.mark.parametrize("how", [("--ttl", "60"), ("--owner-pid", os.getpid())])
def test_it_renews_on_the_disk_and_leaves_the_set_of_claims_as_it_was(
    heddle: Heddle, how, monkeypatch
):
    session_id, token = reserved(heddle, *how)
    refuse_the_long_way(monkeypatch)
    before, marks = the_claim(heddle)
    shown = heddle("heartbeat", session_id, "--token", token).out
    after, same_marks = the_claim(heddle)
    assert shown == ("renewed; again within 60 s\n" if "--ttl" in how else "noted\n")
    assert marks == same_marks
    old, new = claim_from_toml(before, "b"), claim_from_toml(after, "a")
    assert new.holder.renewed_at.awake_ns > old.holder.renewed_at.awake_ns
    assert claim_to_toml(attrs.evolve(new, holder=old.holder)) == before
    assert list((heddle.folder / "tmp").iterdir()) == []


def test_both_ways_write_the_same_file_at_the_same_instant(heddle: Heddle, monkeypatch):
    session_id, token = reserved(heddle, "--ttl", "60")
    unix_ns, awake_ns = time.time_ns(), time.monotonic_ns()
    monkeypatch.setattr(time, "time_ns", lambda: unix_ns)
    monkeypatch.setattr("heddle_registry.adapters.procfs.Procfs.awake_ns", lambda _: awake_ns)
    said = heddle("heartbeat", session_id, "--token", token)
    quick = the_claim(heddle)
    monkeypatch.setattr(fast, "beat", lambda _words: None)
    assert heddle("heartbeat", session_id, "--token", token) == said
    assert the_claim(heddle) == quick


def test_a_claim_whose_ttl_passed_is_the_registrys_to_renew_or_to_refuse(heddle: Heddle, tmp_path):
    # Another branch may have taken its folder since: that is to be seen, not written over.
    first = heddle.json("reserve", "one", "--ttl", "600", "--path", tmp_path)
    (path,) = (heddle.folder / "claims").glob("*.toml")
    claim = claim_from_toml(path.read_bytes(), "c")
    assert claim.holder is not None
    since = claim.holder.renewed_at
    past = attrs.evolve(since, awake_ns=since.awake_ns - 601_000_000_000)
    holder = attrs.evolve(claim.holder, renewed_at=past)
    path.write_bytes(claim_to_toml(attrs.evolve(claim, holder=holder)))
    heddle.json("reserve", "two", "--ttl", "600", "--path", tmp_path)
    session_id, token = first["entry"]["session_id"], first["token"]
    assert fast.beat([session_id, "--token", token]) is None
    refused = heddle("heartbeat", session_id, "--token", token, status=None)
    assert refused.status != 0
    held = [row["thread"] for row in heddle.json("list")["entries"]
            if row["claim"] and row["claim"]["state"] == "held"]  # fmt: skip
    assert held == ["two"]


def test_it_looks_for_links_where_every_other_way_does(tmp_path):
    folders = {os.path.join(tmp_path, *name.split("/")) for name in fast._FOLDERS}
    assert folders == set(Layout(str(tmp_path)).folders)


@pytest.mark.parametrize("name", fast._FOLDERS)
def test_a_link_in_a_folders_place_is_the_registrys_to_refuse(heddle: Heddle, name, tmp_path):
    session_id, token = reserved(heddle, "--ttl", "600")
    victim = tmp_path / "victim"
    place = heddle.folder / name
    if place.exists():
        place.rename(victim)
    else:
        victim.mkdir()
    (victim / ".notes.tmp").write_text("precious")
    os.utime(victim / ".notes.tmp", (1, 1))
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(victim)
    before = {path: path.read_bytes() for path in victim.rglob("*") if path.is_file()}
    assert fast.beat([session_id, "--token", token]) is None
    assert {path: path.read_bytes() for path in victim.rglob("*") if path.is_file()} == before


def test_it_takes_away_what_a_crashed_writer_left(heddle: Heddle):
    session_id, token = reserved(heddle, "--ttl", "600")
    left = heddle.folder / "tmp" / ".agent-x.toml.0123456789abcdef.tmp"
    left.write_text("half")
    os.utime(left, (1, 1))
    assert fast.beat([session_id, "--token", token]) == 0
    assert not left.exists()


def test_it_waits_for_the_registrys_lock(heddle: Heddle):
    session_id, token = reserved(heddle, "--ttl", "60")
    before, _ = the_claim(heddle)
    with DirectoryLock(str(heddle.agents)).held():
        waiting = subprocess.Popen(
            [sys.executable, "-m", "heddle_registry", "heartbeat", session_id, "--token", token],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        try:
            until(lambda: flock_waiters(heddle.agents / ".lock"), "its sleep at the lock")
            assert the_claim(heddle)[0] == before
        except BaseException:
            waiting.kill()
            waiting.communicate()
            raise
    out, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (0, b"renewed; again within 60 s\n")
    assert the_claim(heddle)[0] != before


@pytest.mark.parametrize(
    "words",
    [
        ("--json",), ("--help",), ("--lock-timeout", "1"), ("--token", "-"), ("--token", ""),
        ("--token", "a", "--token", "b"), ("--token", "a", "--token-file", "b"), ("--toke", "a"),
        ("--token",), ("--heddle-dir", ""), ("two", "ids"), ("-x",), ("--",), ("../../passwd",),
        ("--token-file", "/nowhere"),
    ],
)  # fmt: skip
def test_odd_words_are_left_to_the_registry(heddle: Heddle, words, monkeypatch):
    session_id, token = reserved(heddle, "--ttl", "60")
    monkeypatch.setenv("HEDDLE_AGENT_SESSION_ID", session_id)
    monkeypatch.setenv("HEDDLE_AGENT_TOKEN", token)
    before = the_claim(heddle)
    assert fast.beat(words) is None
    assert the_claim(heddle) == before
    assert fast.beat([]) == 0


def test_settings_that_may_be_wrong_are_left_to_the_registry(heddle: Heddle, monkeypatch):
    session_id, token = reserved(heddle, "--ttl", "60")
    with monkeypatch.context() as patch:
        patch.setenv("HEDDLE_REGISTRY_LOCK_TIMEOUT", "soon")
        assert "soon" in heddle("heartbeat", session_id, "--token", token, status=2).err
    (heddle.folder / "config.toml").write_text("= broken")
    heddle("heartbeat", session_id, "--token", token, status=2)


def test_it_finds_token_and_registry_where_the_registry_does(heddle: Heddle, monkeypatch):
    session_id, token = reserved(heddle, "--ttl", "60")
    refuse_the_long_way(monkeypatch)
    kept = heddle.folder.parent / "token"
    kept.write_text(f"{token}\n")
    below = heddle.folder.parent / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.delenv("HEDDLE_DIR")
    monkeypatch.chdir(below)
    heddle("heartbeat", session_id, "--token-file", kept)
    heddle("heartbeat", session_id, f"--token={token}", f"--heddle-dir={heddle.folder}")


def test_an_owner_that_has_ended_is_the_registrys_to_report(heddle: Heddle):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        session_id, token = reserved(heddle, "--owner-pid", child.pid)
        assert fast.beat([session_id, "--token", token]) == 0
    finally:
        child.communicate()
    before = the_claim(heddle)
    assert fast.beat([session_id, "--token", token]) is None
    assert the_claim(heddle) == before
    assert "is gone" in heddle("heartbeat", session_id, "--token", token, status=11).err


def test_the_host_of_the_registry_reads_the_same_clocks():
    host, machine = LocalHost(), fast_machine()
    now = host.now()
    assert (now.boot_id, now.time_ns) == (machine.boot_id(), machine.time_ns())
    assert 0 <= machine.awake_ns() - now.awake_ns < 60 * 10**9


def fast_machine():
    from heddle_registry.adapters.procfs import Procfs

    return Procfs()


def test_readers_who_cannot_see_the_folder_are_told_by_the_registry(heddle: Heddle, tmp_path: Path):
    assert fast.beat(["agent-x", "--token", "t", "--heddle-dir", str(tmp_path / "none")]) is None
    assert not (tmp_path / "none").exists()
