"""For every test: Hypothesis measures no time, as nothing here is asserted about it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
