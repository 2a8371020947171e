"""A bar for whoever sits at a terminal and waits, and not a byte of it for anybody else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from heddle_registry.cli import progress
from heddle_registry.cli.progress import Progress, reading_transcripts, rebuilding_index
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Terminal:
    def __init__(self) -> None:
        self.shown = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.shown += text

    def flush(self) -> None:
        return


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    shown = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=shown))
    return shown


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return what lets seconds pass."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_what_is_quick_shows_nothing_and_what_is_slow_a_bar_that_is_gone_at_its_end(
    terminal: Terminal, passes: Callable[[float], None]
) -> None:
    told = Progress(rebuilding_index)
    told(1, 10)
    passes(0.4)
    told(2, 10)
    assert terminal.shown == ""
    passes(0.2)
    told(5, 10)
    line = "rebuilding the index [##########..........] 50 %"
    assert terminal.shown == f"\r{line}"
    told(6, 10)
    passes(0.05)
    told(7, 10)
    assert terminal.shown == f"\r{line}", "ten times a second are enough"
    told.close()
    assert terminal.shown == f"\r{line}\r{' ' * len(line)}\r"
    told.close()
    assert terminal.shown.endswith(f"{' ' * len(line)}\r")


def test_a_shorter_line_leaves_nothing_of_a_longer_one_behind(
    terminal: Terminal, passes: Callable[[float], None]
) -> None:
    told = Progress(reading_transcripts)
    passes(1)
    told(990_000_000, 1_000_000_000)
    longer = len(terminal.shown)
    passes(1)
    told(0, 0)
    assert terminal.shown.startswith("\rreading transcripts: 990 of 1000 MB [###")
    assert len(terminal.shown) == 2 * longer
    passes(1)
    told(30, 10)
    assert terminal.shown.rstrip().endswith("100 %")


CODE = """
import sys
from heddle_registry.cli import progress
progress._FIRST_S = progress._AGAIN_S = 0.0
from heddle_registry.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """Return a registry that has entries and no index."""
    folder = tmp_path / ".heddle"
    (folder / "agents").mkdir(parents=True)
    for number in range(300):
        name = f"agent-{number:03d}"
        (folder / "agents" / f"{name}.toml").write_text(
            f'session_id = "{name}"\nthread = "t/{number}"\nbase_state = "b"\n'
            'started_at = "2026-07-01T12:00:00Z"\nstatus = "active"\n'
        )
    return folder


def run(lost: Path, *words: str, on_terminal: bool) -> tuple[str, str]:
    """Return what a program that is never too quick for a bar says to stdout and stderr."""
    ours, theirs = pty.openpty() if on_terminal else os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE, "--heddle-dir", str(lost), *words],
            stdout=subprocess.PIPE,
            stderr=theirs,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
            check=True,
        )
        os.write(theirs, b"|")  # so that there is something to read
        said = ""
        while not said.endswith("|"):  # a terminal may give it in parts
            said += os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (lost / "index.sqlite").exists()
    return done.stdout.decode(), said.removesuffix("|")


def test_the_rebuild_of_a_lost_index_is_shown_at_a_terminal_and_then_gone(lost: Path) -> None:
    out, said = run(lost, "list", on_terminal=True)
    assert "rebuilding the index [" in said
    assert said.endswith("\r")
    assert said.split("\r")[-2].strip() == ""
    assert "rebuilding" not in out
    assert out.count("agent-") == 300
    assert run(lost, "list", on_terminal=True) == (out, ""), "it is there now"


@pytest.mark.parametrize(
    ("words", "on_terminal"), [(("list", "--json"), True), (("list",), False)], ids=["json", "pipe"]
)
def test_scripts_see_nothing_of_it(lost: Path, words: tuple[str, ...], on_terminal: bool) -> None:
    out, said = run(lost, *words, on_terminal=on_terminal)
    assert said == ""
    assert "rebuilding" not in out
