"""What is decoded straight into a shape is what the whole parsed object says."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heddle_registry.adapters import transcripts
from heddle_registry.adapters.shapes import decoder_of, keyed, shaped
from heddle_registry.adapters.transcripts import TranscriptSource
from tests.parsers import without_msgspec

if TYPE_CHECKING:
    from pathlib import Path


class Part(NamedTuple):
    kind: Any = "none"


class Whole(NamedTuple):
    name: Any = None
    number: Any = 0
    part: Part | None = None
    parts: list[Part] | None = None


def plain(found: Any) -> Any:
    """What is read of it, whatever it is made of."""
    if found is None or isinstance(found, (str, int, float, dict)):
        return found
    if isinstance(found, list):
        return [plain(one) for one in found]
    fields = [name for name in ("name", "number", "part", "parts", "kind") if hasattr(found, name)]
    return {name: plain(getattr(found, name)) for name in fields}


def read(path: Path, *, block: int = 1 << 18, at_once: bool = False) -> tuple[list[Any], list[str]]:
    source = TranscriptSource("acme", str(path), buffer=bytearray(block))
    found = [plain(one) for one in source.shapes(Whole, at_once=at_once)]
    return found, [fault.code for fault in source.faults]


VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "name", "x"]), inner, max_size=2)
    ),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.sampled_from([*Whole._fields, "kind", "other"]), VALUE, max_size=5)
LINE = OBJECT.map(json.dumps) | VALUE.map(json.dumps)
ODD = st.sampled_from(
    ["", "{", '{"name": "to', '{"name": 1}' * 70, '{"name": NaN}',
     '{"name": "\\ud800"}', '{"name": 1}{"name": 2}', '{"name": 1} x',
     '{"number": 12345678901234567890123}', '{"name": 1, "name": 2}', "[" * 3000, '{"part":']
)  # fmt: skip


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None
)
@given(st.lists(LINE | ODD, max_size=6), st.booleans(), st.integers(1, 200))
def test_every_way_finds_the_same(tmp_path: Path, lines: list[str], ends: bool, block: int) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines) + ("\n" if ends else ""))
    each = read(path, block=block)
    assert read(path, block=block, at_once=True) == each
    with without_msgspec():
        assert read(path, block=block) == each


def test_what_is_not_there_or_does_not_fit_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    given = [
        {"name": "a", "part": {"kind": 1, "more": 2}, "parts": [{}, {"kind": 3}], "other": []},
        {"number": None, "part": [], "parts": [7, {"kind": 3}]},
        {"part": 5, "parts": {"kind": 3}},
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in given))
    two = {"kind": 1}, [{"kind": "none"}, {"kind": 3}]
    wanted = [
        {"name": "a", "number": 0, "part": two[0], "parts": two[1]},
        {"name": None, "number": None, "part": None, "parts": [{"kind": 3}]},
        {"name": None, "number": 0, "part": None, "parts": None},
    ]
    assert read(path) == (wanted, [])
    assert [plain(shaped(Whole, one)) for one in given] == wanted


def test_lines_that_fit_are_not_parsed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"name": 1, "other": [2]}\n' * 3)
    monkeypatch.delattr(TranscriptSource, "_object")
    assert len(read(path)[0]) == len(read(path, at_once=True)[0]) == 3


def test_values_of_one_shape_are_equal_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"part": {"kind": 1}, "parts": [{"kind": 1}, {"kind": 2}]}\n')
    source = TranscriptSource("acme", str(path))
    (found,) = source.shapes(Whole)
    assert found.part == found.parts[0] != found.parts[1]


@keyed(patch="$set")
class Chat(NamedTuple):
    name: Any = None
    patch: Part | None = None
    parts: list[Part] | None = None


@pytest.mark.parametrize("size", [1 << 18, 16])
@pytest.mark.parametrize("has_msgspec", [True, False])
def test_a_document_is_read_as_far_as_its_shape_goes_however_large_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, size: int, has_msgspec: bool
) -> None:
    monkeypatch.setattr(transcripts, "BLOCK_BYTES", size)
    path = tmp_path / "chat.json"
    parts = [{"kind": 1, "more": [2]}, 7, {"kind": 3}]
    given = {"name": "n", "$set": {"kind": 5}, "parts": parts, "other": 6}
    path.write_text(json.dumps(given, indent=1))

    def found() -> tuple[list[Any], list[str]]:
        with nullcontext() if has_msgspec else without_msgspec():
            source = TranscriptSource("acme", str(path))
            members = [(name, plain(one)) for name, one in source.shaped_document(Chat)]
        return members, [fault.code for fault in source.faults]

    whole = [("name", "n"), ("patch", {"kind": 5}), ("parts", {"kind": 1}), ("parts", {"kind": 3})]
    assert found() == (whole, [])
    path.write_text(json.dumps(given)[:-30])
    assert found() == (whole[:3], ["torn"])


def test_a_key_that_is_no_name_is_found_in_every_way(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"$set": {"kind": 1}, "patch": {"kind": 2}}\n{"$set": 5}\n')
    for at_once in (True, False):
        first, second = TranscriptSource("acme", str(path)).shapes(Chat, at_once=at_once)
        assert (first.patch.kind, second.patch) == (1, None)


class NoDefault(NamedTuple):
    name: Any


class NotNone(NamedTuple):
    part: Part | None = Part()


class Text(NamedTuple):
    name: str | None = None


class OnlyText(NamedTuple):
    name: str = ""


class Bare(NamedTuple):
    parts: list[Part] = None  # type: ignore[assignment]


class AnyList(NamedTuple):
    parts: list[Any] | None = None


class Either(NamedTuple):
    part: Part | list[Part] | None = None


class Itself(NamedTuple):
    whole: Itself | None = None


@keyed(nmae="$set")
class Misspelt(NamedTuple):
    name: Any = None


@pytest.mark.parametrize(
    "wrong", [NoDefault, NotNone, Text, OnlyText, Bare, AnyList, Either, Itself, Misspelt]
)
def test_what_is_no_shape_is_refused_by_name(wrong: type[Any]) -> None:
    for use in (decoder_of, lambda shape: shaped(shape, {})):
        with pytest.raises(TypeError, match=rf"{wrong.__name__}(\.\w+ (needs|must)| has no field)"):
            use(wrong)


class Keys(NamedTuple):
    keys: Any = None


def test_a_field_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"keys": 1}\n')
    assert [one.keys for one in TranscriptSource("acme", str(path)).shapes(Keys)] == [1]


def test_a_torn_line_is_a_fault_only_if_it_may_matter(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for torn, codes in (('{"other": "to', []), ('{"name": "to', ["unparsable"])):
        path.write_text(f'{{"name": 1}}\n{torn}\n{{"name": 2}}\n')
        for at_once in (True, False):
            source = TranscriptSource("acme", str(path))
            found = [one.name for one in source.shapes(Whole, b'"name"', at_once=at_once)]
            assert found == [1, 2]
            assert [fault.code for fault in source.faults] == codes
