"""Bytes to entries and claims and back; a config file to `Settings` (``codec.config``).

Pure: no file is opened here. ``tomli`` is imported at the first read, ``cattrs`` by the config
file alone.
"""

from __future__ import annotations

from heddle_registry.codec.claims import (
    claim_from_toml,
    claim_to_toml,
    is_claim_from_newer_schema,
)
from heddle_registry.codec.entries import (
    entry_from_toml,
    entry_to_toml,
    is_from_newer_schema,
)
from heddle_registry.codec.records import is_not_toml

__all__ = [
    "claim_from_toml",
    "claim_to_toml",
    "entry_from_toml",
    "entry_to_toml",
    "is_claim_from_newer_schema",
    "is_from_newer_schema",
    "is_not_toml",
]
