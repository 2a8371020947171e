"""Records against attrs itself: the same meaning, without its cost at start."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from typing import ClassVar, Generic, TypeVar

import attrs as real
import pytest

from heddle_registry.core import records
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.evidence import Evidence, Owner
from heddle_registry.core.harness import Harness
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.token import TokenHash
from heddle_registry.core.transaction import Decision
from tests.process_helpers import ROOT

light = records.attrs
T = TypeVar("T")


def even(_record: object, field: object, value: int) -> None:
    if value % 2:
        raise ValueError(f"{field.name} is odd: {value}")


def family(attrs):
    """The same three classes, built by ``attrs`` or by ours."""

    @attrs.frozen(kw_only=True)
    class Point:
        """A point."""

        kind: ClassVar[str] = "point"
        x: int
        y: int = attrs.field(default=2, validator=even)
        tags: tuple[str, ...] = attrs.field(converter=tuple, factory=list)
        secret: str = attrs.field(default="s", repr=False, eq=False)
        loose: dict = attrs.field(factory=dict, hash=False)

        def moved(self) -> Point:
            return attrs.evolve(self, x=self.x + 1)

        def name(self) -> str:
            return "point"

    @attrs.frozen(kw_only=True)
    class Named(Point):
        label: str = ""

        def name(self) -> str:
            return f"{super().name()} {self.label}"

    @attrs.frozen
    class Pair(Generic[T]):
        left: T
        right: int = 0
        sum: int = attrs.field(init=False, eq=False, repr=False)

        def __attrs_post_init__(self) -> None:
            object.__setattr__(self, "sum", self.left + self.right)

    return Point, Named, Pair


BOTH = pytest.mark.parametrize("attrs", [real, light], ids=["attrs", "ours"])


@BOTH
def test_a_record_is_what_attrs_makes_of_the_same_class(attrs):
    point, named, pair = family(attrs)
    one = point(x=1, tags=["a", "b"])
    assert (one.x, one.y, one.tags, one.secret, one.loose) == (1, 2, ("a", "b"), "s", {})
    assert repr(one) == "Point(x=1, y=2, tags=('a', 'b'), loose={})"
    assert one == point(x=1, tags=("a", "b"), secret="other")
    assert one != point(x=2, tags=("a", "b"))
    assert one != named(x=1, tags=("a", "b"))
    assert hash(one) == hash(point(x=1, tags=("a", "b"), loose={}))
    assert one.moved() == attrs.evolve(one, x=2)
    assert named(x=1, label="n").name() == "point n"
    assert point.kind == "point"
    assert point.__doc__ == "A point."
    assert not hasattr(one, "__dict__")
    assert pair(1, 2).sum == 3
    match pair(4):
        case pair(left, right):
            assert (left, right) == (4, 0)


@BOTH
def test_what_is_wrong_is_refused(attrs):
    point, _, pair = family(attrs)
    one = point(x=1)
    with pytest.raises(ValueError, match="y is odd"):
        point(x=1, y=3)
    for wrong in (
        point,
        lambda: point(1),
        lambda: point(x=1, z=1),
        lambda: pair(1, 2, 3),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError):
        attrs.evolve(one, z=1)
    for change in (lambda: setattr(one, "x", 2), lambda: delattr(one, "x")):
        with pytest.raises(real.exceptions.FrozenInstanceError):
            change()
    assert one == point(x=1)


def test_attrs_itself_answers_for_a_record():
    ours, of_attrs = family(light)[0], family(real)[0]
    assert real.has(ours)
    described = [
        [
            (a.name, a.default, a.repr, a.eq, a.hash, a.init, a.kw_only, a.type, a.alias)
            for a in real.fields(kind)
        ]
        for kind in (ours, of_attrs)
    ]
    assert described[0] == described[1]
    assert real.fields(ours) is real.fields(ours)
    assert inspect.signature(ours) == inspect.signature(of_attrs)
    one = ours(x=1)
    assert real.evolve(one, x=2) == ours(x=2)
    assert real.asdict(one) == {"x": 1, "y": 2, "tags": (), "secret": "s", "loose": {}}


def test_a_class_that_attrs_decorates_may_be_the_child_of_a_record():
    @real.frozen(kw_only=True)
    class Child(Owner):
        note: str = ""

    child = Child(pid=1, note="n")
    assert (child.pid, child.note) == (1, "n")
    assert real.evolve(child, pid=2).note == "n"


def test_records_survive_pickle_and_copies():
    owner = Owner(pid=7, command="sh", unknown={"a": 1})
    entry = AgentEntry(
        session_id="agent-a", thread="main", base_state="b",
        started_at=Timestamp("2026-07-01T12:00:00.5Z"), status="active",
    )  # fmt: skip
    for record in (owner, entry, Evidence("a", "b"), TokenHash(salt="", digest="")):
        assert pickle.loads(pickle.dumps(record)) == record
        assert copy.deepcopy(record) == record
        assert copy.copy(record) == record
    assert pickle.loads(pickle.dumps(entry.started_at)).sort_key == entry.started_at.sort_key


def test_generic_records_and_converters_are_kept():
    assert Decision[int](answer=1) == Decision(answer=1)
    made = Harness(name="acme", signals=[], aliases=["a"])
    assert (made.signals, made.aliases, made.events) == ((), ("a",), {})
    assert hash(made) == hash(Harness(name="acme", aliases=["a"]))
    with pytest.raises(ValueError, match="harness name"):
        Harness(name="no spaces")


def test_making_records_never_imports_attrs():
    code = """
import sys
import heddle_registry.registry, heddle_registry.explain
from heddle_registry import Evidence, Owner
from heddle_registry.core.records import attrs
one = Owner(pid=1)
assert attrs.evolve(one, pid=2) != one and hash(one) and repr(one) and Evidence("a", "b")
sys.exit(any(name in sys.modules for name in ("attr", "attrs")))
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
