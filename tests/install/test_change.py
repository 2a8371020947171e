from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from heddle_registry.errors import StoreUnavailable, UsageError
from heddle_registry.install.change import FileChange, apply, missing_folders, read_settings
from tests.process_helpers import needs_other_user

if TYPE_CHECKING:
    from pathlib import Path


def changed(path: Path, before: bytes | None, after: bytes | None, **fields: int) -> FileChange:
    change = FileChange(path=str(path), before=before, after=after, **fields)
    apply([change])
    return change


def test_a_file_keeps_its_mode_and_nothing_else_is_left_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b"old")
    path.chmod(0o640)

    changed(path, b"old", b"new")

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["settings.json"]


def test_a_link_stays_a_link_and_its_target_changes(tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "settings.json"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link = tmp_path / "settings.json"
    link.symlink_to(target)

    changed(link, b"old", b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"

    changed(link, b"new", None)
    assert link.is_symlink()
    assert not target.exists()
    assert missing_folders(str(link)) == 0


def test_folders_that_were_made_go_with_the_file_unless_something_is_in_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a" / "b" / "hooks.json"
    assert missing_folders(str(path)) == 2
    changed(path, None, b"new")
    changed(path, b"new", None, remove_folders=2)
    assert os.listdir(tmp_path) == []

    changed(path, None, b"new")
    (tmp_path / "a" / "mine").touch()
    changed(path, b"new", None, remove_folders=2)
    assert os.listdir(tmp_path / "a") == ["mine"]


def test_a_file_that_somebody_changed_since_it_was_read_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b"theirs")

    with pytest.raises(UsageError, match="changed meanwhile"):
        changed(path, b"old", b"new")
    with pytest.raises(UsageError, match="changed meanwhile"):
        changed(path, None, b"new")

    assert path.read_bytes() == b"theirs"


def test_a_move_never_covers_anything(tmp_path: Path) -> None:
    for name in ("from", "to"):
        (tmp_path / name).write_text(name)
    move = FileChange(
        path=str(tmp_path / "to"), before=b"", after=b"", moved_from=str(tmp_path / "from")
    )

    with pytest.raises(UsageError, match="in the way"):
        apply([move])
    assert (tmp_path / "to").read_text() == "to"
    assert "rename from" in move.diff()


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert read_settings(str(tmp_path / "nothing")) is None
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(UsageError):
            read_settings(str(path))
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        read_settings(str(tmp_path / "file" / "below"))


@needs_other_user
def test_a_file_of_another_user_stays_his(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b"old")
    os.chown(path, 65534, 65534)

    changed(path, b"old", b"new")

    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_the_diff_shows_what_comes_and_goes_and_a_missing_last_line_break(tmp_path: Path) -> None:
    change = FileChange(path=str(tmp_path / "f"), before=b"a\nb", after=b"a\nc\n")

    assert change.diff().splitlines()[2:] == [
        "@@ -1,2 +1,2 @@",
        " a",
        "-b",
        "\\ No newline at end of file",
        "+c",
    ]
    assert "/dev/null" in FileChange(path="x", before=None, after=b"new\n").diff()
    assert FileChange(path="x", before=b"same", after=b"same").diff() == ""
