from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from heddle_registry.cli import application, verbs
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from tests.cli.conftest import Heddle


def test_options_before_the_verb_count_as_those_behind_it(heddle: Heddle) -> None:
    before = heddle("--json", "--heddle-dir", heddle.folder, "--lock-timeout", "3", "list").json
    assert before == heddle.json("list", "--heddle-dir", heddle.folder, "--lock-timeout=3")


def test_words_behind_a_double_dash_are_not_ours() -> None:
    assert application.split_verb(["--json", "run", "b", "--", "list", "--json"]) == (
        "run",
        ["--json", "b", "--", "list", "--json"],
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["frob"],
        ["lisst"],
        ["list", "--frob"],
        ["reserve"],
        ["list", "extra"],
        ["--lock-timeout", "nan", "list"],
        ["--lock-timeout", "-1", "list"],
        ["--lock-timeout"],
        ["--heddle-dir", "", "list"],
        ["--heddle-dir", "a\0b", "list"],
        ["check", "b", "--fence", "9" * 5000],
        ["why", "b", "--thread", "--id"],
        ["heartbeat"],
    ],
)
def test_a_wrong_command_line_is_a_usage_error_on_either_stream(
    heddle: Heddle, words: list[str]
) -> None:
    told = heddle(*words, status=2)
    assert told.out == ""
    assert told.err.startswith("heddle-registry: ")
    assert len(told.err.splitlines()) == 1
    error = heddle("--json", *words, status=2).json["error"]
    assert error["code"] == "usage"
    assert error["message"]
    assert not heddle.folder.exists()


def test_a_misspelt_verb_is_told_its_nearest(heddle: Heddle) -> None:
    assert "`heartbeat`" in heddle("hartbeat", status=2).err


def test_help_lists_every_verb_and_ends_with_0(heddle: Heddle) -> None:
    out = heddle("--help").out
    assert all(name in out for name in verbs.VERBS)
    assert heddle("--version").out.startswith("heddle-registry ")
    assert "--dry-run" in heddle("gc", "--help").out


def test_outside_of_any_repository_the_user_is_told_what_to_do(
    heddle: Heddle, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEDDLE_DIR")
    monkeypatch.chdir(tmp_path_factory.mktemp("nowhere"))
    assert "--heddle-dir" in heddle("list", status=2).err


def test_no_user_sees_a_traceback_unless_he_asks(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("of\x1b[2J ours")

    monkeypatch.setattr("heddle_registry.cli.list.run", broken)
    said = heddle("list", status=1).err
    assert "Traceback" not in said
    assert "ZeroDivisionError" in said
    assert "HEDDLE_REGISTRY_DEBUG" in said
    assert "\x1b" not in said
    assert heddle.json("list", status=1)["error"]["code"] == "internal"
    monkeypatch.setenv("HEDDLE_REGISTRY_DEBUG", "1")
    assert "Traceback" in heddle("list", status=1).err


def test_an_interrupt_ends_with_130(heddle: Heddle, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("heddle_registry.cli.list.run", interrupted)
    assert heddle("list", status=130).err == "heddle-registry: interrupted\n"


def test_a_reader_that_goes_away_is_no_news(heddle: Heddle) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        told = heddle.program("list", "--json", stdout=writes, stderr=subprocess.PIPE, status=141)
    finally:
        os.close(writes)
    assert told.err == ""


def test_a_verbs_module_is_imported_only_for_that_verb(heddle: Heddle) -> None:
    code = (
        "import sys\n"
        "from heddle_registry.__main__ import main\n"
        "main(['list'])\n"
        "print([m for m in sys.modules if m in ('rich', 'pluggy', 'cattrs', 'psutil',"
        " 'fasteners', 'tomli_w', 'importlib.metadata') or '.cli.' in m], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    loaded = set(eval(done.stderr.splitlines()[-1]))
    assert loaded == {
        f"heddle_registry.cli.{name}"
        for name in ("application", "verbs", "arguments", "context", "list", "text")
    }
