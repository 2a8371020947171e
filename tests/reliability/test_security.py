"""Attacks on the registry: each test is one that somebody could try, and fails at it.

The threat model is in docs/explanation/threat-model.md: whoever runs as the same user can do
anything. These are the others: a repository cloned with a prepared ``.heddle``, a member of a
shared folder, a hostile record, an environment full of secrets.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, ClaimLost, Reserved, beat
from heddle_registry.codec import entry_to_toml
from heddle_registry.core import digest
from heddle_registry.core.entry import ContextQueryEntry
from heddle_registry.core.renew import entry_token_refusal
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.token import hash_token, token_matches
from heddle_registry.errors import IllegalTransition, RegistryError
from tests.process_helpers import NOBODY, ROOT, needs_other_user
from tests.registry.world import World
from tests.reliability.boundaries import forget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRIPT = ROOT / "heddle_registry" / "cli" / "heddle-registry"
AT = Timestamp("2026-07-01T12:00:00Z")


@attrs.frozen
class Said:
    status: int
    out: str
    err: str

    @property
    def both(self) -> str:
        return self.out + self.err


def heddle(
    folder: Path, *words: object, cwd: Path | None = None, given: str = "", **env: str
) -> Said:
    """Run the command line as its installed script does, in an environment of ours alone."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words), "--heddle-dir", str(folder)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        input=given,
        timeout=60,
        check=False,
        cwd=cwd or folder.parent,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), **env},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


# -- tokens ------------------------------------------------------------------------------------


def _held(world: World) -> Reserved:
    return world.reserve(pid=world.host.spawn(["holder"]))


def _expired(world: World) -> Reserved:
    held = world.reserve()
    world.host.advance(301)
    return held


def _taken(world: World) -> Reserved:
    held = _expired(world)
    world.reserve(pid=world.host.spawn(["taker"]))
    return held


def _dead(world: World) -> Reserved:
    held = _held(world)
    assert held.entry.pid is not None
    world.host.kill(held.entry.pid)
    return held


def _forced(world: World) -> Reserved:
    held = _held(world)
    world.on_terms(force_reason="the reason is nobody's business", ttl_s=60)
    return held


STATES: dict[str, Callable[[World], Reserved]] = {
    "held": _held, "expired": _expired, "taken over": _taken, "dead": _dead, "forced": _forced,
}  # fmt: skip
DOORS: dict[str, Callable[[AgentRegistry, str, str | None], object]] = {
    "heartbeat": lambda r, i, t: r.heartbeat(i, t),
    "hand over": lambda r, i, t: r.hand_over(i, t, to_ttl_s=60),
    "release": lambda r, i, t: r.release(i, token=t),
}


@pytest.mark.parametrize("guess", ["", "x", "0" * 40, "ü" * 40, "\udcff", "0" * 100_000])
def test_who_guesses_a_token_learns_nothing_of_the_claim(guess: str, tmp_path: Path) -> None:
    said = set()
    for state, make in STATES.items():
        for door, enter in DOORS.items():
            folder = tmp_path / f"{state}-{door}"
            folder.mkdir()
            world = World("directory", folder)
            held = make(world)
            session_id = held.entry.session_id
            before = world.records()
            if door == "release" and not world.loaded(session_id).is_active:
                # The entry's own status is no secret: every listing shows it. Who took its
                # branch, and why, is its bearer's to know.
                with pytest.raises(IllegalTransition) as ended:
                    enter(world.registry, session_id, guess)
                others = {entry.session_id for entry in world.registry.list()} - {session_id}
                assert others
                assert not [told for told in (*others, "business") if told in str(ended.value)]
            else:
                with pytest.raises(ClaimLost) as refused:
                    enter(world.registry, session_id, guess)
                assert refused.value.by == ""
                said.add(str(refused.value))
            assert world.records() == before
            forget(world.folder)
    assert len(said) == 1, said  # the same words whether it is held, free, or another's
    assert "nobody's business" not in said.pop()


def test_a_token_is_compared_in_constant_time_before_anything_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("directory", tmp_path)
    held = _held(world)
    compared: list[tuple[int, int]] = []
    order: list[str] = []

    def compare(left: Any, right: Any) -> bool:
        compared.append((len(left), len(right)))
        order.append("compared")
        return hmac.compare_digest(left, right)

    def observed(*_: Any, **__: Any) -> Any:
        order.append("looked")
        raise AssertionError("a stranger made us look at the holder's process")

    monkeypatch.setattr(digest, "_compare_digest", compare)
    monkeypatch.setattr(world.host, "observe", observed)
    for guess in ("", "x", "0" * 40, "0" * 4_000):
        with pytest.raises(ClaimLost):
            world.registry.heartbeat(held.entry.session_id, guess)
    # Digests are compared, never tokens: equal lengths, whatever was guessed.
    assert compared
    assert all(left == right for left, right in compared)
    assert set(order) == {"compared"}


def test_no_token_is_compared_but_by_the_function_that_takes_as_long_for_every_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[object] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(digest, "_compare_digest", compare)
    kept = hash_token("the right one", b"saltsalt")
    in_file = {"salt": f'"{kept.salt}"', "digest": f'"{kept.digest}"'}
    rust = World("memory", tmp_path).entry("agent-rust", reservation_token="the right one")
    doors: dict[str, Callable[[str], bool]] = {
        "a claim's": lambda token: token_matches(token, kept),
        "the quick heartbeat's": lambda token: beat._is_token(token, in_file),
        "the clear text of the Rust tool": lambda token: entry_token_refusal(rust, token) is None,
    }
    for door, accepts in doors.items():
        for guess in ("the right one", "the wrong one", ""):
            compared.clear()
            assert accepts(guess) is (guess == "the right one"), door
            assert len(compared) == 1, door


# -- secrets -----------------------------------------------------------------------------------

SECRET = "hunter2-correct-horse-battery"


def test_no_secret_of_the_environment_or_a_payload_is_kept_or_said(tmp_path: Path) -> None:
    folder = tmp_path / "work" / ".heddle"
    folder.parent.mkdir()
    env = {"AWS_SECRET_ACCESS_KEY": SECRET, "MY_TOKEN": SECRET, "CLAUDECODE": "1",
           "CLAUDE_CODE_SESSION_ID": "11111111-1111-4111-8111-111111111111"}  # fmt: skip
    payload = json.dumps(
        {
            "session_id": "11111111-1111-4111-8111-111111111111",
            "hook_event_name": "SessionStart",
            "cwd": str(folder.parent),
            "prompt": SECRET,
            "tool_input": {"content": SECRET, "command": f"curl -H {SECRET}"},
        }
    )
    said = [
        heddle(folder, "reserve", "one", "--ttl", 60, "--json", **env),
        heddle(folder, "run", "two", "--", sys.executable, "-c", "pass", SECRET, **env),
        heddle(folder, "attach", "--json", given=payload, **env),
        heddle(folder, "relay", "claude-code", "SessionStart", given=payload, **env),
        heddle(folder, "relay", "claude-code", "PostToolUse", given=payload, **env),
        heddle(folder, "relay", "no-such-harness", "x", given=payload, **env),
        heddle(folder, "probe", "--json", **env),
        heddle(folder, "probe", "--record", folder.parent / "recorded.json", **env),
        heddle(folder, "list", "--json", **env),
        heddle(folder, "why", "one", "--json", **env),
        heddle(folder, "doctor", "--json", **env),
        heddle(folder, "heartbeat", "agent-none", "--token", SECRET, "--json", **env),
    ]
    assert [answer.status for answer in said] == [0] * 11 + [10], said
    token = json.loads(said[0].out)["token"]
    assert [SECRET for answer in said if SECRET in answer.both] == []
    assert [answer for answer in said[1:] if token in answer.both] == []
    for name, data in everything_in(tmp_path).items():
        assert SECRET.encode() not in data, name
        assert token.encode() not in data, name


def test_a_clear_text_token_of_the_rust_tool_is_never_shown_and_gone_after_our_write(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ".heddle"
    agents = folder / "agents"
    agents.mkdir(parents=True)
    entry = AgentEntry(
        session_id="agent-rust", thread="main", base_state="b", started_at=AT,
        status=AgentStatus.ACTIVE, reservation_token=SECRET,
    )  # fmt: skip
    (agents / "agent-rust.toml").write_bytes(entry_to_toml(entry))
    for words in (["list"], ["list", "--json"], ["why", "main"], ["why", "agent-rust", "--json"],
                  ["doctor"], ["heartbeat", "agent-rust", "--token", "wrong"]):  # fmt: skip
        assert SECRET not in heddle(folder, *words).both
    assert heddle(folder, "heartbeat", "agent-rust", "--token", SECRET).status == 0
    for name, data in everything_in(folder).items():
        assert SECRET.encode() not in data, name


def test_errors_and_records_do_not_show_a_token_in_their_repr(tmp_path: Path) -> None:
    world = World("directory", tmp_path)
    held = _held(world)
    assert held.token
    assert held.token not in repr(held)
    with pytest.raises(RegistryError) as refused:
        world.registry.heartbeat(held.entry.session_id, held.token[:-1])
    assert held.token[:-1] not in str(refused.value) + repr(refused.value.__dict__)


# -- ids and paths -----------------------------------------------------------------------------

HOSTILE_IDS = ["../x", "..", ".", "a/b", "/etc/passwd", "a\0b", "", "x" * 201, ".lock", "a\nb",
               "a\\b", "ä", "-rf", "~", "a b", "a.toml/../../b"]  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE_IDS)
def test_no_id_leads_out_of_the_folder(hostile: str, tmp_path: Path) -> None:
    inner = tmp_path / "work" / "deep"
    inner.mkdir(parents=True)
    world = World("directory", inner)
    world.present("agent-there")
    registry = world.registry

    def outside_of_it() -> dict[str, bytes]:
        found = everything_in(tmp_path).items()
        return {name: data for name, data in found if ".heddle" not in name}

    outside = outside_of_it()
    query = ContextQueryEntry(path="p", scope="s", queried_at=AT)
    doors: list[Callable[[], object]] = [
        lambda: registry.load(hostile),
        lambda: registry.update_status(hostile, "complete"),
        lambda: registry.update_entry(hostile, lambda entry: entry),
        lambda: registry.delete(hostile),
        lambda: registry.heartbeat(hostile, "t"),
        lambda: registry.release(hostile, token="t"),
        lambda: registry.hand_over(hostile, "t", to_ttl_s=60),
        lambda: registry.log_context_query(hostile, query),
        lambda: registry.save(world.entry(hostile)),
        lambda: registry.create_generated_entry(lambda _: world.entry(hostile)),
        lambda: registry.create_generated_entry_with(lambda: hostile, world.building()),
        lambda: registry.try_reserve_thread("main", lambda _: world.entry(hostile)),
        lambda: registry.find_or_create_active_entry(
            lambda _: False, lambda entry: entry, lambda _: world.entry(hostile)
        ),
    ]
    allowed = hostile == "-rf"
    for door in doors:
        try:
            door()
        except RegistryError:
            continue
        assert allowed or door is doors[0], f"{hostile!r} was taken by door {doors.index(door)}"
    assert outside_of_it() == outside
    shapes = re.compile(
        r"agents/[a-z0-9-]+\.toml|agents/\.lock|claims/[0-9a-f]{32}\.toml|"
        r"index\.sqlite(-journal|\.lock)?|\.gitignore|queries/[a-z0-9-]+\.jsonl"
    )
    assert [name for name in everything_in(world.folder) if not shapes.fullmatch(name)] == []


@pytest.mark.parametrize("thread", ["../../etc/passwd", "/etc/passwd", "a/../b", "con", "-", "~"])
def test_a_branch_may_be_called_anything_and_its_files_lie_where_they_belong(
    thread: str, tmp_path: Path
) -> None:
    world = World("directory", tmp_path / "deep" if (tmp_path / "deep").mkdir() else tmp_path)
    held = world.reserve(thread, pid=world.host.spawn(["holder"]))
    with world.store.join_line(thread, 10):
        pass
    assert held.entry.thread == thread
    assert {path.name for path in tmp_path.iterdir()} <= {".heddle", "deep"}
    assert [p.name for p in (world.folder / "claims").iterdir() if len(p.stem) != 32] == []


# -- links -------------------------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of somebody's that nothing of ours may touch."""
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("thesis.doc", "5", "0000000000000007", "agent-x.jsonl", "agent-x", "a.toml",
                 ".notes.toml.tmp", ".toml.tmp-1"):  # fmt: skip
        (victim / name).write_text("precious")
    (victim / "0000000000000007.wake").write_text("precious")
    with sqlite3.connect(victim / "places.db") as places:
        places.execute("PRAGMA journal_mode = WAL")
        places.execute("PRAGMA user_version = 1")
        places.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        places.execute("INSERT INTO meta VALUES ('schema', '1')")
    places.close()
    os.utime(victim, ns=(1_000, 1_000))
    return victim


def _state(folder: Path) -> tuple[dict[str, bytes], int]:
    return everything_in(folder), folder.stat().st_mtime_ns


def _everything_that_writes(folder: Path) -> list[Callable[[], object]]:
    registry = AgentRegistry(folder, lock_timeout_s=2)
    entry = AgentEntry(
        session_id="agent-new", thread="new", base_state="b", started_at=AT,
        status=AgentStatus.ACTIVE,
    )  # fmt: skip

    def hold() -> None:
        with registry.reserve("main"):
            pass

    def wait() -> None:
        with registry.store.join_line("main", 1):
            pass

    def log() -> None:
        query = ContextQueryEntry(path="p", scope="s", queried_at=AT)
        for _ in range(3):
            registry.log_context_query("agent-x", query)

    return [
        hold,
        wait,
        log,
        lambda: registry.save(entry),
        registry.sweep,
        registry.store.tidy,
        registry.list,
        lambda: registry.update_status("agent-x", "complete"),
        lambda: registry.delete("agent-x"),
        lambda: [check.repair() for check in registry.store.examine(registry.host) if check.repair],
    ]


@pytest.mark.parametrize("name", ["agents", "claims", "live", "wait", "tmp", "queries",
                                  "agents/.quarantine"])  # fmt: skip
def test_a_folder_that_is_a_link_is_refused_and_what_it_leads_to_is_untouched(
    name: str, tmp_path: Path, victim: Path
) -> None:
    folder = tmp_path / "cloned" / ".heddle"
    (folder / "agents").mkdir(parents=True)
    if name == "agents":
        (folder / "agents").rmdir()
    told: list[str] = []
    (folder / name).symlink_to(victim)
    before = _state(victim)
    for write in _everything_that_writes(folder):
        try:
            write()
        except RegistryError as error:
            told.append(str(error))
    assert any("a link stands in the place of a folder" in text for text in told)
    assert _state(victim) == before
    answer = heddle(folder, "doctor")
    assert "is a link" in answer.out


def test_the_registry_itself_may_be_a_link_and_still_sweeps_only_its_own(
    tmp_path: Path, victim: Path
) -> None:
    (victim / "tmp").mkdir()
    (victim / "tmp" / "letter.doc").write_text("precious")
    (tmp_path / "cloned").mkdir()
    folder = tmp_path / "cloned" / ".heddle"
    folder.symlink_to(victim)
    before = everything_in(victim)
    with AgentRegistry(folder).reserve("main"):
        pass
    AgentRegistry(folder).store.tidy()
    after = everything_in(victim)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize(
    "name",
    ["agents/agent-x.toml", "agents/.lock", "live/agent-x", "queries/agent-x.jsonl", "index.sqlite",
     "index.sqlite.building", "index.sqlite.building.tick", "index.sqlite.lock", "usage.sqlite",
     "tmp/.a.toml.0123456789abcdef.tmp", "config.toml", ".gitignore", "faults.jsonl"],
)  # fmt: skip
@pytest.mark.parametrize("target", ["thesis.doc", "places.db", "missing"])
def test_a_file_that_is_a_link_is_not_followed(
    name: str, target: str, tmp_path: Path, victim: Path
) -> None:
    folder = tmp_path / "cloned" / ".heddle"
    (folder / "agents").mkdir(parents=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(victim / target)
    before = _state(victim)
    for write in _everything_that_writes(folder):
        try:
            write()
        except RegistryError:
            continue
    for words in (["list"], ["usage"], ["gc"], ["doctor", "--fix"]):
        heddle(folder, *words)
    assert _state(victim) == before


def test_a_line_of_links_and_pipes_hangs_nobody_and_writes_to_no_stranger(
    tmp_path: Path, victim: Path
) -> None:
    folder = tmp_path / ".heddle"
    registry = AgentRegistry(folder, lock_timeout_s=2)
    with registry.reserve("main"), registry.store.join_line("main", 1):
        [line] = (folder / "wait").iterdir()
    os.mkfifo(line / "0000000000000001")
    (line / "0000000000000002").symlink_to(victim / "5")
    (line / "0000000000000002.wake").symlink_to(victim / "5")
    (line / "0000000000000003").write_text("a\nb\n0")
    (line / "0000000000000003.wake").write_text("no pipe")
    (line / "²").write_text("a digit, but no number")
    (folder / "queries").mkdir(exist_ok=True)
    os.mkfifo(folder / "queries" / "agent-log.jsonl")
    before = _state(victim)
    with registry.reserve("main") as claim:  # leaving wakes the first in line
        assert claim.fence == 2
    with registry.store.join_line("main", 1) as place:
        assert int(place.ticket) > 0
    assert _state(victim) == before


# -- what is shown -----------------------------------------------------------------------------

ATTACKS = [
    "\x1b]0;pwned\x07",
    "\x1b[2J\x1b[H",
    "\x9b31m",
    "a\rb",
    "\u202egnp.exe",
    "\x08" * 9,
    "[bold red]markup[/]",
    "\n\nforged: line",
    "\x1b]8;;http://evil\x07click\x1b]8;;\x07",
]


def _hostile_entry(number: int, text: str) -> AgentEntry:
    thread = f"branch/{number}" + "".join(char for char in text if char.isprintable())
    return AgentEntry(
        session_id=f"agent-{number}", thread=thread, base_state=text, started_at=AT,
        status=AgentStatus.ACTIVE, harness=text, model=text, provider=text, path=text,
        native_actor_key=text, native_parent_actor_key=text + "p", attach_reason=text,
        thinking_level=text, probe_source=text, winning_attach_rule=text,
        attach_precedence=(text,), heddle_session_id=text,
    )  # fmt: skip


@pytest.mark.parametrize("colour", [False, True])
def test_a_hostile_entry_cannot_write_to_the_terminal(tmp_path: Path, colour: bool) -> None:
    folder = tmp_path / ".heddle"
    (folder / "agents").mkdir(parents=True)
    for number, text in enumerate(ATTACKS):
        data = entry_to_toml(_hostile_entry(number, text))
        (folder / "agents" / f"agent-{number}.toml").write_bytes(data)
    (folder / "agents" / "bad\x1b[2J.toml").write_bytes(b"no toml")
    (folder / "agents" / "agent-bad.toml").write_bytes(b'thread = "\x1b[2J\n')
    env = {"FORCE_COLOR": "1"} if colour else {"NO_COLOR": "1"}
    allowed = re.compile(r"\x1b\[[0-9;]*m") if colour else None
    for words in (["list"], ["list", "--tree"], ["list", "--json"], ["doctor"], ["gc", "--dry-run"],
                  ["why", "agent-0"], ["why", "agent-3", "--json"],
                  ["reserve", "branch/7forged: line"],
                  ["usage"], ["why", "\x1b[2J"], ["\x1b[2J"], ["list", "--thread", "\x1b[2J"],
                  ["release", "\x1b[2J", "--status", "complete"]):  # fmt: skip
        said = heddle(folder, *words, **env).both
        shown = allowed.sub("", said) if allowed else said
        bad = [char for char in shown if not char.isprintable() and char != "\n"]
        assert bad == [], (words, said)
        assert not re.search(r"^forged", said, re.MULTILINE), words


# -- folders that others may write -------------------------------------------------------------


def test_a_folder_that_everybody_may_write_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / ".heddle"
    with AgentRegistry(folder).reserve("main"):
        pass
    assert heddle(folder, "doctor").status == 0
    for name in (".", "agents", "claims"):
        (folder / name).chmod(0o777)
        answer = json.loads(heddle(folder, "doctor", "--json").out)
        bad = [check for check in answer["checks"] if check["status"] == "bad"]
        assert any("everybody" in check["detail"] for check in bad), name
        heddle(folder, "doctor", "--fix", "--json")
        assert (folder / name).stat().st_mode & 0o002 == 0


@needs_other_user
def test_a_folder_of_a_stranger_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / ".heddle"
    with AgentRegistry(folder).reserve("main"):
        pass
    os.chown(folder / "agents", NOBODY, NOBODY)
    assert str(NOBODY) in heddle(folder, "doctor").out


# -- plugins -----------------------------------------------------------------------------------

EVIL = "open({marker!r}, 'w').write('pwned')\n"


def test_nothing_is_imported_from_the_folder_one_happens_to_be_in(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    marker = tmp_path / "marker"
    evil = EVIL.format(marker=str(marker))
    info = clone / "evil-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[heddle_registry]\nevil = evil_plugin\n")
    (info / "RECORD").write_text("")
    for name in ("evil_plugin", "attrs", "attr", "tomli", "rich", "pluggy", "sitecustomize", "json",
                 "heddle_registry_evil", "usercustomize", "cattrs", "psutil"):  # fmt: skip
        (clone / f"{name}.py").write_text(evil)
    folder = clone / ".heddle"
    for words in (["doctor"], ["probe"], ["list"], ["reserve", "main", "--ttl", "60"], ["attach"]):
        heddle(folder, *words, cwd=clone)
        heddle(folder, *words, cwd=clone, HEDDLE_REGISTRY_PLUGINS="evil")
        assert not marker.exists(), words


def test_a_setting_can_name_no_code_to_run(tmp_path: Path) -> None:
    folder = tmp_path / ".heddle"
    folder.mkdir()
    for text in ('[plugins]\npath = "."\n', '[plugins]\nmodules = ["evil"]\n'):
        (folder / "config.toml").write_text(text)
        answer = heddle(folder, "list", "--json")
        assert answer.status == 2, answer
        assert json.loads(answer.out)["error"]["code"] == "usage"
