from __future__ import annotations

from enum import StrEnum
from typing import Any

import attrs
import pytest

from heddle_registry.codec.tables import (
    SubTable,
    Table,
    TableArray,
    f32,
    integer,
    seconds,
    text,
    texts,
    time,
    word,
)


class Mood(StrEnum):
    CALM = "calm"


@attrs.frozen(kw_only=True)
class Leaf:
    name: str = "?"
    unknown: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Tree:
    name: str
    note: str = ""
    kept: tuple[Leaf, ...] = ()
    dropped: tuple[Leaf, ...] = ()
    inner: Leaf | None = None
    unknown: dict[str, Any] = attrs.field(factory=dict)


LEAF = Table(Leaf, text("name"))
TREE = Table(
    Tree,
    text("name", required=True),
    text("note", omit=""),
    TableArray("kept", LEAF, keep_empty=True),
    TableArray("dropped", LEAF),
    SubTable("leaf", LEAF, attribute="inner"),
)


def written(record: Tree) -> str:
    lines: list[str] = []
    TREE.write(record, "", lines)
    return "".join(lines)


def test_empty_arrays_and_omitted_values_are_left_out_unless_kept():
    assert written(Tree(name="n")) == 'name = "n"\nkept = []\n'


def test_tables_follow_the_plain_keys_each_with_its_own_unknown_keys():
    tree = Tree(
        name="n",
        kept=(Leaf(unknown={"b": {"c": 1}}), Leaf(name="m")),
        inner=Leaf(unknown={"z": 1}),
        unknown={"late": True},
    )
    text_of_tree = (
        'name = "n"\nlate = true\n\n[[kept]]\nname = "?"\n\n[kept.b]\nc = 1\n'
        '\n[[kept]]\nname = "m"\n\n[leaf]\nname = "?"\nz = 1\n'
    )
    assert written(tree) == text_of_tree


def test_reading_goes_on_after_a_problem_and_then_makes_no_record():
    problems: list[str] = []
    source = {"note": 1, "kept": {}, "leaf": [], "dropped": [{"name": 2}]}
    assert TREE.read(source, "", problems) is None
    assert problems == [
        "note: must be a string, not 1",
        "kept: must be an array of tables, not a table",
        "leaf: must be a table, not an array",
        "dropped[0].name: must be a string, not 2",
        "name: missing",
    ]


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        (integer("k", 0, 3), [0, 3], [True, 4, -1, 1.0, "1", 10**5000]),
        (f32("k"), [0.5, 1, float("inf")], [True, float("nan"), "1", 2**63]),
        (seconds("k"), [0, 0.5], [False, -1, float("inf"), float("nan"), 10**400]),
        (texts("k"), [[], ["a"]], ["a", [1], {}]),
        (
            time("k"),
            ["2026-07-01T12:00:00Z"],
            [
                *("", "2026-07-01", 3, "x" * 10_000, "2026-07-01T24:00:00Z", "2026-07-01T12:00:00"),
                *("2026-07-01T120000.0Z", "2026-W27-3T12:00:00Z", "2026-07-01T12:00:00.Z"),
            ],
        ),
        (word("k", Mood), ["calm"], ["CALM", ["calm"], {}, 1]),
    ],
)
def test_a_kind_of_key_takes_its_own_values_and_explains_the_others(field, right, wrong):
    for value in right:
        field.write(field.read(value))
    for value in wrong:
        with pytest.raises(ValueError, match="must be") as caught:
            field.read(value)
        assert len(str(caught.value)) < 200
