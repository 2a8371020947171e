"""How far a long piece of work is, on a terminal's stderr only."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_S = 0.5
_AGAIN_S = 0.1
_MB = 1_000_000
_CELLS = 20


def reading_transcripts(done: int, whole: int) -> str:
    """Say how many bytes of transcripts were read."""
    return f"reading transcripts: {done // _MB} of {whole // _MB} MB"


def rebuilding_index(_done: int, _whole: int) -> str:
    """Say that a lost index is made again; other commands go on meanwhile."""
    return "rebuilding the index"


class Progress:
    """Called with what is done and what there is to do; says so from half a second on.

    :param say: puts both into words; a bar follows
    """

    def __init__(self, say: Callable[[int, int], str]) -> None:
        self._say = say
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()
        self._due = time.monotonic() + _FIRST_S
        self._width = 0

    def __call__(self, done: int, whole: int) -> None:
        """Show how far it is, at most ten times a second."""
        if not self._is_shown or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _AGAIN_S
        part = min(1.0, done / max(1, whole))
        bar = ("#" * int(part * _CELLS)).ljust(_CELLS, ".")
        text = f"{self._say(done, whole)} [{bar}] {int(100 * part)} %"
        self._write(text.ljust(self._width))
        self._width = len(text)

    def close(self) -> None:
        """Take the line away."""
        if self._width:
            self._write(" " * self._width)
            self._write("")
            self._width = 0

    @staticmethod
    def _write(text: str) -> None:
        try:
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
        except OSError:
            return
