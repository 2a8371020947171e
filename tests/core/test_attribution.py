from __future__ import annotations

import attrs
import pytest

from heddle_registry.core.attribution import Command, ran_by
from heddle_registry.core.harness import Process


def process(*argv: str, **more: float) -> Process:
    return Process(pid=1, argv=argv, **more)


@pytest.mark.parametrize(
    "argv",
    [
        ("bash", "-c", "make test"),
        ("bash", "-c", "source ~/.rc && eval 'make test' < /dev/null && pwd"),
        ("bash", "-c", "shopt -u x\n(\ntrap x EXIT\nmake test\n)\nexit $?"),
        ("/usr/bin/make", "test"),
        ("python3", "/usr/bin/make", "test"),
    ],
)
def test_a_command_is_found_in_the_shell_that_runs_it_or_as_the_program(argv: tuple[str]) -> None:
    commands = [Command("root", "make all"), Command("child", "make test")]
    assert ran_by(commands, set(), [process(*argv)]) == "child"


def test_one_part_of_a_longer_command_line_is_enough_but_not_a_part_of_a_word() -> None:
    commands = [Command("a", "cd /x && CC=gcc make test | tee log"), Command("b", "make testing")]
    assert ran_by(commands, set(), [process("make", "test")]) == "a"


def test_a_script_is_known_by_what_the_shell_says_it_started() -> None:
    commands = [Command("a", "/opt/run.sh one"), Command("b", "/opt/run.sh two")]
    seen = [process("python3", "/opt/real.py", "/var/log", "two")]
    assert ran_by(commands, set(), seen, "/opt/run.sh") == "b"
    assert ran_by(commands, set(), seen) is None


def test_the_running_one_of_two_equal_commands_is_meant() -> None:
    below = [process("git", "status")]
    twice = [Command("a", "git status"), Command("b", "git status", running=True)]
    assert ran_by(twice, {"a", "b"}, below) == "b"
    both = [attrs.evolve(command, running=True) for command in twice]
    assert ran_by(both, {"a", "b"}, below) is None


def test_a_finished_command_is_not_taken_for_ours_while_another_is_at_work() -> None:
    # The line of the answer that asked for our command may not be written yet.
    below = [process("git", "status")]
    assert ran_by([Command("a", "git status")], {"b"}, below) is None
    assert ran_by([Command("a", "git status")], {"a"}, below) == "a"


def test_a_finished_command_is_never_that_of_a_process_seen_alive() -> None:
    below = [process("git", "status", started_at=1_700_000_000.0)]
    assert ran_by([Command("a", "git status")], set(), below) is None
    assert ran_by([Command("a", "git status", running=True)], set(), below) == "a"


def test_text_that_is_no_shell_command_matches_nothing() -> None:
    for text in ("", "echo 'open", "x" * 100_000):
        assert ran_by([Command("a", text)], set(), [process("make")]) is None


def one_of(text: str, *argv: str, last_command: str = "", **more: float) -> bool:
    found = ran_by([Command("a", text)], set(), [process(*argv, **more)], last_command)
    assert found in ("a", None)
    return found == "a"


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("make test", ("watch", "make test")),  # the whole command as the first argument
        ("  make test\n", ("bash", "-c", " make test ")),
        ("echo 'it''s'", ("bash", "-c", "eval 'echo '\\''it'\\'''\\''s'\\''' < /dev/null")),
        ("echo 'x'", ("bash", "-c", "eval 'echo '\"'\"'x'\"'\"''")),
        ("one\ntwo", ("bash", "-c", "set -e\none\ntwo\nexit")),
        ("FOO=1 BAR=2 make test", ("make", "test")),
        ("make test CC=gcc", ("make", "test", "CC=gcc")),
        ("./x=y/tool run", ("./x=y/tool", "run")),
        ("(cd x; make test)", ("make", "test")),
        ("true || make test", ("make", "test")),
        ("one\nmake test\n", ("make", "test")),
        ("sleep 9 & make test", ("sleep", "9")),
        ("make # test", ("make", "#", "test")),
        ("make 'a b'", ("make", "a b")),
        ("ssh user@host:x -p %d,+", ("ssh", "user@host:x", "-p", "%d,+")),
        ("make", ("/usr/bin/make",)),
    ],
)
def test_a_command_is_known_however_a_shell_was_told_to_run_it(
    text: str, argv: tuple[str, ...]
) -> None:
    assert one_of(text, *argv)


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("make test", ("make test",)),  # argv[0] is a name, no script
        ("make test", ("bash", "-c", "make testing")),
        ("make test", ("bash", "-c", "eval make test")),
        ("make test", ("make", "test", "all")),
        ("make test", ("make",)),
        ("make test", ("test",)),
        ("make test", ()),
        ("make", ()),
        ("make test all", ("test", "all")),
        ("make test", ("cmake", "test")),
        ("FOO=1", ("FOO=1",)),
        ("&& ||", ("&&",)),
    ],
)
def test_what_only_looks_like_a_command_is_not_taken_for_it(
    text: str, argv: tuple[str, ...]
) -> None:
    assert not one_of(text, *argv)


def test_a_command_of_64_kib_is_still_compared_and_a_longer_one_not() -> None:
    longest = "x" * 65_536
    assert one_of(longest, longest)
    assert not one_of(longest + "x", longest + "x")


def test_what_the_shell_says_it_started_is_said_of_the_innermost_process_only() -> None:
    commands = [Command("a", "/opt/run.sh two")]
    outer, inner = process("python3", "/opt/real.py", "two"), process("cat")
    assert ran_by(commands, set(), [outer, inner], "/opt/run.sh") is None
    assert ran_by(commands, set(), [inner, outer], "/opt/run.sh") == "a"


def test_two_actors_that_ran_the_same_are_told_apart_by_nothing() -> None:
    twice = [Command("a", "git status"), Command("b", "git status")]
    assert ran_by(twice, set(), [process("git", "status")]) is None
    once = [Command("a", "git status"), Command("a", "git status"), Command("b", "git log")]
    assert ran_by(once, set(), [process("git", "status")]) == "a"
    assert ran_by(once, set(), [process("ls")]) is None
    assert ran_by(once, {"a", "b"}, [process("git", "status")]) is None
