"""Tables that stand both in an entry and in a claim."""

from __future__ import annotations

from typing import Final

from heddle_registry.codec.tables import I64_MAX, U32_MAX, U64_MAX, Table, integer, text
from heddle_registry.core.evidence import Owner
from heddle_registry.core.token import TokenHash

FENCE: Final = I64_MAX
"""The greatest fence: TOML promises integers of 64 bits with a sign and no more."""

OWNER: Final = Table(
    Owner,
    integer("pid", 0, U32_MAX, required=True),
    text("boot_id", omit=""),
    text("host", omit=""),
    text("pid_ns", omit=""),
    text("time_ns", omit=""),
    integer("start_ticks", 0, U64_MAX),
    text("command", omit=""),
)

TOKEN: Final = Table(TokenHash, text("salt", required=True), text("digest", required=True))
