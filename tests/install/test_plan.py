from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from heddle_registry.errors import UsageError
from heddle_registry.install.change import apply
from heddle_registry.install.harness_files import HARNESS_FILES
from heddle_registry.install.plan import plan_harness

if TYPE_CHECKING:
    from pathlib import Path


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("is_project", [False, True])
@pytest.mark.parametrize("name", HARNESS_FILES)
def test_a_home_or_project_is_as_before_once_a_harness_was_wired_and_unwired(
    tmp_path: Path, name: str, *, is_project: bool
) -> None:
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    (home / ".claude").mkdir()

    def step(*, remove: bool = False) -> bool:
        plan = plan_harness(
            name,
            environ={},
            home=str(home),
            project_root=str(project) if is_project else None,
            remove=remove,
        )
        apply(plan.changes)
        return plan.is_change

    before = tree(tmp_path)
    assert not step(remove=True)
    assert step()
    wired = tree(tmp_path)
    assert tree(home if is_project else project) == ({".claude": None} if is_project else {})
    assert not step()
    assert tree(tmp_path) == wired
    assert step(remove=True)
    assert tree(tmp_path) == before


def test_settings_that_cannot_be_read_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / ".claude" / "settings.json"
    path.parent.mkdir()
    path.write_text('{"model": "x",\n\n oops')

    for remove in (False, True):
        with pytest.raises(UsageError, match="line 3") as raised:
            plan_harness("claude-code", environ={}, home=str(tmp_path), remove=remove)
        assert str(path) in raised.value.message
    assert path.read_text() == '{"model": "x",\n\n oops'


def test_what_the_harness_itself_still_asks_for_is_told(tmp_path: Path) -> None:
    codex = plan_harness("codex", environ={}, home=str(tmp_path))
    assert "/hooks" in codex.notes[0]
    project = plan_harness("gemini", environ={}, home=str(tmp_path), project_root=str(tmp_path))
    assert "do not commit" in project.notes[0]
    json.loads(project.changes[0].after or b"")


def test_a_registry_that_is_named_is_the_one_that_the_hooks_use(tmp_path: Path) -> None:
    for name in HARNESS_FILES:
        plan = plan_harness(name, environ={}, home=str(tmp_path), registry="/shared/it")
        assert b"/shared/it" in (plan.changes[0].after or b"")
        assert any("/shared/it" in note for note in plan.notes)
        apply(plan.changes)
        without = plan_harness(name, environ={}, home=str(tmp_path))
        assert b"/shared/it" not in (without.changes[0].after or b"")
        apply(plan_harness(name, environ={}, home=str(tmp_path), remove=True).changes)
    assert tree(tmp_path) == {}
