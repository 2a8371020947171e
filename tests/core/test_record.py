"""Records compare, hash and show themselves as attrs would have written it for each class."""

from __future__ import annotations

import importlib
import pkgutil

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import heddle_registry
from heddle_registry.core.entry import AgentEntry, AgentUsageSummary
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.record import Record
from heddle_registry.core.timestamp import Timestamp


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ours(Record):
    name: str
    count: int | None = None
    table: dict[str, int] = attrs.field(factory=dict, hash=False)
    cached: int = attrs.field(default=0, eq=False)
    secret: str = attrs.field(default="", repr=False)


@attrs.frozen(kw_only=True)
class Theirs:
    name: str
    count: int | None = None
    table: dict[str, int] = attrs.field(factory=dict, hash=False)
    cached: int = attrs.field(default=0, eq=False)
    secret: str = attrs.field(default="", repr=False)


VALUES = st.fixed_dictionaries(
    {"name": st.sampled_from("ab")},
    optional={
        "count": st.sampled_from([None, 0, 1]),
        "table": st.sampled_from([{}, {"a": 1}]),
        "cached": st.integers(0, 1),
        "secret": st.sampled_from(["", "x"]),
    },
)


@given(VALUES, VALUES)
def test_a_record_behaves_as_the_class_that_attrs_would_have_written(one, other):
    assert (Ours(**one) == Ours(**other)) is (Theirs(**one) == Theirs(**other))
    if Ours(**one) == Ours(**other):
        assert hash(Ours(**one)) == hash(Ours(**other))
    assert repr(Ours(**one)) == repr(Theirs(**one)).replace("Theirs", "Ours")


def test_records_of_two_classes_are_never_equal():
    assert Ours(name="a") != Theirs(name="a")
    assert len({Ours(name="a"), Theirs(name="a")}) == 2
    assert attrs.evolve(Ours(name="a"), count=1) != Ours(name="a")


def test_a_token_in_clear_text_is_not_shown():
    at = Timestamp("2026-07-01T12:00:00Z")
    entry = AgentEntry(
        session_id="agent-a", thread="main", base_state="hd-1", started_at=at,
        status=AgentStatus.ACTIVE, reservation_token="told-to-nobody",
    )  # fmt: skip
    assert "told-to-nobody" not in repr(entry)
    assert "agent-a" in repr(entry)


def test_a_field_that_stands_alone_is_compared_too():
    assert AgentUsageSummary(input_tokens=1) != AgentUsageSummary(input_tokens=2)
    assert Timestamp("2026-07-01T12:00:00Z") == Timestamp.trusted("2026-07-01T12:00:00Z")


def classes_of_attrs() -> list[type]:
    found = []
    for module in pkgutil.walk_packages(heddle_registry.__path__, "heddle_registry."):
        if module.name.endswith("__main__"):
            continue
        found += [
            thing
            for thing in vars(importlib.import_module(module.name)).values()
            if isinstance(thing, type) and thing.__module__ == module.name and attrs.has(thing)
        ]
    return found


@pytest.mark.parametrize("record", classes_of_attrs(), ids=lambda cls: cls.__name__)
def test_no_class_of_attrs_compares_by_identity_unawares(record):
    # `eq=False` without the base would: equal entries would then look changed.
    assert record.__eq__ is not object.__eq__
    assert record.__repr__ is not object.__repr__


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Empty(Record):
    pass


def test_records_that_differ_have_hashes_that_differ_and_one_without_fields_has_one() -> None:
    assert len({hash(Ours(name=name)) for name in "abcdefgh"}) > 1
    assert hash(Ours(name="a", table={"x": 1})) == hash(Ours(name="a", table={"y": 2}))
    assert Empty() == Empty()
    assert hash(Empty()) == hash(Empty())
    assert repr(Empty()) == "Empty()"
