"""Lets the tests of real totals import the plugins from the checkout, installed or not."""

import sys
from pathlib import Path

for project in Path(__file__).parents[2].glob("plugins/*/pyproject.toml"):
    sys.path.append(str(project.parent))
