from __future__ import annotations

import pytest

from heddle_registry.core.harness import (
    Harness,
    Process,
    Signal,
    SignalKind,
    actor_key,
    agent_name,
    env,
    native_id,
    program,
    scrub,
)

ACME = Harness(
    name="acme",
    signals=[env("ACME", equals="1"), env("ACME_SESSION", kind="session"), program("acme")],
    pid_variables=["ACME_PID"],
    marks=["ACME_SECRET_TOKEN"],
)


@pytest.mark.parametrize("value", ["", " ", "0", "false", "No", "OFF", "none", "null"])
def test_a_false_like_value_is_no_mark(value: str) -> None:
    assert not env("X").seen_in({"X": value})


def test_an_exact_value_is_matched_exactly_even_where_it_looks_like_no() -> None:
    assert env("X", equals="0").seen_in({"X": "0"})
    assert not env("X", equals="exec").seen_in({"X": "EXEC"})
    assert not env("X", equals="1").seen_in({"X": "11"})


def test_a_mark_of_two_variables_needs_both() -> None:
    both = env("A", also=["B"])
    assert both.seen_in({"A": "x", "B": "y"})
    assert not both.seen_in({"A": "x", "B": "off"})


def test_an_agents_name_is_cut_at_its_version() -> None:
    assert [agent_name(v) for v in ("acme@1.2", "acme_1-2_agent", "acme")] == ["acme"] * 3
    named = Signal(kind=SignalKind.STRONG, name="AI_AGENT", agent_name="acme")
    assert named.seen_in({"AI_AGENT": "acme_2-1_harness"})
    assert not named.seen_in({"AI_AGENT": "acmeish_2"})


@pytest.mark.parametrize(
    ("argv", "exe", "role"),
    [
        (["acme", "run"], "", "main"),
        (["/opt/x/acme.exe"], "", "main"),
        (["whatever"], "/opt/acme/bin/acme", "main"),
        (["node", "--max-old-space-size=9", "/x/.bin/acme", "-p"], "/usr/bin/node", "launcher"),
        (["python3.11", "-W", "ignore", "-m", "acme"], "", "launcher"),
        (["/usr/bin/node24", "-r", "acme", "/x/other.js"], "", None),
        (["grep", "acme"], "/usr/bin/grep", None),
        (["vim", "/home/dev/acme"], "", None),
        (["bash", "-c", "acme"], "", None),
        (["node", "-e", "acme"], "", None),
        (["acme-helper"], "", None),
        (["/opt/acme/other"], "", None),
    ],
)
def test_a_program_is_known_by_its_exact_base_name_or_its_interpreters_script(
    argv: list[str], exe: str, role: str | None
) -> None:
    found = ACME.program_role(Process(pid=1, argv=tuple(argv), exe=exe))
    assert (found and found[0]) == role


def test_a_version_named_binary_is_known_by_its_path_and_stars_stay_in_one_folder() -> None:
    versioned = Harness(name="a", signals=[program("a", path="*/a/versions/[0-9]*.[0-9]*")])
    assert versioned.program_role(Process(pid=1, argv=("/home/d/.local/share/a/versions/2.1",)))
    assert not versioned.program_role(Process(pid=1, argv=("/s/a/versions/2.1/bin/rg",)))
    assert not versioned.program_role(Process(pid=1, argv=("/s/a/versions/beta",)))


def test_the_kernels_short_name_counts_only_where_nothing_else_is_known() -> None:
    assert ACME.program_role(Process(pid=1, comm="acme"))
    assert not ACME.program_role(Process(pid=1, comm="acme", argv=("MainThread",)))


def test_evidence_holds_names_and_never_values() -> None:
    seen = ACME.seen_marks({"ACME": "1", "ACME_SESSION": "s-secret"})
    assert seen == {SignalKind.STRONG: ("ACME",), SignalKind.SESSION: ("ACME_SESSION",)}


def test_scrubbing_takes_marks_out_and_leaves_settings() -> None:
    amp = Harness(name="amp", signals=[env("AGENT", equals="amp"), env("HOME", equals="/h")])
    before = {
        "ACME": "1",
        "ACME_PID": "7",
        "ACME_SECRET_TOKEN": "t",
        "AI_AGENT": "acme",
        "AGENT": "my-own-thing",
        "ACME_THEME": "dark",
        "HOME": "/h",
        "HEDDLE_THREAD": "b",
    }
    kept = {"AGENT", "ACME_THEME", "HOME", "HEDDLE_THREAD"}
    assert set(scrub(before, [ACME, amp])) == kept
    assert "AGENT" not in scrub({"AGENT": "amp"}, [amp])


@pytest.mark.parametrize("value", [None, 7, "", "a b", "x" * 201, "a\n", ["a"], "\x1b[0m"])
def test_what_cannot_be_an_id_makes_no_key(value: object) -> None:
    assert native_id(value) is None
    assert actor_key(ACME, native_id(value)) is None


def test_a_key_that_is_one_already_is_not_made_twice() -> None:
    assert actor_key(ACME, "s1") == "acme:session:s1"
    assert actor_key(ACME, "s1", "agent") == "acme:agent:s1"
    assert actor_key(ACME, "acme:thread:s1") == "acme:thread:s1"


def test_a_harness_refuses_a_meaning_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match="started"):
        Harness(name="acme", events={"go": "started"})
    with pytest.raises(ValueError, match="name"):
        Harness(name="a b")
    with pytest.raises(TypeError, match="one text"):
        Harness(name="acme", aliases="ac")
