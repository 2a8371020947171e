"""The checkout's plugins as an installer would lay them out, found by their entry points."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def install_plugins(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every plugin of the checkout importable and known, in this process."""
    site.mkdir()
    for file in sorted(ROOT.glob("plugins/[!_]*/pyproject.toml")):
        project = tomllib.loads(file.read_text())["project"]
        points = project["entry-points"]["heddle_registry"]
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = [f"{name} = {target}\n" for name, target in points.items()]
        (info / "entry_points.txt").write_text("[heddle_registry]\n" + "".join(lines))
        monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("HEDDLE_REGISTRY_PLUGINS", raising=False)
