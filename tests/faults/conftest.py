"""Each test here runs against our registry, and must fail against the port of the original."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.sides import SIDES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.sides import Side


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "side" in metafunc.fixturenames:
        has_the_fault = pytest.mark.xfail(strict=True, raises=AssertionError)
        sides = ["ours", pytest.param("original", marks=has_the_fault)]
        metafunc.parametrize("side", sides, indirect=True)


@pytest.fixture
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Side:
    return SIDES[request.param](tmp_path / ".heddle")
