"""Numbers for names, kept and taken back with the part of a reading that brought them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.usage_state import UsageState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.adapters.usage_names import NameTable


@pytest.fixture
def names() -> Iterator[NameTable]:
    state = UsageState(None)
    state.begin()
    yield state.records.names
    state.close()


def held(names: NameTable, *sources: int) -> list[tuple[int, str]]:
    return [(source, key) for source, _, key, *_ in names.holders(sources)]


def test_what_was_taken_back_is_not_written_and_its_name_gets_a_number_again(
    names: NameTable,
) -> None:
    first = names.actor("acme", "acme:session:1", 1)
    names.keep()
    names.actor("acme", "acme:session:2", 1, told=True)
    names.link("acme:session:1", "acme:session:2")
    names.drop()
    names.write()
    names.forget_cache()
    assert held(names, 1) == [(1, "acme:session:1")]
    assert names.actor("acme", "acme:session:1", 1) == first
    names.actor("acme", "acme:session:2", 2, told=True)
    names.keep()
    names.write()
    assert held(names, 2) == [(2, "acme:session:2")]
    assert next(iter(names.holders([1])))[4] is None, "the link was taken back, too"


def test_one_look_at_all_sources_answers_what_one_at_each_does(names: NameTable) -> None:
    for source in range(1, 41):
        names.actor("acme", f"acme:session:{source % 3}", source, told=True)
    names.keep()
    names.write()
    each = [one for source in range(1, 41) for one in held(names, source)]
    assert held(names, *range(1, 41)) == each
    assert held(names, 7) == [(7, "acme:session:1")]
    assert held(names) == []


def test_halves_of_characters_are_one_name_wherever_they_stand(names: NameTable) -> None:
    assert names.actor("acme", "a:\ud800", 1) == names.actor("acme", "a:\ud800", 2)
    names.keep()
    names.write()
    assert {key for _, key in held(names, 1, 2)} == {"a:?"}
    assert names.models["\ud800"] == names.models["?"]
    assert names.text(names.models["?"]) == "?"
    assert names.models[None] == 0
