from __future__ import annotations

from typing import Any

import pytest

from heddle_registry.core.chain import OFF_SWITCH, Surroundings, locate, precedence
from heddle_registry.core.harness import (
    CANDIDATE,
    DEFINITE,
    PROBABLE,
    Harness,
    Process,
    env,
    file,
    program,
)

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


def test_a_layer_has_its_own_processes_and_all_below_up_to_the_next_one() -> None:
    found = chain("hook", "sh", "inner", "bash", "outer", "node /x/bin/outer", "init")
    outer, inner = found.layers
    assert [p.pid for p in outer.processes] == [95, 96]
    assert [p.pid for p in outer.below] == [97, 98]
    assert [p.pid for p in inner.processes] == [98]
    assert [p.pid for p in inner.below] == [99, 100]
    assert outer.evidence == ("program:outer",)
    assert (outer.confidence, outer.env_is_its_own) == (DEFINITE, True)


def test_two_mains_or_a_gap_are_two_instances_and_a_worker_begins_none() -> None:
    assert names(chain("inner", "inner", "init")) == ["inner", "inner"]
    assert names(chain("inner", "sh", "node /x/bin/inner", "init")) == ["inner", "inner"]
    assert names(chain("inner-sandbox", "inner-sandbox", "inner", "init")) == ["inner"]
    assert names(chain("inner", "inner-sandbox", "inner", "init")) == ["inner", "inner"]
    worker = chain("inner-sandbox", "inner", "init")
    assert worker.layers[0].evidence == ("program:inner", "program:inner-sandbox")


def test_an_own_layer_shows_the_names_of_its_marks_and_a_foreign_one_does_not() -> None:
    two = ("sh", "outer", "bash", "outer", "init")
    found = chain(*two, environ={"OUTER": "1", "OUTER_ID": "x", "OUTER_PID": "97"})
    assert found.layers[0].evidence == ("program:outer", "OUTER", "OUTER_ID")
    assert found.layers[1].evidence == ("program:outer",)
    newest = chain(*two, environ={"OUTER": "1"})
    assert [layer.env_is_its_own for layer in newest.layers] == [False, True]
    worded = chain(*two, environ={"OUTER": "1", "OUTER_PID": "none of them"})
    assert [layer.env_is_its_own for layer in worded.layers] == [False, True]


def test_behind_a_wall_a_pid_variable_disproves_nothing() -> None:
    def own(*ancestors: Process) -> list[bool]:
        environ = {"OUTER": "1", "OUTER_PID": "4711"}
        found = locate(environ=environ, ancestors=ancestors, harnesses=KNOWN)
        return [layer.env_is_its_own for layer in found.layers]

    outer = Process(pid=5, argv=("outer",))
    wall = Process(pid=1, argv=("/usr/bin/bwrap", "--x"))
    assert own(outer, wall) == [True]
    assert own(outer, Process(pid=1, exe="/usr/bin/nsjail")) == [True]
    assert own(outer, Process(pid=1, argv=("init",))) == [False]
    assert own(Process(pid=1, argv=("outer",))) == [True], "alone in its namespace"
    assert own(outer) == [False]


def test_an_inner_hook_without_ids_of_its_own_shares_none_of_the_outer_ones() -> None:
    stack = ("hook", "inner", "bash", "inner", "init")

    def own(*commands: str, **more: Any) -> list[bool]:
        found = chain(*commands, environ={"INNER_ID": "s-1"}, **more)
        return [layer.env_is_its_own for layer in found.layers]

    assert own(*stack, payload={"id": "s-1"}) == [False, True]
    assert own(*stack, payload={"id": 7}) == [False, True], "it names nobody"
    assert own(*stack) == [False, True]
    assert own("hook", "inner", "init", payload={"id": "s-2"}) == [False]
    outer = own("hook", "outer", "inner", "init", payload={"id": "s-2"})
    assert outer == [True, True], "only the innermost one's hook speaks for it"
    unset = chain(*stack, environ={"INNER": "1", "INNER_ID": ""}, payload={"id": "s-2"})
    assert [layer.env_is_its_own for layer in unset.layers] == [False, True]


def test_candidates_are_candidates_and_what_may_be_named_is_probable_at_most() -> None:
    named = chain("bash", "tmux: server", "init", environ={"OUTER": "1"})
    assert named.candidates[0].confidence == CANDIDATE
    assert named.candidates[0].env_is_its_own
    assert named.target is None
    alone = locate(environ={"OUTER": "1"}, ancestors=None, harnesses=KNOWN)
    assert (alone.layers[0].evidence, alone.target) == (("OUTER",), 0)
    assert alone.layers[0].env_is_its_own
    assert alone.candidates == ()
    nameless = locate(environ={"AI_AGENT": "1"}, ancestors=None, harnesses=KNOWN)
    assert (nameless.candidates[0].confidence, nameless.layers) == (CANDIDATE, ())
    hook = chain("hook", "init", environ={**BOTH}, payload={"id": "x"}, declared="outer")
    assert names(hook) == ["outer"]
    assert (hook.layers[0].env_is_its_own, hook.target) == (True, 0)
    assert hook.layers[0].evidence == ("payload",)
    assert [layer.harness.name for layer in hook.candidates] == ["inner"]
    bare = chain("hook", "init", payload={"id": "x"}, declared="outer")
    assert not bare.layers[0].env_is_its_own
    quiet = chain("hook", "init", declared="outer")
    assert not quiet.layers


def test_a_hook_may_name_its_harness_by_another_name() -> None:
    known = Harness(name="acme", aliases=["ac"], signals=[program("acme")])
    ancestors = [Process(pid=9, argv=("acme",))]
    for declared, target in (("ac", 0), ("acme", 0), ("a", None)):
        found = locate(
            environ={}, ancestors=ancestors, harnesses=[known], payload={"i": 1}, declared=declared
        )
        assert found.target == target


def test_a_marker_file_counts_where_it_is_present() -> None:
    known = Harness(name="acme", signals=[file("/run/acme")])
    found = locate(environ={}, ancestors=None, harnesses=[known], present=["/run/acme"])
    assert names(found) == ["acme"]
    assert locate(environ={}, ancestors=None, harnesses=[known]) == Surroundings()


def test_forks_of_forks_come_first_also_where_they_name_each_other() -> None:
    deep = [
        Harness(name="a"),
        Harness(name="b", fork_of=["a", "nobody"]),
        Harness(name="c", fork_of=["b"]),
        Harness(name="d"),
    ]
    assert [h.name for h in precedence(deep)] == ["c", "b", "a", "d"]
    circle = [Harness(name="x", fork_of=["y"]), Harness(name="y", fork_of=["x"])]
    assert {h.name for h in precedence(circle)} == {"x", "y"}


def test_a_fork_with_a_program_of_its_own_renames_nobody() -> None:
    own = Harness(name="own", fork_of=["outer"], signals=[env("OWN"), program("own")])
    found = locate(
        environ={"OUTER": "1", "OWN": "1"},
        ancestors=[Process(pid=9, argv=("outer",))],
        harnesses=[*KNOWN, own],
    )
    assert names(found) == ["outer"]
    live = chain("sh", "outer", "init", environ={"OUTER": "1", "FORK": "1"})
    assert live.layers[0].evidence == ("program:outer", "OUTER", "FORK")
    gone = chain("sh", "outer", "init", environ={"FORK": "1", "OUTER_PID": "7"})
    assert names(gone) == ["outer"], "the marks are not its own"


def test_a_payloads_folder_is_looked_for_under_each_name_a_transcript_has() -> None:
    keeper = Harness(name="keeper", signals=[program("keeper")], transcripts=["/.keeper/"])
    for key in ("transcript_path", "agent_transcript_path", "transcriptPath"):
        payload = {key: "/home/dev/.keeper/1"}
        found = locate(environ={}, ancestors=None, harnesses=[keeper], payload=payload)
        assert names(found) == ["keeper"]
    for payload in ({"transcript_path": ["/.keeper/"]}, {"other": "/.keeper/1"}):
        found = locate(environ={}, ancestors=None, harnesses=[keeper], payload=payload)
        assert found == Surroundings()
    own = locate(
        environ={},
        ancestors=[Process(pid=9, argv=("keeper",))],
        harnesses=[keeper],
        payload={"transcript_path": "/.keeper/1"},
        declared="keeper",
    )
    assert own.target == 0


def test_a_middle_layer_ends_where_the_next_one_begins() -> None:
    found = chain("sh", "outer", "bash", "inner", "zsh", "outer", "init")
    assert names(found) == ["outer", "inner", "outer"]
    assert [[p.pid for p in layer.below] for layer in found.layers] == [
        [96, 97],
        [98, 99],
        [100],
    ]


def test_a_transcript_in_nobodys_folder_makes_nobody_its_writer() -> None:
    keeper = Harness(name="keeper", signals=[program("keeper")], transcripts=["/.keeper/"])
    payload = {"transcript_path": "/home/dev/elsewhere/1"}
    found = locate(environ={}, ancestors=None, harnesses=[keeper], payload=payload)
    assert found == Surroundings()


def test_a_hook_without_ancestry_has_its_own_marks_and_not_anothers() -> None:
    for environ, is_own in (({"OUTER": "1"}, True), ({"INNER": "1"}, False)):
        found = chain("hook", "init", environ=environ, payload={"id": "x"}, declared="outer")
        assert found.layers[0].env_is_its_own is is_own
