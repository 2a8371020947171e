from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from heddle_registry.cli.text import ago, clean, clip, print_table, wants_colour

if TYPE_CHECKING:
    from tests.cli.conftest import Heddle

HOSTILE = "\x1b[2Jx\r\n\t\u202ey\u2028\x9b\x00\ud800[red]z[/red]é"
S = 1_000_000_000


def test_whatever_moves_a_cursor_or_turns_a_line_is_spelled_out() -> None:
    assert clean(HOSTILE) == (
        "\\x1b[2Jx\\x0d\\x0a\\x09\\u202ey\\u2028\\x9b\\x00\\ud800[red]z[/red]é"
    )


def test_cutting_never_lets_half_an_escape_or_a_huge_text_through() -> None:
    assert clip("a" * 10**6, 5) == "aaaa…"
    assert clip("a\x1bb", 60) == "a\\x1bb"
    assert len(clip("\x1b" * 100, 10)) == 10


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (7_199, "119 min"),
        (7_200, "2 h"),
        (3 * 86_400, "3 days"),
        (-180, "in 3 min"),
    ],
)
def test_an_age_is_said_in_one_unit(seconds: int, said: str) -> None:
    assert ago(0, seconds * S) == said


def test_a_table_with_colours_takes_no_cell_for_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_table(("A",), [("[red]x[/red] :smile:",)], [""])
    assert "[red]x[/red] :smile:" in capsys.readouterr().out


def test_nobody_gets_colours_who_asked_for_none(
    monkeypatch: pytest.MonkeyPatch, heddle: Heddle
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour()
    assert "\x1b" not in heddle("list").out
