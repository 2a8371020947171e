from __future__ import annotations

from tests.cli.conftest import heddle

__all__ = ["heddle"]
