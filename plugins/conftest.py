# noqa: INP001
"""Lets the plugins' tests import them from the checkout, installed or not."""

import sys
from pathlib import Path

for project in Path(__file__).parent.glob("*/pyproject.toml"):
    sys.path.append(str(project.parent))
