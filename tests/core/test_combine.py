from __future__ import annotations

import random

from heddle_registry.core.combine import (
    choose_identity,
    first_by_name,
    join_harnesses,
    joined_by_name,
)
from heddle_registry.core.harness import Harness, env, program
from heddle_registry.core.identity import Identity


def test_answers_combine_the_same_whatever_the_order_they_came_in() -> None:
    answers = {
        f"p{n}": Identity(actor=f"a{n}" if n % 3 else None, confidence=0.5 + (n % 2) / 10)
        for n in range(8)
    }
    lists = {name: [f"{name}-x", f"{name}-y"] for name in answers}
    shuffle = random.Random(7)
    seen = set()
    for _ in range(20):
        order = list(answers)
        shuffle.shuffle(order)
        chosen = choose_identity({name: answers[name] for name in order})
        seen.add(
            (
                chosen,
                first_by_name({n: lists[n][0] for n in order}),
                joined_by_name({n: lists[n] for n in order}),
            )
        )
    assert len(seen) == 1
    chosen, first, joined = seen.pop()
    assert chosen.actor == "a1"
    assert first == "p0-x"
    assert joined[:3] == ("p0-x", "p0-y", "p1-x")


def test_an_identity_that_names_somebody_goes_before_a_surer_one_that_names_nobody() -> None:
    nobody, somebody = Identity(confidence=0.95), Identity(actor="x", confidence=0.4)
    assert choose_identity({"a": nobody, "b": somebody}) is somebody
    assert choose_identity({"a": None}) is None


def test_a_plugin_adds_signals_to_the_table_and_its_events_stand() -> None:
    table = [Harness(name="acme", signals=[env("A")], events={"x": "opened"}, marks=["M"])]
    mine = Harness(name="acme", signals=[program("acme")], events={"y": "closed"})
    joined = join_harnesses(table, {"plugin": [mine]})["acme"]
    assert {s.name for s in joined.signals} == {"A", "acme"}
    assert joined.events == {"y": "closed"}
    assert joined.marks == ("M",)


def test_the_surer_of_two_named_identities_is_chosen_and_of_two_as_sure_the_first_by_name() -> None:
    sure, unsure = Identity(actor="x", confidence=0.9), Identity(actor="y", confidence=0.4)
    assert choose_identity({"a": unsure, "b": sure}) is sure
    also = Identity(actor="z", confidence=0.9)
    assert choose_identity({"b": sure, "a": also}) is also


def test_a_later_harness_adds_to_every_list_of_the_first_and_each_value_once() -> None:
    first = Harness(
        name="acme", signals=[env("A")], aliases=["a"], fork_of=["f"], pid_variables=["P"],
        marks=["M"], transcripts=["/t/"], actor_kind="thread", tier="unverified",
    )  # fmt: skip
    other = Harness(
        name="acme", signals=[env("B"), env("A")], aliases=["b", "a"], fork_of=["g", "f"],
        pid_variables=["Q", "P"], marks=["N", "M"], transcripts=["/u/", "/t/"],
        events={"x": "opened"}, actor_kind="agent",
    )  # fmt: skip
    joined = join_harnesses([other], {"plugin": [first]})["acme"]
    assert [s.name for s in joined.signals] == ["A", "B"]
    assert (joined.aliases, joined.fork_of) == (("a", "b"), ("f", "g"))
    assert (joined.pid_variables, joined.marks) == (("P", "Q"), ("M", "N"))
    assert (joined.transcripts, joined.events) == (("/t/", "/u/"), {"x": "opened"})
    assert (joined.actor_kind, joined.tier) == ("thread", "unverified")
    plain = Harness(name="acme")
    assert join_harnesses([other], {"plugin": [plain]})["acme"].actor_kind == "agent"
    assert set(join_harnesses([Harness(name="one")], {"p": [Harness(name="two")]})) == {
        "one",
        "two",
    }
