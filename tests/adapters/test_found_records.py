"""The same answers, whether the index gives them or a scan."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry.adapters import found_records
from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.found_records import (
    FoundRecords,
    Moved,
    Seen,
    unreadable_claims,
)
from heddle_registry.adapters.record_files import RecordFiles
from heddle_registry.codec import entry_to_toml
from heddle_registry.core.claim import Claim, ClaimHolder, EndCause
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.evidence import Owner
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.transaction import LOOKUP_FIELDS, Decision, Keys, PutClaim, PutEntry
from heddle_registry.errors import RecordCorrupt, StoreUnavailable
from heddle_registry.ports.query import Query, matcher
from heddle_registry.testing.fake_host import FakeHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.adapters.record_files import RecordFile

BAD = b"\x00 no TOML"
DAY_NS = 86_400 * 10**9


class Both:
    """One folder, and its records by the index and by a scan."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host = FakeHost()
        self.store = DirectoryStore(str(path / ".heddle"), self.host)
        self.layout, self.index = self.store.layout, self.store.index
        self.now = self.host.now()
        (path / "tree").mkdir()
        (path / "link").symlink_to(path / "tree")
        self.put(*self.entries(), *self.claims())
        for folder, name in (("agents", "agent-bad"), ("agents", "Not An Id"), ("claims", "bad")):
            with open(os.path.join(self.layout.root, folder, f"{name}.toml"), "wb") as file:
                file.write(BAD)
        self.store.look(Query())

    def put(self, *effects: PutEntry | PutClaim) -> None:
        self.store.transact(Keys(), lambda *_: Decision(effects=effects), {})

    def entry(self, session_id: str, minute: int, **fields: Any) -> AgentEntry:
        given = {"thread": "main", "base_state": "b", "status": AgentStatus.ACTIVE, **fields}
        at = Timestamp(f"2026-07-01T11:{minute:02}:00Z")
        return AgentEntry(session_id=session_id, started_at=at, **given)

    def ended(self, session_id: str, days: float, **fields: Any) -> AgentEntry:
        at = Timestamp.from_unix_ns(self.now.at.unix_ns - int(days * DAY_NS))
        return self.entry(
            session_id, 0, status=AgentStatus.COMPLETE, completed_at=at, **fields
        ).extended(fence=fields.pop("fence", 9))

    def entries(self) -> list[PutEntry]:
        owner = Owner(pid=7, boot_id="b", start_ticks=1)
        keys = {"native_actor_key": "k", "client_instance_id": "c", "heddle_session_id": "h"}
        linked = self.entry("agent-link", 5, path=str(self.path / "link"), pid=9)
        return [
            PutEntry(entry)
            for entry in (
                self.entry("agent-old", 1, **keys),
                self.entry("agent-new", 2, native_instance_key="i", **keys),
                self.entry("agent-holds", 3, thread="held", pid=7, boot_id="b").extended(
                    owner=owner, fence=4
                ),
                self.entry("agent-child", 4, native_parent_actor_key="k", thread="other"),
                linked,
                self.ended("agent-done", 1, native_actor_key="k"),
                self.ended("agent-stale", 8),
                self.ended("agent-kept", 8, thread="kept"),
            )
        ]

    def claims(self) -> list[PutClaim]:
        def holder(session_id: str) -> ClaimHolder:
            return ClaimHolder(session_id=session_id, granted_at=self.now.at, renewed_at=self.now)

        held = Claim(thread="held").granted(holder("agent-holds"), 4, str(self.path / "tree"))
        kept = Claim(thread="kept").granted(holder("agent-kept"), 9, None)
        free = Claim(thread="free").granted(holder("agent-gone"), 2, None)
        return [
            PutClaim(claim)
            for claim in (held, kept, free.ended(EndCause.DEAD, self.now.at, by="agent-x"))
        ]

    def indexed(self) -> FoundRecords:
        stamps = self.index.folder_stamps()
        assert self.index.is_at(stamps)
        return FoundRecords(self.layout, self.store._folders, self.index, lambda: stamps)

    def scanned(self) -> FoundRecords:
        return FoundRecords(self.layout, self.store._folders, self.index, lambda: None)

    def make_newer(self, thread: str) -> None:
        """Let a newer program rewrite a claim."""
        path = Path(self.layout.claims, self.layout.claim_name(thread))
        newer = path.with_name("newer")
        newer.write_text(path.read_text().replace("schema = 1", "schema = 99", 1))
        newer.rename(path)
        self.store.look(Query())


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path)


def ids(entries: Any) -> list[str]:
    return sorted(entry.session_id for entry in entries)


def threads(claims: Any) -> list[str]:
    return sorted(claim.thread for claim in claims)


@pytest.mark.parametrize("way", ["indexed", "scanned"])
def test_a_newer_programs_claim_is_found_and_is_a_problem_by_either_way(
    both: Both, way: str
) -> None:
    for thread in ("held", "kept", "free"):
        both.make_newer(thread)
    records = getattr(both, way)()
    assert threads(records.held_claims()) == ["held", "kept"]
    assert threads(records.claims_naming(str(both.path / "tree"))) == ["held"]
    assert threads(records.claims_with_holder("agent-gone")) == ["free"]
    assert ids(records.ended_before(both.now, None)) == ["agent-stale"], "one is a holder"
    newer = [problem for problem in records.problems() if "schema 99" in problem.message]
    assert len(newer) == 3
    with pytest.raises(StoreUnavailable, match="schema 99"):
        records.claim("held")


@pytest.mark.parametrize("way", ["indexed", "scanned"])
@pytest.mark.parametrize(
    ("name", "text", "hides"),
    [
        ("0a" * 16, "schema = 99\nthread = [1]\n", True),
        ("0a" * 16, "schema = 1\nthread = [1]\n", False),  # damage
        ("0a" * 16, 'schema = 99\nthread = "one"\nfence = 1\n', False),  # another's name
        ("0z" * 16, "schema = 99\nthread = [1]\n", False),  # no claim has such a name
        ("0a" * 15, "schema = 99\nthread = [1]\n", False),
    ],
)
def test_whose_a_folder_is_cannot_be_said_beside_a_file_that_hides_a_claim(
    both: Both, name: str, text: str, hides: bool, way: str
) -> None:
    claims = Path(both.layout.claims)
    (claims / "new").write_text(text)
    (claims / "new").rename(claims / f"{name}.toml")
    both.store.look(Query())
    for path, named in ((str(both.path / "tree"), ["held"]), ("/", [])):
        records = getattr(both, way)()
        if hides:
            with pytest.raises(StoreUnavailable, match="schema 99"):
                records.claims_naming(path)
        else:
            assert threads(records.claims_naming(path)) == named


@pytest.mark.parametrize("way", ["indexed", "scanned"])
def test_every_question_has_its_answer_by_either_way(both: Both, way: str) -> None:
    def ask(question: Callable[[FoundRecords], Any]) -> Any:
        records = getattr(both, way)()
        answer = question(records)
        assert question(records) == answer, "asked twice"
        return answer

    active = ["agent-child", "agent-holds", "agent-link", "agent-new", "agent-old"]
    assert ask(lambda r: ids(r.active())) == active
    assert ask(lambda r: ids(r.active_on("main"))) == ["agent-link", "agent-new", "agent-old"]
    assert ask(lambda r: ids(r.active_on("kept"))) == []
    for field, value in (("native_actor_key", "k"), ("client_instance_id", "c")):
        assert ask(lambda r, f=field, v=value: ids(r.active_with(f, v))) == [
            "agent-new",
            "agent-old",
        ]
    tree = str(both.path / "tree")
    assert ask(lambda r: ids(r.active_with("path", tree))) == ["agent-link"]
    assert ask(lambda r: r.newest_with_actor("k").session_id) == "agent-new"
    assert ask(lambda r: r.newest_with_actor("nobody")) is None
    stale = ask(lambda r: ids(e for e in r.ended_before(both.now, None)))
    assert stale == ["agent-stale"]
    assert ask(lambda r: ids(r.ended_before(both.now, 0))) == []
    fences = {"held": 4, "main": 9, "kept": 9, "other": 0, "nowhere": 0}
    for thread, fence in fences.items():
        assert ask(lambda r, t=thread: r.highest_fence(t)) == fence
    assert ask(lambda r: threads(r.claims_naming(tree))) == ["held"]
    assert ask(lambda r: threads(r.claims_naming("/"))) == []
    for session_id, named in (("agent-gone", ["free"]), ("agent-kept", ["kept"]), ("x", [])):
        assert ask(lambda r, s=session_id: threads(r.claims_with_holder(s))) == named
    assert ask(lambda r: threads(r.held_claims())) == ["held", "kept"]
    assert ask(lambda r: sorted(os.path.basename(d.path) for d in r.damage())) == [
        "Not An Id.toml",
        "agent-bad.toml",
    ]
    assert ask(lambda r: sorted(os.path.basename(p.path) for p in r.problems())) == [
        "Not An Id.toml",
        "agent-bad.toml",
        "bad.toml",
    ]
    assert [p.is_claim for p in getattr(both, way)().problems()].count(True) == 1
    assert getattr(both, way)().is_ordered is (way == "indexed")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(active_only=True, thread="other"), ["agent-child"]),
        (Query(native_actor_key="k"), ["agent-done", "agent-new", "agent-old"]),
        (Query(native_actor_key="k", active_only=True), ["agent-new", "agent-old"]),
        (Query(native_instance_key="i"), ["agent-new"]),
        (Query(native_parent_actor_key="k"), ["agent-child"]),
        (Query(heddle_session_id="h", client_instance_id="c"), ["agent-new", "agent-old"]),
        (Query(owner_pids=(7, 9)), ["agent-holds", "agent-link"]),
        (Query(owner_pids=(8,)), []),
        (Query(records_owner=True), ["agent-holds"]),
        (Query(thread="kept"), []),
        (Query(thread="kept", include_stale=True), ["agent-kept"]),
    ],
)
def test_the_index_narrows_a_query_to_what_it_looks_for(
    both: Both, query: Query, found: list[str]
) -> None:
    assert ids(both.indexed().matching(query, both.now)) == found
    assert set(found) <= set(ids(both.scanned().matching(query, both.now)))
    assert ids(both.store.look(query).entries) == found


def test_all_entries_come_newest_first_and_the_stale_only_where_asked_for(both: Both) -> None:
    young = both.indexed().matching(Query(), both.now)
    assert [entry.session_id for entry in young] == [
        "agent-link",
        "agent-child",
        "agent-holds",
        "agent-new",
        "agent-old",
        "agent-done",
    ]
    everybody = ids(both.indexed().matching(Query(include_stale=True), both.now))
    assert set(everybody) - set(ids(young)) == {"agent-stale", "agent-kept"}
    at_tree = both.indexed().matching(Query(path=str(both.path / "tree")), both.now)
    assert ids(at_tree) == ["agent-link"]


def test_one_file_is_read_whatever_the_index_says(both: Both) -> None:
    for records in (both.indexed(), both.scanned()):
        found = records.entry("agent-old")
        assert found is not None
        assert found.session_id == "agent-old"
        assert records.entry("agent-none") is None
        with pytest.raises(RecordCorrupt):
            records.entry("agent-bad")
        assert [records.is_used(name) for name in ("agent-bad", "agent-old", "agent-none")] == [
            True,
            True,
            False,
        ]
        claim = records.claim("held")
        assert claim is not None
        assert claim.fence == 4
        assert records.claim("nowhere") is None
    with open(os.path.join(both.layout.claims, both.layout.claim_name("held")), "r+b") as file:
        file.write(BAD)
    assert list(unreadable_claims(both.scanned(), ("held", "free"))) == ["held"]
    assert threads(both.indexed().held_claims()) == ["kept"]


def in_place(both: Both, session_id: str, data: bytes) -> None:
    """Change a file so that the folder's own time stays as it was."""
    with open(os.path.join(both.layout.agents, f"{session_id}.toml"), "wb") as file:
        file.write(data)


@pytest.mark.parametrize("is_asked_before", [False, True])
def test_a_record_that_was_spoilt_in_place_still_concerns_its_branch(
    both: Both, is_asked_before: bool
) -> None:
    if is_asked_before:
        assert "agent-child" in ids(both.indexed().active_on("other"))
    in_place(both, "agent-child", BAD)
    records = both.indexed()
    assert ids(records.active_on("other")) == []
    (spoilt,) = [d for d in records.damage() if d.session_id == "agent-child"]
    assert spoilt.concerns("other")
    assert not spoilt.concerns("main")
    loaded, _ = both.store.peek(Keys(threads=("other",)))
    assert [d.session_id for d in loaded.damage if d.concerns("other")] == ["agent-child"]
    again = both.indexed()
    assert ids(again.active_on("other")) == []
    assert [d.session_id for d in again.damage()].count("agent-child") == 1


def test_a_record_that_was_changed_in_place_is_read_anew(both: Both) -> None:
    path = os.path.join(both.layout.agents, "agent-child.toml")
    with open(path, "rb") as file:
        good = file.read()
    assert ids(both.indexed().active_on("other")) == ["agent-child"]
    in_place(both, "agent-child", good.replace(b'"other"', b'"moved"'))
    assert ids(both.indexed().active_on("other")) == [], "it is on another branch now"


def test_what_was_found_sound_is_not_examined_again(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = found_records.entry_file_error

    def examine(file: RecordFile[AgentEntry]) -> Any:
        asked.append(file.name)
        return real(file)

    in_place(both, "agent-child", entry_to_toml(both.entry("agent-child", 4, thread="other")))
    monkeypatch.setattr(found_records, "entry_file_error", examine)
    first = ids(both.indexed().active())
    assert asked
    asked.clear()
    assert ids(both.indexed().active()) == first
    assert asked in ([], ["agent-child.toml"]), "which is young yet"


@pytest.mark.parametrize("is_of_now", [True, False])
def test_files_that_were_just_looked_at_are_not_looked_at_again(
    both: Both, monkeypatch: pytest.MonkeyPatch, *, is_of_now: bool
) -> None:
    stamps = both.index.folder_stamps()
    assert both.index.is_at(stamps)
    files = both.store._folders.agents.stamps()
    seen = Seen(stamps if is_of_now else (1, 1), files)
    records = FoundRecords(both.layout, both.store._folders, both.index, lambda: stamps, seen)
    expected = ids(both.scanned().active())
    asked: list[int] = []
    real = RecordFiles._stamps
    monkeypatch.setattr(
        RecordFiles, "_stamps", lambda *given: asked.append(given[1]) or real(*given)
    )
    assert ids(records.active()) == expected
    assert bool(asked) is (not is_of_now)


def test_an_index_of_another_moment_gives_no_answer(both: Both) -> None:
    old = (1, 1)
    records = FoundRecords(both.layout, both.store._folders, both.index, lambda: old)
    for question in (
        records.active,
        lambda: records.highest_fence("main"),
        lambda: records.claims_with_holder("agent-gone"),
        lambda: records.claims_naming("/"),
        records.held_claims,
        records.damage,
        records.problems,
    ):
        with pytest.raises(Moved):
            question()


def test_trust_is_asked_for_once_and_only_by_sets(both: Both) -> None:
    asked: list[int] = []

    def trust() -> Any:
        asked.append(1)
        return both.index.folder_stamps()

    records = FoundRecords(both.layout, both.store._folders, both.index, trust)
    records.entry("agent-old")
    records.claim("held")
    assert asked == []
    records.active()
    records.held_claims()
    assert asked == [1]
    scanned = both.scanned()
    assert scanned.snapshot() is scanned.snapshot()


def test_a_new_entry_is_of_the_next_moment(both: Both) -> None:
    before = both.indexed()
    both.put(PutEntry(attrs.evolve(both.entry("agent-late", 9), native_actor_key="k")))
    with pytest.raises(Moved):
        before.active()
    assert both.indexed().newest_with_actor("k").session_id == "agent-late"


def test_what_the_index_cannot_hold_is_read_from_the_file(both: Both) -> None:
    newer = attrs.evolve(both.entry("agent-newer", 9, thread="newer"), unknown={"later": [1]})
    plain = both.entry("agent-plain", 9, thread="plain")
    both.put(PutEntry(newer), PutEntry(plain))
    both.store._folders.agents.forget_all()
    for written in (newer, plain):
        (found,) = both.indexed().active_on(written.thread)
        assert found == written
        assert found.unknown == written.unknown


@pytest.mark.parametrize(
    ("key", "ask"),
    [
        ("thread", lambda records, _: records.active_on("main")),
        ("thread", lambda records, now: records.matching(Query(thread="main"), now)),
        ("pid", lambda records, now: records.matching(Query(owner_pids=(7, 8)), now)),
        (
            "pid=? AND owner_pid",
            lambda records, now: records.matching(
                Query(owner_pids=(7, 8), records_owner=True, active_only=True), now
            ),
        ),
        *[
            (
                "real_path" if field == "path" else field,
                lambda records, _, field=field: records.active_with(field, "k"),
            )
            for field in LOOKUP_FIELDS
        ],
        *[
            (
                "real_path" if name == "path" else name,
                lambda records, now, name=name: records.matching(
                    Query(**{name: "k"}, active_only=True), now
                ),
            )
            for name in LOOKUP_FIELDS
        ],
    ],
)
def test_a_look_up_goes_by_the_index_on_its_key_and_not_through_every_active_entry(
    both: Both, key: str, ask: Callable[[FoundRecords, Instant], object]
) -> None:
    asked: list[str] = []
    connection = sqlite3.connect(both.layout.index)
    both.index._connect().set_trace_callback(asked.append)
    ask(both.indexed(), both.now)
    plans = [
        row[3]
        for query in asked
        if query.startswith("SELECT * FROM entries")
        for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")
    ]
    connection.close()
    assert plans
    index = key.partition("=")[0]
    assert all(f"USING INDEX entries_{index} ({key}=?" in plan for plan in plans), plans


@pytest.mark.parametrize("kind", ["entry_rows", "names", "claim_names_of", "highest_fence"])
def test_an_index_that_moved_on_between_two_look_ups_ends_the_look(
    both: Both, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = both.indexed()
    assert records.is_ordered
    monkeypatch.setattr(both.index, kind, lambda *_: None)
    look_ups: dict[str, Callable[[], object]] = {
        "entry_rows": lambda: records.matching(Query(thread="not asked before"), both.now),
        "names": records.held_claims,
        "claim_names_of": lambda: records.claims_with_holder("agent-holds"),
        "highest_fence": lambda: records.highest_fence("held"),
    }
    with pytest.raises(Moved):
        look_ups[kind]()
    if kind == "names":
        with pytest.raises(Moved):
            records.problems()


def test_damage_that_somebody_took_away_meanwhile_is_none(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = both.indexed()
    assert records.is_ordered
    monkeypatch.setattr(records._folders.agents, "one", lambda _: None)
    assert records.damage() == ()


@pytest.mark.parametrize(
    "query",
    [
        Query(owner_pids=(77,)),
        Query(records_owner=True),
        Query(owner_pids=(77,), records_owner=True),
    ],
)
def test_an_entry_that_no_row_can_hold_is_found_by_its_process(both: Both, query: Query) -> None:
    owner = Owner(pid=77, boot_id="b", start_ticks=1)
    newer = attrs.evolve(
        both.entry("agent-newer", 6, pid=77, boot_id="b").extended(owner=owner),
        unknown={"later": 1},
    )
    both.put(PutEntry(newer))
    for records in (both.indexed(), both.scanned()):
        assert newer in filter(matcher(query), records.matching(query, both.now))
