from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from heddle_registry.errors import UsageError
from heddle_registry.settings import load_settings, lock_timeout_s

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith("HEDDLE"):
            monkeypatch.delenv(name)
    (tmp_path / ".config" / "heddle-registry").mkdir(parents=True)
    (tmp_path / "repo").mkdir()
    return tmp_path / "repo"


def test_where_nobody_says_anything_there_is_nothing(folder: Path) -> None:
    assert load_settings(str(folder)) is None
    assert load_settings(str(folder / "missing")) is None
    assert lock_timeout_s(str(folder)) is None


def test_options_win_over_variables_over_the_repository_over_the_user(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = folder.parent / ".config" / "heddle-registry" / "config.toml"
    user.write_text("lock_timeout_s = 1\ndefault_ttl_s = 11\n")
    assert lock_timeout_s(str(folder)) == 1
    (folder / "config.toml").write_text("lock_timeout_s = 2\n")
    assert lock_timeout_s(str(folder)) == 2
    monkeypatch.setenv("HEDDLE_REGISTRY_LOCK_TIMEOUT", "3")
    assert lock_timeout_s(str(folder)) == 3
    assert lock_timeout_s(str(folder), 4) == 4
    settings = load_settings(str(folder), {"HEDDLE_REGISTRY_DETECTION": "0"})
    assert settings is not None
    assert (settings.lock_timeout_s, settings.default_ttl_s, settings.detection) == (2, 11, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEDDLE_REGISTRY_LOCK_TIMEOUT", "x"),
        ("HEDDLE_REGISTRY_LOCK_TIMEOUT", "-1"),
        ("HEDDLE_REGISTRY_LOCK_TIMEOUT", "nan"),
        ("HEDDLE_REGISTRY_DEFAULT_TTL", "0.1"),
        ("HEDDLE_REGISTRY_DEFAULT_TTL", "inf"),
        ("HEDDLE_REGISTRY_DETECTION", "maybe"),
    ],
)
def test_a_wrong_variable_is_a_usage_error(folder: Path, name: str, value: str) -> None:
    with pytest.raises(UsageError):
        load_settings(str(folder), {name: value})


@pytest.mark.parametrize("make", ["folder", "fifo", "huge", "wrong"])
def test_a_file_that_cannot_be_used_is_named_and_hangs_nobody(folder: Path, make: str) -> None:
    path = folder / "config.toml"
    if make == "folder":
        path.mkdir()
    elif make == "fifo":
        os.mkfifo(path)
    elif make == "huge":
        path.write_bytes(b"#" * 1_048_577)
    else:
        path.write_text("\n\nfrob = 1\n")
    with pytest.raises(UsageError, match=r"config\.toml") as caught:
        load_settings(str(folder))
    if make == "wrong":
        assert "line 3" in str(caught.value)
