"""Anything may lie in the folder, come in by a hook or stand on a command line: no traceback.

The codec's own fuzzing is in tests/codec; here whole registries are asked about what was found,
and the command line about what it was told.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry import AgentRegistry
from heddle_registry.__main__ import main
from heddle_registry.adapters.layout import thread_hash
from heddle_registry.codec import claim_to_toml, entry_to_toml
from heddle_registry.core.transaction import Keys
from heddle_registry.errors import RegistryError
from tests.process_helpers import ROOT
from tests.registry.world import World
from tests.reliability.boundaries import forget
from tests.reliability.io_faults import no_waiting_for_the_disk, quick_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = [path.read_bytes() for path in sorted((ROOT / "tests/data/golden").glob("*.toml"))]
SPLICES = [
    b"", b"\0", b"\xff\xfe", b"\x1b[2J", b"[" * 300, b"nan", b"-1", b"9" * 400, b'"' * 3, b"=",
    b"\r", b"fence = 9" + b"9" * 18, b"[heddle_registry]\n", b"schema = 99\n",
    b"status = 'gone'\n", b"pid = 4294967296\n",
    b"started_at = 2026-07-01T12:00:00Z\n", b"fence = -1\n", b"ttl_s = 1e400\n", b"x = {a = []}\n",
    b'path = "\\u0000"\n', b'completed_at = "9999-12-31T23:59:60+23:59"\n',
]  # fmt: skip


def mangled(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes changed in one to four places."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice([0, 1, 8, 200]))
        kind = chance.random()
        if kind < 0.4:
            data = data[:at] + chance.choice(SPLICES) + data[to:]
        elif kind < 0.6:
            data = data[:at] + bytes(chance.randrange(256) for _ in range(3)) + data[to:]
        elif kind < 0.8:
            lines = data.splitlines(keepends=True)
            chance.shuffle(lines)
            data = b"".join(lines[: chance.randint(0, len(lines))])
        else:
            data = data[:at]
    return data


def _records() -> list[tuple[str, bytes]]:
    with quick_folder() as folder:
        world = World("directory", folder)
        held = world.reserve(pid=world.host.spawn(["a"]), path=str(folder))
        world.reserve("ttl only")
        world.registry.heartbeat(held.entry.session_id, held.token)
        world.on_terms(force_reason="why not", ttl_s=60)
        found = [
            (str(path.relative_to(world.folder)), path.read_bytes())
            for name in ("agents", "claims")
            for path in sorted((world.folder / name).glob("*.toml"))
        ]
        forget(world.folder)
    return found


def fuzz_folders(rounds: int, seed: int) -> dict[str, int]:
    """Ask registries of damaged files everything; count what came of it."""
    chance = random.Random(seed)
    records = _records()
    counts = {"granted": 0, "refused": 0}
    with quick_folder() as place, no_waiting_for_the_disk():
        for number in range(rounds):
            world = World("directory", place / str(number)) if _made(place, number) else None
            assert world is not None
            for path, data in records:
                target = world.folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(mangled(data, chance) if chance.random() < 0.7 else data)
            odd = world.folder / "agents" / f"agent-{number}.toml"
            odd.write_bytes(mangled(chance.choice(GOLDEN), chance))
            try:
                _ask_everything(world, counts)
            except BaseException as found:
                found.add_note(f"seed {seed}, round {number}")
                raise
            forget(world.folder)
    return counts


def _made(place: Path, number: int) -> bool:
    (place / str(number)).mkdir()
    return True


def _ask_everything(world: World, counts: dict[str, int]) -> None:
    registry = world.registry
    look = registry.look()
    listed = {entry.session_id for entry in registry.list()}
    assert listed == {entry.session_id for entry in look.entries}
    for problem in look.problems:
        assert problem.message.isprintable()
    for entry in look.entries:
        assert entry_to_toml(entry)
    for name in sorted(path.stem for path in (world.folder / "agents").glob("*.toml")):
        for ask in (
            registry.load,
            lambda n: registry.heartbeat(n, "token"),
            lambda n: registry.release(n, token="token"),
        ):
            with contextlib.suppress(RegistryError):
                ask(name)
    registry.sweep()
    for thread in ("main", "ttl only", "untouched"):
        before = _fence(world, thread)
        try:
            outcome = world.on_terms(thread, ttl_s=60)
        except RegistryError:
            counts["refused"] += 1
            continue
        fence = getattr(outcome, "fence", None)
        counts["granted" if fence is not None else "refused"] += 1
        if fence is not None and before is not None:
            assert fence > before
    # Damage closes its own branch and no other.
    assert getattr(world.on_terms("never seen", ttl_s=60), "fence", None) == 1


def _fence(world: World, thread: str) -> int | None:
    try:
        loaded, now = world.store.peek(Keys(threads=(thread,)))
        return loaded.claim_on(thread, now).fence
    except RegistryError:
        return None


@pytest.mark.parametrize("shard", range(4))
def test_whatever_lies_in_the_folder_every_question_has_an_answer(shard: int) -> None:
    counts = fuzz_folders(200, seed=shard)
    assert counts["granted"]
    assert counts["refused"]


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shard", range(4))
def test_much_more_of_whatever_may_lie_in_the_folder(shard: int) -> None:
    print(fuzz_folders(4_000, seed=1_000 + shard))


# -- the command line --------------------------------------------------------------------------

WORDS = [
    "run", "list", "why", "reserve", "heartbeat", "release", "check", "usage", "gc", "doctor",
    "attach", "probe", "relay", "install", "--json", "--ttl", "--wait", "0", "--path", "--task",
    "--force", "--reason", "--fence", "--token", "--token-file", "-", "--", "main", "agent-x",
    "--status", "complete", "--to-pid", "--to-ttl", "--tree", "--thread", "--key", "--dir", "-h",
    "--input", "--dry-run", "--by", "--since", "--source", "claude-code", "SessionStart", "nan",
    "", " ", "-1", "1e999", "99999999999999999999", "\0", "\x1b[2J", "ü", "\udcff", "../..",
    "/dev/null", "a" * 2_000, "--lock-timeout", "--help", "--owner-pid", "--base-state", "=",
    "--x=",
]  # fmt: skip
DOCUMENTED = {0, 2, 4, 5, 6, 7, 8, 9, 10, 11, 75, 125, 126, 127, 1}


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in list(os.environ):
        if name.startswith(("HEDDLE", "CLAUDE", "CODEX", "GEMINI")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HEDDLE_REGISTRY_PLUGINS", "")
    monkeypatch.setenv("HEDDLE_DIR", str(tmp_path / "work" / ".heddle"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path
    forget(tmp_path / "work" / ".heddle")


def _say(words: list[str], given: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), errors="replace"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0
    return status, out.getvalue(), err.getvalue()


def fuzz_words(rounds: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    for number in range(rounds):
        words = [chance.choice(WORDS) for _ in range(chance.randint(0, 7))]
        if words[:1] in (["run"], ["install"]) or "run" in words or "install" in words:
            words = [word for word in words if word not in ("run", "install")]
        given = chance.choice([b"", b"{}", b"[1", b'{"session_id": 3}', b"\xff\0", b"[" * 50_000])
        try:
            status, out, err = _say(words, given, monkeypatch)
            assert status in DOCUMENTED
            assert "Traceback" not in out + err
            if "--json" in words and status and out.startswith("{"):
                assert json.loads(out.splitlines()[-1])["schema"]
        except BaseException as found:
            found.add_note(f"seed {seed}, round {number}: {words!r} given {given[:20]!r}")
            raise


def test_no_words_bring_a_traceback(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz_words(1_500, 0, monkeypatch)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_many_more_words(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz_words(10_000, 1, monkeypatch)


# -- payloads and settings ---------------------------------------------------------------------


def odd_values(chance: random.Random, depth: int = 0) -> Any:
    """Return any JSON value, of the kinds that hooks have sent and some that none should."""
    kind = chance.random()
    if depth < 3 and kind < 0.3:
        names = ["session_id", "hook_event_name", "cwd", "transcript_path", "agent_id", "x", ""]
        return {chance.choice(names): odd_values(chance, depth + 1) for _ in range(4)}
    if depth < 3 and kind < 0.4:
        return [odd_values(chance, depth + 1) for _ in range(3)]
    return chance.choice(
        ["", "a" * 5_000, "\x1b[2J", "\0", "../../etc/passwd", "/dev/zero", "/dev/stdin", -1, 1e300,
         True, None, "11111111-1111-4111-8111-111111111111", "SessionStart", "ü\ud800", 2**70]
    )  # fmt: skip


def fuzz_payloads(rounds: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    events = ["SessionStart", "SubagentStart", "SubagentStop", "SessionEnd", "Stop", "", "x\0"]
    for number in range(rounds):
        payload = json.dumps(odd_values(chance)).encode()
        if chance.random() < 0.3:
            payload = mangled(payload, chance)
        harness = chance.choice(["claude-code", "codex", "gemini-cli", "pi", "none"])
        words = ["relay", harness, chance.choice(events)]
        try:
            status, out, err = _say(words, payload, monkeypatch)
            assert status == 0, (out, err)  # whatever happens: a hook that fails stops an agent
            assert "Traceback" not in out + err
            status, out, err = _say(["attach", "--dry-run", "--json"], payload, monkeypatch)
            assert "Traceback" not in out + err
        except BaseException as found:
            found.add_note(f"seed {seed}, round {number}: {words!r} given {payload[:300]!r}")
            raise


def test_no_payload_brings_a_traceback_or_stops_an_agent(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzz_payloads(400, 0, monkeypatch)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_many_more_payloads(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz_payloads(3_000, 1, monkeypatch)


def test_no_settings_file_brings_a_traceback(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    good = (
        b'[lock]\ntimeout_s = 3\n[plugins]\ndisabled = ["a"]\n[attach]\n[[attach.rules]]\n'
        b'name = "x"\nwhen = {harness = "codex"}\nattach_to = "new"\nreason = "r"\n'
    )
    folder = clean / "work" / ".heddle"
    folder.mkdir()
    for _ in range(80):
        data = mangled(good, chance)
        (folder / "config.toml").write_bytes(data)
        for words in (["list", "--json"], ["doctor", "--json"]):
            status, out, err = _say(words, b"", monkeypatch)
            assert status in (0, 2, 6, 7), (data, out, err)
            assert "Traceback" not in out + err


def test_a_registry_full_of_odd_names_answers(tmp_path: Path) -> None:
    folder = tmp_path / ".heddle"
    agents = folder / "agents"
    registry = AgentRegistry(folder)
    with registry.reserve("main"):
        pass
    for name in (b"\xff.toml", b"a" * 250 + b".toml", b".toml", b"A B.toml", b"x.TOML",
                 "ü.toml".encode(), b"-.toml", b"agent-\n.toml", b"agent-1.toml~"):  # fmt: skip
        with contextlib.suppress(OSError):
            Path(os.fsdecode(os.fsencode(agents) + b"/" + name)).write_bytes(GOLDEN[0])
    (agents / "agent-folder.toml").mkdir()
    os.mkfifo(agents / "agent-pipe.toml")
    (agents / "agent-huge.toml").write_bytes(b"#" * (1 << 20) + b"#")
    (folder / "claims" / f"{thread_hash('other')}.toml").write_bytes(
        claim_to_toml(registry.store.peek(Keys(threads=("main",)))[0].claims["main"])
    )
    assert len(registry.look().problems) >= 8
    assert [entry.status.value for entry in registry.list()] == ["complete"]
    with registry.reserve("main") as claim:
        assert claim.fence == 2
    forget(folder)
