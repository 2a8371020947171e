from __future__ import annotations

import pytest

from heddle_registry.core.harness import (
    CANDIDATE,
    DEFINITE,
    PROBABLE,
    Harness,
    Process,
    Signal,
    SignalKind,
    actor_key,
    agent_name,
    base_name,
    env,
    file,
    is_set,
    json_object,
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


def test_each_condition_of_a_variable_is_its_own() -> None:
    assert env("X", starts_with="ac").seen_in({"X": "acme"})
    assert not env("X", starts_with="cm").seen_in({"X": "acme"})
    assert env("X", contains="cm").seen_in({"X": "acme"})
    assert not env("X", contains="x").seen_in({"X": "acme"})
    assert env("X").seen_in({"X": "anything"})
    assert not env("X").seen_in({"Y": "1"})
    assert not program("X").seen_in({"X": "1"}), "a program is no variable"
    named = Signal(kind=SignalKind.STRONG, name="AI_AGENT", agent_name="acme@1.2")
    assert named.seen_in({"AI_AGENT": "acme@1.2"})
    assert is_set("1")
    assert not is_set(None)


def test_a_kind_is_kept_and_a_file_is_seen_where_it_is_present() -> None:
    assert env("X", kind="session").kind is SignalKind.SESSION
    assert program("x", kind="weak", role="worker").role == "worker"
    marked = Harness(
        name="a", signals=[file("/run/a"), env("A", also=["B"]), env("A", kind="session")]
    )
    both = {"A": "1", "B": "1"}
    assert marked.seen_marks({}, ["/run/a"]) == {SignalKind.STRONG: ("/run/a",)}
    assert marked.seen_marks({}) == {}
    assert marked.seen_marks(both) == {SignalKind.STRONG: ("A", "B"), SignalKind.SESSION: ("A",)}
    twice = Harness(name="a", signals=[env("A", equals="1"), env("A")])
    assert twice.seen_marks({"A": "1"}) == {SignalKind.STRONG: ("A",)}


def test_only_a_verified_harness_is_definite() -> None:
    assert 0 < CANDIDATE < PROBABLE < DEFINITE < 1
    assert ACME.ceiling == DEFINITE
    assert Harness(name="a", tier="unverified").ceiling == PROBABLE


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n"])
def test_a_harness_name_fits_into_a_key(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Harness(name=name)
    assert Harness(name="a-b.c_9").name == "a-b.c_9"


def test_a_program_is_what_only_a_program_signal_names() -> None:
    assert ACME.program_role(Process(pid=1, argv=("ACME",))) is None
    strange = Harness(name="a", signals=[env("acme", kind="program")])
    assert strange.program_role(Process(pid=1, argv=("acme",))) is None
    worker = Harness(name="a", signals=[program("other"), program("acme", role="worker")])
    assert worker.program_role(Process(pid=1, argv=("acme",))) == ("worker", "acme")
    assert worker.program_role(Process(pid=1, argv=("node", "acme"))) == ("worker", "acme")


@pytest.mark.parametrize(
    ("argv", "script"),
    [
        (("node", "a.js"), "a.js"),
        (("node",), ""),
        ((), ""),
        (("acme", "a.js"), ""),
        (("node", "-r", "x", "--import", "y", "a.js"), "a.js"),
        (("node", "--inspect", "a.js"), "a.js"),
        (("python3.11", "-m", "pkg"), "pkg"),
        (("python3.11", "-m"), ""),
        (("python3.11", "-c", "pkg"), ""),
        (("node", "-r"), ""),
        (("/usr/bin/bun", "run.ts", "more.ts"), "run.ts"),
    ],
)
def test_a_script_is_the_first_argument_that_is_no_option(
    argv: tuple[str, ...], script: str
) -> None:
    assert Process(pid=1, argv=argv).script == script
    assert Process(pid=1, argv=("named-otherwise", *argv[1:]), exe="").script == ""


def test_an_interpreter_is_known_by_its_file_where_its_name_was_changed() -> None:
    assert Process(pid=1, argv=("title", "a.js"), exe="/usr/bin/node20").script == "a.js"


def test_a_path_pattern_is_looked_for_in_the_script_the_name_and_the_file() -> None:
    versioned = Harness(name="a", signals=[program("a", path="*/a/[0-9]*")])

    def role(*argv: str, exe: str = "") -> str | None:
        found = versioned.program_role(Process(pid=1, argv=argv, exe=exe))
        return found and found[0]

    assert role("/x/a/1") == "main"
    assert role("whatever", exe="/x/a/1") == "main"
    assert role("node", "/x/a/1") == "launcher"
    assert role("a/1") == "main"
    assert role("1") is None
    assert role("node", "/x/b/1") is None
    assert role("C:\\x\\a\\1") == "main"


def test_a_harness_that_is_named_like_an_interpreter_is_known_by_scripts_only() -> None:
    odd = Harness(name="node", signals=[program("node20")])
    assert odd.program_role(Process(pid=1, argv=("node20", "x.js"))) is None
    assert odd.program_role(Process(pid=1, argv=("python", "node20"))) == ("launcher", "node20")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/acme.js", "acme"),
        ("C:\\x\\acme.EXE", "acme.EXE"),
        ("C:\\x\\acme.exe", "acme"),
        ("-bash", "bash"),
        ("/x/acme/", "acme"),
        ("acme.mjs", "acme"),
        ("acme.py", "acme"),
        ("", ""),
    ],
)
def test_a_base_name_is_the_last_part_without_what_packaging_added(path: str, name: str) -> None:
    assert base_name(path) == name


def test_an_id_of_200_characters_is_one_and_of_201_is_none() -> None:
    assert native_id("x" * 200) == "x" * 200
    assert native_id("x" * 201) is None
    assert native_id("a\u00a0b") is None
    assert actor_key(ACME, "acme") == "acme:session:acme"
    assert actor_key(Harness(name="a", actor_kind="thread"), "1") == "a:thread:1"
    assert actor_key(ACME, None) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (b'{"a": 1}', {"a": 1}),
        ("", {}),
        (None, {}),
        ("[1]", {}),
        ("{", {}),
        (' {"a": 1}', {}),
        ("7", {}),
        ("{" * 100_000, {}),
    ],
)
def test_only_an_object_is_an_object(text: str | bytes | None, value: object) -> None:
    assert json_object(text) == value


def test_a_shared_agent_variable_goes_where_it_only_says_that_an_agent_runs() -> None:
    for value in ("1", "true"):
        assert scrub({"AGENT": value}, []) == {}
    assert scrub({"AGENT": "x", "AI_AGENT": "y"}, []) == {"AGENT": "x"}
    weak = Harness(name="w", signals=[env("W", kind="weak"), env("C", kind="configuration")])
    assert scrub({"W": "1", "C": "1"}, [weak]) == {"W": "1", "C": "1"}
    assert weak.variables() == frozenset()
    assert ACME.variables() == {"ACME", "ACME_SESSION", "ACME_PID", "ACME_SECRET_TOKEN"}
    shell = Harness(name="s", signals=[env("SHELL"), env("EDITOR", equals="acme")], marks=["HOME"])
    kept = {"SHELL": "/bin/sh", "EDITOR": "acme", "HOME": "/h"}
    assert scrub(kept, [shell]) == kept


def test_a_program_without_arguments_is_known_by_its_path():
    versioned = Harness(name="v", signals=[program("v", path="*/v/bin/[0-9]*")])
    assert versioned.program_role(Process(pid=1, exe="/opt/v/bin/2")) == ("main", "v")
    assert versioned.program_role(Process(pid=1, exe="/opt/w/bin/2")) is None
