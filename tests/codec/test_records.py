from __future__ import annotations

import random
from pathlib import Path

import pytest

from heddle_registry.codec import (
    claim_from_toml,
    claim_to_toml,
    entry_from_toml,
    entry_to_toml,
    is_not_toml,
)
from heddle_registry.errors import RecordCorrupt, RegistryError, StoreUnavailable
from tests.codec.test_claims import TEXT
from tests.codec.test_entries import MINIMAL

SEEDS = [path.read_bytes() for path in (Path(__file__).parents[1] / "data/golden").glob("*.toml")]
OURS = (
    MINIMAL
    + b"""\
[heddle_registry]
schema = 1
ttl_s = 0.5
[heddle_registry.owner]
pid = 3
[[heddle_registry.ancestors]]
session_id = "a"
thread = "t"
status = "merged"
"""
)
TOKENS = [
    *(b'"', b"'", b'"""', b"\\", b"\0", b"\n", b"\r\n", b"\xff", b"\xc3", b"=", b"#", b"[", b"]"),
    *(b"{", b"}", b"nan", b"-inf", b"1e400", b"true", b"2026-07-01T12:00:00Z", b"07:32:00"),
    *(b"[[context_queries]]\n", b"[usage_summary]\n", b"[heddle_registry]\nschema = 9\n"),
    *(b"pid = -1\n", b"status = 3\n", b"9" * 30, b"9" * 5_000, b"[" * 500, b"a." * 300, b"0x"),
]


VALUES = [
    *(
        b"nan",
        b"-inf",
        b"1e400",
        b"true",
        b"-1",
        b"0",
        b"18446744073709551616",
        b"0x" + b"f" * 5000,
    ),
    *(b"2026-07-01T12:00:00+02:00", b"07:32:00", b"[]", b"{}", b"[{}]", b"[[1], {a = []}]", b"''"),
    *(b'"2016-12-31T23:59:60Z"', b'"2026-02-29T00:00:00Z"', b'"merged"', b'["a", "b\\n"]'),
]


def mutated(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(0, 2)):
        lines = data.splitlines(keepends=True)
        at = chance.randrange(len(lines))
        if b" = " in lines[at]:
            key = chance.choice([lines[at].partition(b" = ")[0], b"later", b"pid", b"a.b"])
            lines[at] = key + b" = " + chance.choice(VALUES) + b"\n"
            data = b"".join(lines)
    for _ in range(chance.choice([0, 0, 1, 3])):
        at = chance.randrange(len(data) + 1)
        until = min(len(data), at + chance.choice([0, 0, 1, 1, 2, 8, 40]))
        lines = data.splitlines(keepends=True) or [b""]
        new = chance.choice(
            [b"", bytes([chance.randrange(256)]), chance.choice(TOKENS), chance.choice(lines)]
        )
        data = data[:at] + new + data[until:]
    return data


@pytest.mark.parametrize("shard", range(4))
def test_any_damage_gives_a_record_or_one_typed_error(shard):
    chance = random.Random(shard)
    for _ in range(1_500):
        data = mutated(chance.choice([*SEEDS, OURS]), chance)
        try:
            entry = entry_from_toml(data, "x")
        except RecordCorrupt:
            continue
        again = entry_to_toml(entry)
        assert entry_to_toml(entry_from_toml(again, "x")) == again, data


def test_any_damage_of_a_claim_gives_a_claim_or_one_typed_error():
    chance = random.Random(99)
    for _ in range(1_500):
        data = mutated(TEXT.encode(), chance)
        try:
            claim = claim_from_toml(data, "x")
        except (RecordCorrupt, StoreUnavailable):
            continue
        again = claim_to_toml(claim)
        assert claim_to_toml(claim_from_toml(again, "x")) == again, data


@pytest.mark.parametrize(
    ("tail", "problem"),
    [
        (b"x = " + b"[" * 90 + b"]" * 90, "x: nested deeper than 80 levels"),
        (b".".join([b"a"] * 200) + b" = 1", "a: nested deeper than 80 levels"),
        (b"[usage_summary." + b".".join([b"a"] * 200) + b"]", "usage_summary.a: nested deeper"),
        (b'"\\u001b[31m" = ' + b"[" * 90 + b"]" * 90, '"\\u001B[31m": nested deeper'),
        (b"x = " + b"9" * 5_000, "file: an integer of thousands of digits"),
        (b'x = "' + b"y" * (5 << 20) + b'"', "file: 5243"),
        (b'x = "\0"', "file: Illegal character"),
    ],
)
def test_hostile_files_name_the_key_or_the_file(tail, problem):
    with pytest.raises(RecordCorrupt) as caught:
        entry_from_toml(MINIMAL + tail, "x")
    (only,) = caught.value.problems
    assert only.startswith(problem)


def test_an_unknown_value_at_the_deepest_level_is_still_written_and_compared():
    entry = entry_from_toml(MINIMAL + b"x = " + b"[{y=" * 40 + b"1" + b"}]" * 40, "x")
    again = entry_from_toml(entry_to_toml(entry), "x")
    assert again == entry
    assert repr(again.unknown)


def test_half_a_million_problems_make_a_short_message_that_counts_them():
    with pytest.raises(RecordCorrupt) as caught:
        entry_from_toml(MINIMAL + b"context_queries = [" + b"1," * 500_000 + b"]", "x")
    assert caught.value.problems[-1] == "and 499900 more"
    assert len(str(caught.value)) < 10_000


def test_torn_and_empty_files_are_told_from_wrong_records():
    def error_of(data: bytes) -> RegistryError:
        with pytest.raises(RecordCorrupt) as caught:
            entry_from_toml(data, "x")
        return caught.value

    assert is_not_toml(error_of(b""))
    assert is_not_toml(error_of(MINIMAL[:-3]))
    assert not is_not_toml(error_of(b"x = 1"))
