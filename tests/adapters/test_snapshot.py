"""What the folders hold at one moment, and what a damaged file still says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.folders import Folders
from heddle_registry.adapters.layout import Layout, thread_hash
from heddle_registry.adapters.snapshot import Snapshot, take_snapshot
from heddle_registry.codec import claim_to_toml, entry_to_toml
from heddle_registry.core.claim import Claim, ClaimHolder
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.errors import RecordCorrupt, RegistryError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT = Timestamp("2026-07-01T12:00:00Z")
NOW = Instant(at=AT, awake_ns=0, boot_id="b")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make_folder(layout.claims)
    return layout


def entry(session_id: str, thread: str = "main", **fields: object) -> AgentEntry:
    given: dict[str, object] = {"status": AgentStatus.ACTIVE, **fields}
    return AgentEntry(
        session_id=session_id,
        thread=thread,
        base_state="b",
        started_at=AT,
        **given,  # type: ignore[arg-type]
    )


def claim(thread: str, holder: str, fence: int = 1) -> Claim:
    held = ClaimHolder(session_id=holder, granted_at=AT, renewed_at=NOW)
    return Claim(thread=thread).granted(held, fence, None)


def put_entry(layout: Layout, found: AgentEntry, name: str | None = None) -> str:
    path = os.path.join(layout.agents, name or layout.entry_name(found.session_id))
    with open(path, "wb") as file:
        file.write(entry_to_toml(found))
    return path


def put_claim(layout: Layout, found: Claim, name: str | None = None) -> str:
    path = os.path.join(layout.claims, name or layout.claim_name(found.thread))
    with open(path, "wb") as file:
        file.write(claim_to_toml(found))
    return path


def snapshot(layout: Layout) -> Snapshot:
    return take_snapshot(Folders(layout))


def test_records_are_found_by_what_they_say_and_the_rest_are_problems(layout: Layout) -> None:
    put_entry(layout, entry("agent-a"))
    put_claim(layout, claim("main", "agent-a"))
    put_entry(layout, entry("agent-b"), "agent-x.toml")
    put_entry(layout, entry("Not An Id"))
    seen = snapshot(layout)
    assert list(seen.records.entries) == ["agent-a"]
    assert seen.records.claim("main") == claim("main", "agent-a")
    assert [os.path.basename(problem.path) for problem in seen.problems] == [
        "Not An Id.toml",
        "agent-x.toml",
    ]
    assert seen.records.is_used("agent-x"), "its id is taken though nobody can read it"
    with pytest.raises(RecordCorrupt, match="which is not the file's name"):
        seen.records.entry("agent-x")


@pytest.mark.parametrize("status", ["active", "complete"])
def test_a_damaged_entry_concerns_the_thread_that_it_still_names(
    layout: Layout, status: str
) -> None:
    path = os.path.join(layout.agents, "agent-bad.toml")
    lines = ['thread = "feature/x"', "pid = 42", 'boot_id = "b"', f'status = "{status}"', "x = ["]
    with open(path, "w") as file:
        file.write("\n".join(lines))
    (damage,) = snapshot(layout).records.damage()
    assert damage.concerns("feature/x") == (status == "active"), "what has ended blocks nobody"
    assert not damage.concerns("main")
    if status == "active":
        assert damage.subject is not None
        assert (damage.subject.pid, damage.subject.boot_id) == (42, "b")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"thread = 7\n", b"x = [" * 5000, b'thread = "a\nb"', b"\0" * 4096],
)
def test_an_entry_that_says_nothing_concerns_no_thread(layout: Layout, content: bytes) -> None:
    with open(os.path.join(layout.agents, "agent-bad.toml"), "wb") as file:
        file.write(content)
    (damage,) = snapshot(layout).records.damage()
    assert (damage.thread, damage.may_be_any, damage.session_id) == (None, False, "agent-bad")


def test_an_entry_that_may_not_be_read_may_be_anybodys(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_entry(layout, entry("agent-secret"))
    real_open = os.open

    def refuse(name: str, *given: object, **named: object) -> int:
        if os.fspath(name) == path:
            raise PermissionError(13, "Permission denied", name)
        return real_open(name, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    (damage,) = snapshot(layout).records.damage()
    assert isinstance(damage.error, StoreUnavailable)
    assert damage.concerns("any thread at all")


@pytest.mark.parametrize("bad", ["damaged", "newer", "misplaced"])
def test_a_claim_that_cannot_be_relied_on_is_an_error_for_its_thread_alone(
    layout: Layout, bad: str
) -> None:
    path = put_claim(layout, claim("main", "agent-a"))
    put_claim(layout, claim("other", "agent-b"))
    error: type[RegistryError] = RecordCorrupt
    with open(path, "rb") as file:
        good = file.read()
    match bad:
        case "damaged":
            content = good[:20]
        case "newer":
            content, error = good.replace(b"schema = 1", b"schema = 9"), StoreUnavailable
        case _:
            content = claim_to_toml(claim("third", "agent-c"))
    with open(path, "wb") as file:
        file.write(content)
    seen = snapshot(layout)
    with pytest.raises(error):
        seen.records.claim("main")
    assert seen.records.claim("other") == claim("other", "agent-b")
    assert seen.records.claim("third") is None, "it has a file of its own, or none"
    assert [os.path.basename(problem.path) for problem in seen.problems] == [
        thread_hash("main") + ".toml"
    ]


def test_entries_and_claims_are_of_one_moment(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # While the entries are listed, a writer hands the branch over and ends the old entry.
    put_entry(layout, entry("agent-a"))
    put_claim(layout, claim("main", "agent-a"))
    real_scandir = os.scandir
    turns: Iterator[int] = iter(range(10))

    def scandir(path: str) -> object:
        if path == layout.agents and next(turns) == 0:
            listed = real_scandir(path)
            put_entry(layout, entry("agent-b"))
            put_claim(layout, claim("main", "agent-b", 2))
            os.unlink(os.path.join(layout.agents, "agent-a.toml"))
            return listed
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    seen = snapshot(layout).records
    held = seen.claim("main")
    assert held is not None
    assert held.holder is not None
    assert held.holder.session_id == "agent-b"
    assert set(seen.entries) == {"agent-b"}


def put_text(layout: Layout, name: str, text: str) -> str:
    path = os.path.join(layout.agents, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def test_an_entry_under_anothers_name_concerns_the_thread_it_is_active_on(layout: Layout) -> None:
    put_entry(layout, entry("agent-b", pid=7), "agent-x.toml")
    ended = entry("agent-c", "other", status=AgentStatus.COMPLETE, completed_at=AT)
    put_entry(layout, ended, "agent-y.toml")
    of_x, of_y = snapshot(layout).records.damage()
    assert (of_x.thread, of_x.session_id, of_y.thread) == ("main", "agent-x", None)
    assert of_x.subject is not None
    assert (of_x.subject.session_id, of_x.subject.pid) == ("agent-b", 7)
    assert not of_x.may_be_any


def test_a_file_whose_name_is_no_id_concerns_nobody(layout: Layout) -> None:
    put_entry(layout, entry("agent-b"), "Not An Id.toml")
    (damage,) = snapshot(layout).records.damage()
    assert (damage.session_id, damage.thread, damage.may_be_any) == (None, None, False)
    assert snapshot(layout).records.damaged_entries == {}


@pytest.mark.parametrize(
    ("lines", "thread", "pid", "boot_id"),
    [
        (['thread = "t"'], "t", None, ""),
        (['thread = "t"', 'pid = "7"', "boot_id = 7"], "t", None, ""),
        (['thread = "t"', "pid = 7", 'boot_id = "b"'], "t", 7, "b"),
        (['other = "x"', 'thread = "t"', "pid = ["], "t", None, ""),
        (["thread = 7"], None, None, ""),
        (['thread = "t"', 'status = "merged"'], None, None, ""),
        (["x = 1"] * 98 + ['thread = "t"'], "t", None, ""),
        (["x = 1"] * 99 + ['thread = "t"'], None, None, ""),
        (['thread = "t"', "pid = 7", "[thread]", "[pid]", "[boot_id]"], "t", 7, ""),
    ],
)
def test_a_damaged_entry_is_believed_line_by_line(
    layout: Layout, lines: list[str], thread: str | None, pid: int | None, boot_id: str
) -> None:
    put_text(layout, "agent-bad.toml", "\n".join(["= torn", *lines]))
    (damage,) = snapshot(layout).records.damage()
    assert damage.thread == thread
    assert (damage.subject is None) == (thread is None)
    if damage.subject is not None:
        assert (damage.subject.session_id, damage.subject.pid, damage.subject.boot_id) == (
            "agent-bad",
            pid,
            boot_id,
        )


def test_each_problem_says_where_it_is_and_whom_it_concerns(layout: Layout) -> None:
    put_text(layout, "agent-bad.toml", 'thread = "t"\nx = [')
    put_claim(layout, claim("main", "agent-a"), "misplaced.toml")
    newer = put_claim(layout, claim("new", "agent-a"))
    with open(newer, "rb") as file:
        text = file.read()
    with open(newer, "wb") as file:
        file.write(text.replace(b"schema = 1", b"schema = 9"))
    seen = snapshot(layout)
    told = {os.path.basename(p.path): (p.code, p.thread, p.is_claim) for p in seen.problems}
    assert told == {
        "agent-bad.toml": ("damaged", "t", False),
        "misplaced.toml": ("damaged", None, True),
        os.path.basename(newer): ("unavailable", "new", True),
    }
    assert set(seen.records.damaged_claims) == {"new"}
    assert set(seen.records.unread_claims) == {"misplaced"}
    assert set(seen.records.claims) == {"new"}, "whoever only looks may still see it"


def test_claims_that_never_come_to_rest_are_listed_a_fourth_time_at_most(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_claim(layout, claim("main", "agent-a"))
    real_scandir, looks = os.scandir, []

    def scandir(path: str) -> object:
        looks.append(os.path.basename(path))
        if path == layout.agents:
            put_claim(layout, claim("main", "agent-a", len(looks)))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert snapshot(layout).records.claim("main") is not None
    assert looks == ["claims", *(["agents", "claims"] * 3)]
    looks.clear()
    monkeypatch.undo()
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path) or real_scandir(path))
    snapshot(layout)
    assert len(looks) == 3, "at rest, one look is enough"


def test_a_forked_child_reads_everything_anew(layout: Layout) -> None:
    put_entry(layout, entry("agent-a"))
    put_claim(layout, claim("main", "agent-a"))
    folders = Folders(layout)
    folders.agents.tick_ns = folders.claims.tick_ns = 0
    before = folders.agents.scan() + folders.claims.scan()  # type: ignore[operator]
    assert folders.agents.scan() + folders.claims.scan() == before  # type: ignore[operator]
    folders.forget_parent()
    after = folders.agents.scan() + folders.claims.scan()  # type: ignore[operator]
    assert not {id(file) for file in before} & {id(file) for file in after}
