from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.registry.world import World

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["memory", "directory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(request.param, tmp_path)
