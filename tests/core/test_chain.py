from __future__ import annotations

from typing import Any

import pytest

from heddle_registry.core.chain import OFF_SWITCH, Surroundings, locate, precedence
from heddle_registry.core.harness import PROBABLE, Harness, Process, env, program

INNER = Harness(
    name="inner",
    signals=[
        env("INNER"),
        env("INNER_ID", kind="session"),
        program("inner"),
        program("inner-sandbox", role="worker"),
    ],
)
OUTER = Harness(
    name="outer",
    signals=[env("OUTER"), env("OUTER_ID", kind="session"), program("outer")],
    pid_variables=["OUTER_PID"],
)
FORK = Harness(name="fork", fork_of=["outer"], signals=[env("FORK")])
KNOWN = [OUTER, INNER, FORK]


def chain(*commands: str, **more: Any) -> Surroundings:
    """Locate below these command lines, nearest first; pids count down from 100."""
    ancestors = [
        Process(pid=100 - place, argv=tuple(line.split())) for place, line in enumerate(commands)
    ]
    more.setdefault("environ", {})
    return locate(ancestors=ancestors, harnesses=KNOWN, **more)


def names(found: Surroundings) -> list[str]:
    return [layer.harness.name for layer in found.layers]


BOTH = {"OUTER": "1", "OUTER_ID": "o", "OUTER_PID": "97", "INNER": "1", "INNER_ID": "i"}


def test_live_ancestors_order_the_chain_whatever_the_variables_say() -> None:
    found = chain("sh", "inner", "bash", "outer", "init", environ=BOTH)
    assert names(found) == ["outer", "inner"]
    assert all(layer.env_is_its_own for layer in found.layers)
    other_way = chain("sh", "outer", "bash", "inner", "init", environ={**BOTH, "OUTER_PID": "99"})
    assert names(other_way) == ["inner", "outer"]


def test_a_pid_variable_says_which_of_two_instances_set_the_marks() -> None:
    two = ("sh", "outer", "bash", "outer", "init")
    inner = chain(*two, environ={"OUTER": "1", "OUTER_ID": "x", "OUTER_PID": "99"})
    assert [layer.env_is_its_own for layer in inner.layers] == [False, True]
    outer = chain(*two, environ={"OUTER": "1", "OUTER_ID": "x", "OUTER_PID": "97"})
    assert [layer.env_is_its_own for layer in outer.layers] == [True, False]
    gone = chain(*two, environ={"OUTER": "1", "OUTER_ID": "x", "OUTER_PID": "7"})
    assert [layer.env_is_its_own for layer in gone.layers] == [False, False]


def test_a_launcher_and_what_it_starts_are_one_instance() -> None:
    found = chain("sh", "inner-sandbox", "inner", "node /x/bin/inner", "init")
    assert names(found) == ["inner"]
    assert [p.pid for p in found.layers[0].processes] == [97, 98, 99]
    nested = chain("sh", "inner", "node /x/bin/inner", "inner", "node /x/bin/inner", "init")
    assert names(nested) == ["inner", "inner"]


def test_marks_without_a_living_ancestor_name_a_candidate_and_nobody_is_picked() -> None:
    found = chain("bash", "tmux: server", "init", environ={"OUTER": "1", "OUTER_ID": "o"})
    assert not found.layers
    assert [layer.harness.name for layer in found.candidates] == ["outer"]
    assert found.candidates[0].evidence == ("OUTER", "OUTER_ID")


def test_without_ancestry_one_harness_is_probable_and_two_are_none() -> None:
    one = locate(environ={"INNER": "1"}, ancestors=None, harnesses=KNOWN)
    assert names(one) == ["inner"]
    assert one.layers[0].confidence == PROBABLE
    two = locate(environ=BOTH, ancestors=None, harnesses=KNOWN)
    assert not two.layers
    assert {layer.harness.name for layer in two.candidates} == {"inner", "outer"}


def test_behind_a_sandboxs_wall_the_outer_harness_stays_a_candidate() -> None:
    wall = [
        Process(pid=2, argv=("sh",)),
        Process(pid=1, argv=("codex-linux-sandbox",), exe="/opt/inner"),
    ]
    walled = locate(environ=BOTH, ancestors=wall, harnesses=KNOWN)
    assert names(walled) == ["inner"]
    assert [layer.harness.name for layer in walled.candidates] == ["outer"]


def test_weak_marks_decide_nothing_anywhere() -> None:
    weak = Harness(
        name="weak", signals=[env("TERMINAL", kind="weak"), env("S", kind="configuration")]
    )
    found = locate(environ={"TERMINAL": "1", "S": "1"}, ancestors=None, harnesses=[weak])
    assert found == Surroundings()


def test_a_fork_comes_before_what_it_is_a_fork_of() -> None:
    assert [h.name for h in precedence(KNOWN)] == ["fork", "inner", "outer"]
    alone = locate(environ={"OUTER": "1", "FORK": "1"}, ancestors=None, harnesses=KNOWN)
    assert names(alone) == ["fork"]
    live = chain("sh", "outer", "init", environ={"OUTER": "1", "FORK": "1"})
    assert names(live) == ["fork"]


def test_an_unverified_harness_is_never_better_than_probable() -> None:
    guess = Harness(name="guess", tier="unverified", signals=[env("G"), program("guess")])
    found = locate(
        environ={"G": "1"}, ancestors=[Process(pid=5, argv=("guess",))], harnesses=[guess]
    )
    assert found.layers[0].confidence == PROBABLE


def test_a_payload_goes_to_the_harness_whose_hook_it_is_and_to_no_other() -> None:
    stack = ("hook", "inner", "bash", "outer", "init")
    assert chain(*stack, payload={"id": "x"}).target == 1
    assert chain(*stack, payload={"id": "x"}, declared="outer").target == 0
    assert chain("hook", "inner", "init", payload={"id": "x"}, declared="outer").target is None
    assert chain(*stack).target is None
    assert chain(*stack, payload={"id": "x"}, declared="nobody-knows-it").target is None


def test_a_hook_that_outlived_its_harness_is_believed_for_its_payload() -> None:
    found = chain("hook", "init", payload={"id": "x"}, declared="outer")
    assert names(found) == ["outer"]
    assert found.layers[0].confidence == PROBABLE


def test_a_payload_with_another_harnesss_transcript_is_not_taken() -> None:
    keeper = Harness(name="keeper", signals=[program("keeper")], transcripts=["/.keeper/logs/"])
    ancestors = [Process(pid=9, argv=("inner",))]
    payload = {"transcript_path": "/home/dev/.keeper/logs/1"}
    for declared in (None, "inner"):
        found = locate(
            environ={},
            ancestors=ancestors,
            harnesses=[*KNOWN, keeper],
            payload=payload,
            declared=declared,
        )
        assert found.target is None
    alone = locate(environ={}, ancestors=None, harnesses=[keeper], payload=payload)
    assert names(alone) == ["keeper"]


def test_ids_from_further_out_are_not_an_inner_hooks() -> None:
    stack = ("hook", "inner", "bash", "inner", "init")
    leaked = chain(*stack, environ={"INNER_ID": "outer-one"}, payload={"id": "inner-one"})
    assert [layer.env_is_its_own for layer in leaked.layers] == [True, False]


@pytest.mark.parametrize("value", ["off", "0", "false", "No"])
def test_the_switch_turns_everything_off(value: str) -> None:
    found = chain("sh", "outer", environ={**BOTH, OFF_SWITCH: value})
    assert found == Surroundings()


def test_an_agent_that_says_only_that_it_is_one_is_an_unknown_candidate() -> None:
    found = locate(environ={"AI_AGENT": "1"}, ancestors=None, harnesses=KNOWN)
    assert [layer.harness.name for layer in found.candidates] == ["unknown"]
    assert locate(environ={"AI_AGENT": "false"}, ancestors=None, harnesses=KNOWN) == Surroundings()
