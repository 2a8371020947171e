"""All that count or none: what a failing step leaves of the others, and what tidies itself up."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry.adapters import directory, writing
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.liveness_file import hold_liveness
from heddle_registry.adapters.record_files import RecordFile
from heddle_registry.core.claim import Claim, ClaimHolder
from heddle_registry.core.entry import SCHEMA, AgentEntry, ContextQueryEntry
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.transaction import (
    Decision,
    Effect,
    KeepQueries,
    Keys,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from heddle_registry.errors import OutcomeUnknown, StoreUnavailable
from heddle_registry.ports.query import Query
from heddle_registry.testing.fake_host import FakeHost
from tests.process_helpers import notes_of_syncs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AT = Timestamp("2026-07-01T12:00:00Z")
QUERY = ContextQueryEntry(path="p", queried_at=AT)
KEYS = Keys(sessions=("agent-a", "agent-b"), threads=("main",))


def entry(session_id: str = "agent-a", **fields: Any) -> AgentEntry:
    given = {"thread": "main", "base_state": "b", "started_at": AT, **fields}
    return AgentEntry(session_id=session_id, status=AgentStatus.ACTIVE, **given)


class Folder:
    """A store whose steps can be made to fail."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = FakeHost()
        self.store = DirectoryStore(str(path / ".heddle"), self.host)
        self.layout = self.store.layout
        self._monkeypatch = monkeypatch

    def write(self, *effects: Effect, commits: int | None = None) -> None:
        self.store.transact(KEYS, lambda *_: Decision(effects=effects, commits=commits), {})

    def holder(self, session_id: str = "agent-a") -> ClaimHolder:
        return ClaimHolder(session_id=session_id, granted_at=AT, renewed_at=self.host.now())

    def fail(self, call: str, error: type[Exception] = StoreUnavailable, *, at: int = 1) -> None:
        """Let the call that is ``at`` in order, and no other one, end with an error."""
        real: Callable[..., Any] = getattr(writing, call)
        left = at

        def failing(folder: str, name: str, *given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and error is StoreUnavailable:
                raise StoreUnavailable(name, "it is full")
            answer = real(folder, name, *given, **named)
            if left == 0:
                raise OutcomeUnknown(name, "syncing its folder failed")
            return answer

        self._monkeypatch.setattr(writing, call, failing)

    def works(self) -> None:
        self._monkeypatch.undo()

    def records(self) -> dict[str, bytes]:
        found = {}
        for folder in (self.layout.agents, self.layout.claims, self.layout.queries):
            if os.path.isdir(folder):
                for name in sorted(os.listdir(folder)):
                    path = os.path.join(folder, name)
                    if name != ".lock" and os.path.isfile(path):
                        with open(path, "rb") as file:
                            found[name] = file.read()
        return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    made = Folder(tmp_path, monkeypatch)
    made.write(
        PutEntry(entry(model="before")), PutClaim(Claim(thread="main", fence=3)),
        KeepQueries("agent-a", (QUERY,)),
    )  # fmt: skip
    return made


def test_what_was_made_before_a_step_that_fails_is_unmade(folder: Folder) -> None:
    before = folder.records()
    folder.fail("replace_file", at=4)
    with pytest.raises(StoreUnavailable, match="full"):
        folder.write(
            PutEntry(entry(model="after")),
            PutEntry(entry("agent-b")),
            KeepQueries("agent-a", (QUERY, QUERY)),
            KeepQueries("agent-b", (QUERY,)),
            PutClaim(Claim(thread="main", fence=4)),
            PutClaim(Claim(thread="other", fence=1)),
        )
    assert folder.records() == before
    folder.works()
    loaded, _ = folder.store.peek(KEYS)
    assert loaded.entries["agent-a"].model == "before"
    assert "agent-b" not in loaded.entries
    assert loaded.claims["main"].fence == 3


@pytest.mark.parametrize(("age_s", "is_kept"), [(60.0, True), (60.5, False)])
def test_what_is_no_toml_is_put_aside_when_nobody_can_be_writing_it_any_more(
    folder: Folder, age_s: float, *, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.path.join(folder.layout.agents, "agent-bad.toml")
    with open(path, "w") as file:
        file.write("= torn")
    os.utime(path, (1_000_000.0, 1_000_000.0))
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0 + age_s)
    assert [problem.path for problem in folder.store.look(Query()).problems] == [path]
    folder.write(PutEntry(entry("agent-b")))
    assert os.path.exists(path) is is_kept
    known = folder.store.index.known()
    assert known is not None
    assert ("agent-bad.toml" in known.entries) is is_kept


def test_what_was_removed_is_kept_in_nobodys_memory(folder: Folder) -> None:
    def kept() -> list[str]:
        files = [one for one in gc.get_objects() if isinstance(one, RecordFile)]
        return [one.name for one in files if one.path.startswith(folder.layout.agents)]

    folder.store.look(Query())
    assert "agent-a.toml" in kept()
    folder.write(RemoveEntry("agent-a"))
    folder.store.look(Query())
    gc.collect()
    assert "agent-a.toml" not in kept()


def test_what_touches_no_record_stamps_no_folder(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "utime", lambda *_, **__: pytest.fail("nothing to stamp"))
    folder.write(KeepQueries("agent-a", (QUERY,)))


def indexed(folder: Folder, path: str) -> tuple[list[str], list[str], list[str]]:
    """Return what is found by branch and by folder, and every model, by whoever looks anew."""
    directory._shared.clear()
    store = DirectoryStore(folder.layout.root, folder.host)
    everybody = store.look(Query(include_stale=True)).entries
    assert store.index.is_at(store.index.folder_stamps())
    return (
        [one.session_id for one in store.look(Query(thread="main")).entries],
        sorted(store.peek(Keys(path=path))[0].claims),
        [f"{one.session_id} {one.model}" for one in everybody],
    )


@pytest.mark.parametrize("error", [StoreUnavailable, OutcomeUnknown])
@pytest.mark.parametrize("step", ["entry", "claim", "removal"])
def test_what_was_not_written_is_not_in_the_index(
    folder: Folder, step: str, error: type[Exception]
) -> None:
    # Else who asks for the branch, or for the folder, would be told that nobody is there.
    folder.write(PutClaim(Claim(thread="main", fence=3).granted(folder.holder(), 4, "/there")))
    before = indexed(folder, "/there")
    assert before == (["agent-a"], ["main"], ["agent-a before"])
    folder.fail("remove_file" if step == "removal" else "replace_file", error)
    effect: Effect = {
        "entry": PutEntry(entry(thread="elsewhere", model="after")),
        "claim": PutClaim(Claim(thread="main", fence=5).granted(folder.holder(), 6, "/away")),
        "removal": RemoveEntry("agent-a"),
    }[step]
    with pytest.raises(error):
        folder.write(effect)
    folder.works()
    found = indexed(folder, "/there")
    if error is StoreUnavailable:
        assert found == before
    else:
        assert found != before, "it is visible"


def test_a_claim_that_was_new_is_removed_again(folder: Folder) -> None:
    before = folder.records()
    folder.fail("replace_file", at=2)
    with pytest.raises(StoreUnavailable):
        folder.write(PutClaim(Claim(thread="other", fence=1)), PutEntry(entry("agent-b")))
    assert folder.records() == before
    folder.works()
    assert folder.store.peek(Keys(threads=("other",)))[0].claims == {}


def test_a_step_whose_way_back_fails_too_has_an_unknown_outcome(folder: Folder) -> None:
    folder.fail("replace_file", at=2)
    folder.fail("remove_file")
    with pytest.raises(OutcomeUnknown, match="so did undoing"):
        folder.write(PutEntry(entry("agent-b")), PutEntry(entry()))
    folder.works()
    assert set(folder.store.peek(KEYS)[0].entries) == {"agent-a", "agent-b"}


def test_a_removal_cannot_be_taken_back_and_says_so(folder: Folder) -> None:
    folder.fail("replace_file")
    with pytest.raises(OutcomeUnknown):
        folder.write(RemoveEntry("agent-a"), PutEntry(entry("agent-b")))


def test_a_removal_that_was_refused_is_not_there_to_be_taken_back(folder: Folder) -> None:
    before = folder.records()
    folder.fail("remove_file")
    with pytest.raises(StoreUnavailable, match="full"):
        folder.write(RemoveEntry("agent-a"), PutEntry(entry("agent-b")))
    assert folder.records() == before


def test_a_visible_step_is_undone_with_the_others_unless_it_was_the_last(folder: Folder) -> None:
    before = folder.records()
    effects = (PutEntry(entry("agent-b")), PutClaim(Claim(thread="main", fence=4)))
    folder.fail("replace_file", OutcomeUnknown, at=1)
    with pytest.raises(OutcomeUnknown, match="syncing"):
        folder.write(*effects)
    assert folder.records() == before
    folder.works()
    folder.fail("replace_file", OutcomeUnknown, at=2)
    with pytest.raises(OutcomeUnknown, match="syncing"):
        folder.write(*effects)
    folder.works()
    loaded, _ = folder.store.peek(KEYS)
    assert ("agent-b" in loaded.entries, loaded.claims["main"].fence) == (True, 4)


def test_what_only_tidies_up_may_fail_and_the_rest_is_done(folder: Folder) -> None:
    folder.fail("replace_file", at=2)
    folder.write(
        PutEntry(entry("agent-b")), PutEntry(entry(model="lost")), PutClaim(Claim(thread="o")),
        commits=1,
    )  # fmt: skip
    folder.works()
    loaded, _ = folder.store.peek(Keys(sessions=("agent-a", "agent-b"), threads=("o",)))
    assert (loaded.entries["agent-a"].model, "agent-b" in loaded.entries) == ("before", True)
    assert "o" in loaded.claims
    folder.fail("replace_file", at=2)
    with pytest.raises(StoreUnavailable):
        folder.write(PutEntry(entry("agent-b", model="m")), PutEntry(entry()), commits=2)


def test_a_newer_programs_entry_stops_a_change_and_is_left_out_of_what_tidies_up(
    folder: Folder,
) -> None:
    path = os.path.join(folder.layout.agents, "agent-a.toml")
    with open(path, "a") as file:
        file.write(f"\n[heddle_registry]\nschema = {SCHEMA + 1}\n")
    before = folder.records()
    effects = (PutEntry(entry("agent-b")), PutEntry(entry(model="after")))
    with pytest.raises(StoreUnavailable, match="newer") as refused:
        folder.write(*effects)
    assert refused.value.path == path
    assert folder.records() == before
    folder.write(*effects, PutClaim(Claim(thread="late")), commits=1)
    assert folder.records().keys() - before.keys() == {
        "agent-b.toml",
        folder.layout.claim_name("late"),
    }
    assert folder.records()["agent-a.toml"] == before["agent-a.toml"]


def test_an_entry_goes_with_its_log_and_its_free_lock_and_leaves_a_held_one(folder: Folder) -> None:
    layout = folder.layout
    layout.make_folder(layout.live)
    held = hold_liveness(os.path.join(layout.live, "agent-a"))
    hold_liveness(os.path.join(layout.live, "agent-b")).release()
    log = os.path.join(layout.queries, "agent-a.jsonl")
    assert os.path.exists(log)
    folder.write(RemoveEntry("agent-a"), RemoveEntry("agent-b"))
    assert not os.path.exists(log)
    assert os.listdir(layout.live) == ["agent-a"], "whoever holds it may still be at work"
    held.release()
    folder.write(RemoveEntry("agent-a"))
    assert os.listdir(layout.live) == []


def test_left_over_temporary_files_go_with_the_next_change(folder: Folder) -> None:
    left = os.path.join(folder.layout.tmp, ".a.toml.0123.tmp")
    with open(left, "w") as file:
        file.write("torn")
    folder.write(PutEntry(entry("agent-b")))
    assert os.listdir(folder.layout.tmp) == []


def test_a_renewal_syncs_no_folder_and_any_other_claim_does(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = Claim(thread="main", fence=3).granted(folder.holder(), 4, "/w")
    folder.write(PutClaim(granted))
    assert granted.holder is not None
    folder.host.advance(10)
    renewed = attrs.evolve(
        granted, holder=attrs.evolve(granted.holder, renewed_at=folder.host.now())
    )
    synced = notes_of_syncs(monkeypatch)
    claims = folder.layout.claims
    before = os.stat(claims).st_mtime_ns
    folder.write(PutClaim(renewed))
    assert synced == [False]
    assert os.stat(claims).st_mtime_ns == before, "readers go on trusting what they know"
    assert folder.store.peek(KEYS)[0].claims["main"] == renewed
    synced.clear()
    folder.write(PutClaim(attrs.evolve(renewed, path="/v")))
    assert synced == [False, True]
    synced.clear()
    folder.write(PutClaim(Claim(thread="new")))
    assert synced == [False, True]


BAD = b"\x00 no TOML"


@pytest.mark.parametrize(
    ("content", "age_s", "is_moved"),
    [
        (BAD, 65, True),
        (BAD, 30, False),  # whoever writes it in place may still be at it
        (BAD, 0, False),
        (b'session_id = "agent-bad"\n', 3600, False),
        (b'thread = "main"\nstarted_at = [', 3600, False),
    ],
)
def test_only_what_says_nothing_and_is_old_is_put_aside(
    folder: Folder, content: bytes, age_s: float, is_moved: bool
) -> None:
    path = os.path.join(folder.layout.agents, "agent-bad.toml")
    with open(path, "wb") as file:
        file.write(content)
    then = time.time() - age_s
    os.utime(path, (then, then))
    folder.write(PutEntry(entry("agent-b")))
    assert os.path.exists(path) is not is_moved
    aside = folder.layout.quarantine
    kept = os.listdir(aside) if os.path.isdir(aside) else []
    assert len(kept) == int(is_moved)
    assert all(name.startswith("agent-bad.toml.") for name in kept)


def test_a_pipe_or_a_link_under_an_entrys_name_is_not_put_aside(folder: Folder) -> None:
    agents = folder.layout.agents
    os.mkfifo(os.path.join(agents, "agent-fifo.toml"))
    os.symlink("nowhere", os.path.join(agents, "agent-link.toml"))
    for name in ("agent-fifo.toml", "agent-link.toml"):
        os.utime(os.path.join(agents, name), (0, 0), follow_symlinks=False)
    folder.write(PutEntry(entry("agent-b")))
    assert not os.path.isdir(folder.layout.quarantine)
