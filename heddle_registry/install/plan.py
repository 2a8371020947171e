"""What ``install HARNESS`` would do to which file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.record import Record
from heddle_registry.errors import UsageError
from heddle_registry.install.change import FileChange, missing_folders, read_settings
from heddle_registry.install.harness_files import harness_file, settings_path, unwire, wire
from heddle_registry.install.hook_files import UnfitSettings

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Plan(Record):
    """Changes to files, in the order in which they are made, and what to tell the user."""

    target: str
    """The harness, or ``git``."""
    changes: tuple[FileChange, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_change(self) -> bool:
        """Whether anything happens."""
        return any(change.is_change for change in self.changes)

    def diff(self) -> str:
        """Return all changes as one unified diff."""
        return "".join(change.diff() for change in self.changes)


def plan_harness(
    name: str,
    *,
    environ: Mapping[str, str],
    home: str,
    project_root: str | None = None,
    registry: str | None = None,
    remove: bool = False,
) -> Plan:
    """Return what wires the harness ``name``, or takes it out again. Changes nothing.

    :param project_root: change the settings of this worktree instead of the user's
    :param registry: the folder that the hooks use, wherever a session works; else its own
    :raises UsageError: nobody knows the harness, it has no hooks, or its settings are no such file.
    :raises StoreUnavailable: its settings cannot be read.
    """
    spec = harness_file(name)
    path = settings_path(spec, environ, home, project_root)
    before = read_settings(path)
    after, folders, mode = before, 0, 0o600
    try:
        if not remove:
            after = wire(spec, before, missing_folders(path), registry)
        elif before is not None:
            after, folders = unwire(spec, before)
    except UnfitSettings as error:
        raise UsageError(f"{path} was left as it is: {error}", "Mend or move it first") from None
    notes = [spec.note] if spec.note and not remove else []
    if registry and project_root is None and not remove:
        notes.append(f"sessions of every repository will be registered in {registry}")
    if project_root is not None and not remove:
        mode = 0o644
        if not path.endswith(".local.json"):
            notes.append(
                f"{os.path.relpath(path, project_root)} names this machine's Python: "
                "do not commit it for others"
            )
    change = FileChange(path=path, before=before, after=after, mode=mode, remove_folders=folders)
    return Plan(target=spec.name, changes=(change,), notes=tuple(notes))
