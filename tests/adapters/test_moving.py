from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.adapters.moving import kept_name, move, name_again
from heddle_registry.errors import OutcomeUnknown, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def failing(code: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    (old / "a").write_text("damaged")
    return old, new


def names(*folders: Path) -> list[list[str]]:
    return [sorted(os.listdir(folder)) for folder in folders]


@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
def test_whatever_it_is_it_lies_at_its_new_place_alone(
    folders: tuple[Path, Path], kind: str
) -> None:
    old, new = folders
    if kind != "file":
        (old / "a").unlink()
    if kind == "folder":
        (old / "a").mkdir()
    elif kind == "link":
        (old / "a").symlink_to("nowhere")
    elif kind == "fifo":
        os.mkfifo(old / "a")
    before = os.lstat(old / "a")
    move(str(old), "a", str(new), "b")
    assert names(*folders) == [[], ["b"]]
    assert os.path.samestat(os.lstat(new / "b"), before)


@pytest.mark.parametrize("has_links", [True, False])
def test_what_lies_at_the_new_place_is_never_replaced(
    folders: tuple[Path, Path], has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = folders
    (new / "b").write_text("somebody's")
    if not has_links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    with pytest.raises(StoreUnavailable):
        move(str(old), "a", str(new), "b")
    assert ((old / "a").read_text(), (new / "b").read_text()) == ("damaged", "somebody's")


def test_a_move_that_was_cut_short_is_ended_by_the_next(folders: tuple[Path, Path]) -> None:
    old, new = folders
    assert name_again(str(old / "a"), str(new / "b"))
    move(str(old), "a", str(new), "b")
    assert names(*folders) == [[], ["b"]]
    assert (new / "b").read_text() == "damaged"


def test_where_a_file_has_one_name_it_is_renamed(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = folders
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    assert not name_again(str(old / "a"), str(new / "b"))
    move(str(old), "a", str(new), "b")
    assert names(*folders) == [[], ["b"]]


@pytest.mark.parametrize("case", ["links", "no links", "cut short", "one folder"])
def test_no_name_goes_before_the_other_one_is_durable(
    folders: tuple[Path, Path], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = folders
    if case == "cut short":
        os.link(old / "a", new / "b")
    by_inode = {folder.stat().st_ino: f"sync {folder.name}" for folder in folders}
    done = []

    def noted(call: Callable[..., None], name: str) -> Callable[..., None]:
        def note(*given: Any, **options: Any) -> None:
            call(*given, **options)
            done.append(by_inode[os.fstat(given[0]).st_ino] if name == "fsync" else name)

        return note

    for name in ("link", "unlink", "rename", "fsync"):
        monkeypatch.setattr(os, name, noted(getattr(os, name), name))
    if case in ("no links", "one folder"):
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    move(str(old), "a", str(old if case == "one folder" else new), "b")
    assert (
        done
        == {
            "links": ["link", "sync new", "unlink", "sync old"],
            "cut short": ["sync new", "unlink", "sync old"],
            "no links": ["rename", "sync new", "sync old"],
            "one folder": ["rename", "sync old"],
        }[case]
    )


def test_a_second_name_that_is_neither_durable_nor_taken_back_is_told(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("fsync", "unlink"):
        monkeypatch.setattr(os, call, failing(errno.EIO))
    with pytest.raises(OutcomeUnknown):
        name_again(str(folders[0] / "a"), str(folders[1] / "b"))
    monkeypatch.undo()
    assert names(*folders) == [["a"], ["b"]]


@pytest.mark.parametrize("name", ["a.toml", "b" * 120 + ".toml", "c" * 250, "\u00e9" * 125])
def test_a_name_in_the_quarantine_is_new_and_tells_and_fits(tmp_path: Path, name: str) -> None:
    kept = {kept_name(name), kept_name(name)}
    assert len(kept) == 2
    for one in kept:
        (tmp_path / one).touch()
        assert one.startswith(name if len(name) < 126 and name.isascii() else name[:40])


@pytest.mark.parametrize(("name", "told"), [
    ("a" * 200, "a" * 200 + "."), ("a" * 201, "a" * 50 + "."),
    ("\U0001f600" * 51, "\U0001f600" * 50 + "."),
])  # fmt: skip
def test_a_long_name_is_told_by_as_many_characters_as_fit_whatever_they_are(
    name: str, told: str
) -> None:
    assert kept_name(name)[:-8] == told


@pytest.mark.parametrize("can", [True, False])
def test_a_link_gets_its_second_name_itself_where_the_system_can(
    folders: tuple[Path, Path], can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else macOS would give it to what the link leads to.
    followed: list[bool] = []

    def link(_path: str, _to: str, *, follow_symlinks: bool = True) -> None:
        followed.append(follow_symlinks)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "supports_follow_symlinks", {link} if can else set())
    assert name_again(str(folders[0] / "a"), str(folders[1] / "b"))
    assert followed == [not can]


@pytest.mark.parametrize("call", ["link", "fsync", "unlink"])
def test_a_move_that_fails_before_the_old_name_goes_changes_nothing(
    folders: tuple[Path, Path], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = folders
    real = os.unlink

    def unlink(path: str) -> None:
        if path.startswith(str(old)):
            raise OSError(errno.EIO, "Input/output error")
        real(path)

    monkeypatch.setattr(os, call, unlink if call == "unlink" else failing(errno.EIO))
    with pytest.raises(StoreUnavailable):
        move(str(old), "a", str(new), "b")
    monkeypatch.undo()
    assert names(*folders) == [["a"], []]


def test_two_names_of_which_neither_goes_are_no_refusal(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "unlink", failing(errno.EIO))
    with pytest.raises(OutcomeUnknown):
        move(str(folders[0]), "a", str(folders[1]), "b")
    monkeypatch.undo()
    assert names(*folders) == [["a"], ["b"]]
