"""The record of a session: the original's fields, and what may be written."""

from __future__ import annotations

import copy
import pickle

import attrs
import pytest

from heddle_registry.core.entry import (
    AgentEntry,
    AgentUsageSummary,
    ContextQueryEntry,
    check_entry,
    entry_problems,
)
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.errors import UsageError
from tests.core.exploration_records import NOW, make_entry, owner_of
from tests.core.situations import ALICE, BOB, new_entry, present


def test_the_fields_are_the_originals_thirty_four_in_its_order_and_two_of_ours():
    names = [field.name for field in attrs.fields(AgentEntry)]
    assert names[-2:] == ["extension", "unknown"]
    assert len(names) == 34 + 2
    assert names[0] == "session_id"
    assert names[-5:-2] == ["status", "completed_at", "context_queries"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"session_id": "../x"}, "no session id"),
        ({"thread": ""}, "branch name"),
        ({"model": 4}, "model must be text"),
        ({"model": "\ud800"}, "model must be text"),
        ({"base_state": None}, "base_state"),
        ({"pid": -1}, "pid"),
        ({"pid": True}, "pid"),
        ({"pid": 2**32}, "pid"),
        ({"started_at": "today"}, "started_at"),
        ({"heartbeat_at": 5}, "heartbeat_at"),
        ({"usage_summary": AgentUsageSummary(input_tokens=2**64)}, "input_tokens"),
        ({"usage_summary": AgentUsageSummary(tool_calls=2**32)}, "tool_calls"),
        ({"probe_confidence": float("nan")}, "probe_confidence"),
        ({"attach_precedence": ("a", 1)}, r"attach_precedence\[1\]"),
        ({"context_queries": ("a",)}, r"context_queries\[0\]"),
        ({"status": "gone"}, "status"),
        ({"status": AgentStatus.COMPLETE}, "completed_at"),
        ({"completed_at": NOW.at}, "completed_at"),
    ],
)
def test_what_the_original_could_not_read_is_not_written(change, problem):
    wrong = attrs.evolve(new_entry(), **change)
    with pytest.raises(UsageError, match=problem):
        check_entry(wrong)


def test_every_problem_is_told_at_once_and_a_good_entry_has_none():
    wrong = attrs.evolve(new_entry("Bad"), pid=-1, model=1)
    assert len(entry_problems(wrong)) == 3
    good = attrs.evolve(
        new_entry(),
        usage_summary=AgentUsageSummary(input_tokens=2**64 - 1, tool_calls=2**32 - 1),
        probe_confidence=1,
    )
    assert check_entry(good) is good
    assert entry_problems("text") == ["an AgentEntry is needed, not str"]


@pytest.mark.parametrize("change", [{"pid": 1}, {"boot_id": "other"}, {"pid": None}])
def test_an_owner_counts_only_while_pid_and_boot_id_are_its_own(change):
    entry = present("p", ALICE)
    assert entry.owner == owner_of(ALICE)
    moved = attrs.evolve(entry, **change)
    assert moved.owner is None
    subject = moved.subject()
    assert (subject.owner, subject.pid) == (None, moved.pid)


def test_an_extension_is_made_when_needed_and_evolved_when_there():
    plain = new_entry(agent=BOB)
    assert plain.extension is None
    assert plain.fence is None
    assert plain.extended(fence=3).fence == 3
    twice = plain.extended(fence=3).extended(ttl_s=1.0)
    assert (twice.fence, twice.extension.ttl_s) == (3, 1.0)


def test_no_token_is_shown_by_a_print():
    entry = attrs.evolve(make_entry("p", ALICE, fence=1), reservation_token="the-secret")
    assert "the-secret" not in repr(entry)


def test_a_chain_node_keeps_what_a_tree_shows():
    entry = present("p", ALICE, harness="codex", model="m", provider="o")
    node = entry.chain_node()
    assert (node.session_id, node.native_actor_key, node.thread) == ("p", "actor-p", "here")
    assert (node.harness, node.model, node.provider) == ("codex", "m", "o")


@pytest.mark.parametrize(
    "change",
    [
        {"pid": 0},
        {"pid": 2**32 - 1},
        {"probe_confidence": 0},
        {"probe_confidence": 0.5},
        {"model": ""},
        {"heartbeat_at": NOW.at, "last_progress_at": NOW.at},
        {"attach_precedence": ["a list is good enough"]},
        {"status": AgentStatus.COMPLETE, "completed_at": NOW.at},
        {"usage_summary": AgentUsageSummary(input_tokens=0, cost_micros_usd=2**64 - 1)},
        {"context_queries": (ContextQueryEntry(path="", queried_at=NOW.at),)},
        {"context_queries": (ContextQueryEntry(path="p", scope="s", queried_at=NOW.at),)},
    ],
)
def test_what_the_original_can_read_is_written(change):
    assert entry_problems(attrs.evolve(new_entry(), **change)) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"pid": 1.0}, "pid must be"),
        ({"probe_confidence": True}, "probe_confidence must be"),
        ({"probe_confidence": "1"}, "probe_confidence must be"),
        ({"completed_at": "now"}, "completed_at must be a Timestamp"),
        ({"last_progress_at": "now"}, "last_progress_at must be a Timestamp"),
        ({"usage_summary": None}, "usage_summary must be"),
        ({"usage_summary": AgentUsageSummary(output_tokens=-1)}, "output_tokens must be 0 to"),
        ({"usage_summary": AgentUsageSummary(cost_micros_usd=1.5)}, "cost_micros_usd must be"),
        ({"usage_summary": AgentUsageSummary(tool_calls=True)}, "tool_calls must be"),
        ({"attach_precedence": "text"}, "attach_precedence must be a tuple"),
        ({"context_queries": None}, "context_queries must be a tuple"),
        ({"base_state": "\ud800"}, "base_state must be text"),
        (
            {"context_queries": (ContextQueryEntry(path=1, queried_at=NOW.at),)},
            "needs a path",
        ),
        (
            {"context_queries": (ContextQueryEntry(path="p", scope=1, queried_at=NOW.at),)},
            "needs a path",
        ),
        (
            {"context_queries": (ContextQueryEntry(path="p", queried_at="now"),)},
            "needs a path",
        ),
        ({"native_actor_key": 1}, "native_actor_key must be text"),
        ({"probe_source": b"x"}, "probe_source must be text"),
    ],
)
def test_each_field_is_checked_and_named(change, problem):
    (told,) = [
        told for told in entry_problems(attrs.evolve(new_entry(), **change)) if problem in told
    ]
    assert told.startswith((problem.split()[0], "context_queries[0]", "usage_summary."))


def test_an_owner_without_a_boot_id_is_the_owner_of_an_entry_without_one():
    owner = attrs.evolve(owner_of(ALICE), boot_id="")
    entry = attrs.evolve(present("p", ALICE), boot_id=None).extended(owner=owner)
    assert entry.owner == owner
    subject = entry.subject()
    assert (subject.owner, subject.boot_id, subject.fence) == (owner, "", None)
    assert entry.extended(fence=3).subject().fence == 3
    assert new_entry().owner is None


def test_a_chain_node_keeps_the_keys_and_the_status():
    entry = present("p", ALICE, native_parent_actor_key="above")
    node = entry.chain_node()
    assert (node.native_parent_actor_key, node.status) == ("above", AgentStatus.ACTIVE)
    assert entry.is_active


class Rest:
    """The fields of an entry but for four, and which of them were asked for."""

    def __init__(self, entry: AgentEntry) -> None:
        told = ("session_id", "thread", "status", "started_at")
        self.told = {name: getattr(entry, name) for name in told}
        fields = (field.name for field in attrs.fields(AgentEntry))
        self.others = {name: getattr(entry, name) for name in fields if name not in told}
        self.asked: list[str] = []

    def __call__(self, name: str) -> dict[str, object]:
        self.asked.append(name)
        if name in ("model", "harness"):
            return {"model": self.others["model"], "harness": self.others["harness"]}
        return {name: self.others[name]}

    def entry(self) -> AgentEntry:
        return AgentEntry.deferred(**self.told, rest=self)


def test_an_entry_of_which_four_fields_are_told_asks_once_for_each_other():
    whole = present("a", ALICE, harness="codex", model="m-1")
    rest = Rest(whole)
    entry = rest.entry()
    assert (entry.session_id, entry.thread) == (whole.session_id, whole.thread)
    assert entry.is_active
    assert entry.started_at == whole.started_at
    assert rest.asked == []
    assert (entry.owner, entry.pid) == (whole.owner, whole.pid)
    assert (entry.model, entry.harness) == ("m-1", "codex")
    assert (entry.owner, entry.model) == (whole.owner, "m-1")
    assert sorted(rest.asked) == ["boot_id", "extension", "model", "pid"]
    assert (entry, hash(entry), repr(entry)) == (whole, hash(whole), repr(whole))
    assert len(rest.asked) == len(set(rest.asked))


@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        lambda entry: pickle.loads(pickle.dumps(entry)),
        lambda entry: attrs.evolve(entry, model=entry.model),
        lambda entry: AgentEntry(**attrs.asdict(entry, recurse=False)),
    ],
)
def test_an_entry_that_asked_for_nothing_yet_is_copied_whole(again):
    whole = present("a", ALICE)
    assert again(Rest(whole).entry()) == whole


def test_an_entry_has_no_other_fields_than_its_own_and_cannot_be_changed():
    for entry in (new_entry(), Rest(new_entry()).entry()):
        with pytest.raises(AttributeError, match="misspelt"):
            _ = entry.misspelt
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            entry.model = "another"
