"""Folders that are read-only, foreign or closed: a clear error, and nothing changed."""

from __future__ import annotations

import contextlib
import io
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.__main__ import main
from tests.process_helpers import as_nobody, needs_other_user, public_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Heddle

pytestmark = needs_other_user


@pytest.fixture
def foreign(heddle: Heddle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry of root's with a claim on main, which others may read."""
    with public_folder() as folder:
        monkeypatch.setenv("HEDDLE_DIR", str(folder / ".heddle"))
        heddle("reserve", "main", "--ttl", "60")
        # The interpreter's own files may be closed to the other user: import everything before.
        heddle("doctor")
        for path in (folder / ".heddle").rglob("*"):
            if not path.name.startswith("index.sqlite"):
                path.chmod(0o755 if path.is_dir() else 0o644)
        (folder / ".heddle").chmod(0o755)
        yield folder / ".heddle"


def said_to_nobody(*words: str) -> tuple[int, Any]:
    def call() -> tuple[int, str]:
        os.chdir("/")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = main([*words, "--json"])
        return status, out.getvalue()

    status, out = as_nobody(call)
    return status, json.loads(out)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.name.startswith("index.sqlite")
    }


def test_another_users_registry_can_be_looked_at_and_not_changed(foreign: Path) -> None:
    before = contents(foreign)
    status, listed = said_to_nobody("list")
    assert (status, len(listed["entries"])) == (0, 1)
    assert said_to_nobody("why", "main")[1]["state"] == "held"
    assert said_to_nobody("check", "main", "--fence", "1")[1]["valid"]
    status, checks = said_to_nobody("doctor")
    assert status == 0, checks
    assert "cannot be written" in str(checks["checks"])
    status, refused = said_to_nobody("reserve", "other", "--ttl", "60")
    assert status == 7
    assert refused["error"]["code"] == "unavailable"
    assert refused["error"]["hint"]
    assert contents(foreign) == before


def test_a_closed_registry_is_an_error_that_names_it_and_not_an_empty_one(foreign: Path) -> None:
    (foreign / "agents").chmod(0o700)
    for words in (["list"], ["why", "main"], ["reserve", "x", "--ttl", "60"]):
        status, answer = said_to_nobody(*words)
        assert status == 7, words
        assert str(foreign / "agents") in answer["error"]["message"]
    foreign.chmod(0o700)
    for words in (["list"], ["why", "main"], ["doctor"], ["gc"]):
        status, answer = said_to_nobody(*words)
        assert status == 7, words
        assert str(foreign) in answer["error"]["message"]


def test_an_entry_that_may_not_be_read_refuses_what_it_may_concern_and_is_reported(
    foreign: Path,
) -> None:
    entry = next((foreign / "agents").glob("*.toml"))
    entry.chmod(0o600)
    status, listed = said_to_nobody("list")
    assert status == 0
    assert listed["problems"][0]["code"] == "unavailable"
    status, told = said_to_nobody("why", "main")
    assert (status, told["state"]) == (0, "blocked")


def test_a_registry_cannot_be_made_where_one_may_not_write(
    heddle: Heddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with public_folder() as folder:
        monkeypatch.setenv("HEDDLE_DIR", str(folder / ".heddle"))
        assert said_to_nobody("list")[0] == 0
        status, answer = said_to_nobody("reserve", "main", "--ttl", "60")
        assert status == 7
        assert "--heddle-dir" in answer["error"]["hint"]
        assert list(folder.iterdir()) == []
