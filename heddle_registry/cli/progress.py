"""How far a long reading is, on a terminal's stderr only."""

from __future__ import annotations

import sys
import time

_FIRST_S = 0.5
_AGAIN_S = 0.1
_MB = 1_000_000


class Progress:
    """Called with bytes done and bytes to do; says so once it takes longer than half a second."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()
        self._due = time.monotonic() + _FIRST_S
        self._width = 0

    def __call__(self, done: int, whole: int) -> None:
        """Show how far it is, at most ten times a second."""
        if not self._is_shown or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _AGAIN_S
        percent = 100 * done // max(1, whole)
        text = f"reading transcripts: {done // _MB} of {whole // _MB} MB, {percent} %"
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
