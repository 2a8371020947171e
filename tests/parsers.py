"""The parsers of transcripts, as on other machines."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters import transcripts
from heddle_registry.adapters.json_parser import standard_parser

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_msgspec() -> Iterator[None]:
    """As where the extra ``fast`` is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transcripts, "decoder_of", lambda _shape: None)
        patch.setattr(transcripts, "json_parser", standard_parser)
        yield
