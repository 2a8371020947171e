"""The command line in this process, and as a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry.__main__ import main
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@attrs.frozen
class Answer:
    """What a command ended with and said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        lines = self.out.splitlines()
        assert len(lines) == 1, f"not one object: {self.out!r} {self.err!r}"
        answer = json.loads(lines[0])
        assert answer["schema"] == "heddle-registry/1"
        return answer


class Heddle:
    """Calls the command line on one registry."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.agents = folder / "agents"
        self._capsys = capsys

    def __call__(self, *words: object, status: int | None = 0) -> Answer:
        """Call in this process; ``status`` None accepts any."""
        self._capsys.readouterr()
        ended = main([str(word) for word in words])
        out, err = self._capsys.readouterr()
        if status is not None:
            assert ended == status, f"status {ended}: {out}{err}"
        return Answer(ended, out, err)

    def json(self, *words: object, status: int | None = 0) -> Any:
        """Call with ``--json`` and return the one object."""
        return self(*words, "--json", status=status).json

    def program(self, *words: object, status: int | None = 0, **options: Any) -> Answer:
        """Run as a program of its own."""
        options.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(
            [sys.executable, "-m", "heddle_registry", *map(os.fspath, map(_text, words))],
            capture_output="stdout" not in options,
            timeout=60,
            check=False,
            **{"env": {**os.environ, "PYTHONPATH": str(ROOT)}, **options},
        )
        out, err = (done.stdout or b"").decode(), (done.stderr or b"").decode()
        if status is not None:
            assert done.returncode == status, f"status {done.returncode}: {out}{err}"
        return Answer(done.returncode, out, err)


def _text(word: object) -> str | bytes:
    return word if isinstance(word, bytes) else str(word)


@pytest.fixture
def heddle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Heddle:
    """Return the command line on a registry that is not there yet, in a clean environment."""
    for name in list(os.environ):
        if name.startswith("HEDDLE") or name in ("FORCE_COLOR", "NO_COLOR"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HEDDLE_REGISTRY_PLUGINS", "")
    folder = tmp_path / "repository" / ".heddle"
    folder.parent.mkdir()
    monkeypatch.setenv("HEDDLE_DIR", str(folder))
    monkeypatch.chdir(folder.parent)
    return Heddle(folder, capsys)
