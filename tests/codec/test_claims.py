from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from heddle_registry.codec import claim_from_toml, claim_to_toml, is_claim_from_newer_schema
from heddle_registry.core.claim import Claim, ClaimHolder, EndCause, PastHolder
from heddle_registry.core.evidence import LivenessFile, Owner
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.token import TokenHash
from heddle_registry.errors import RecordCorrupt, StoreUnavailable
from tests.codec.strategies import claims

AT = Timestamp("2026-07-01T12:00:00Z")
CLAIM = Claim(
    thread='feature/"x"',
    fence=7,
    path="/work/x",
    holder=ClaimHolder(
        session_id="agent-a",
        token=TokenHash(salt="00", digest="11"),
        owner=Owner(pid=42, boot_id="b", start_ticks=2**64 - 1, command="claude"),
        liveness=LivenessFile(device=2**64 - 1, inode=9),
        ttl_s=300.0,
        granted_at=AT,
        renewed_at=Instant(at=AT, awake_ns=5, boot_id="b"),
    ),
    past=(
        PastHolder(
            session_id="agent-b",
            fence=6,
            token=TokenHash(salt="22", digest="33"),
            ended_at=AT,
            cause=EndCause.HANDED_OVER,
            by="agent-a",
        ),
        PastHolder(session_id="agent-c", fence=5, ended_at=AT, cause=EndCause.DEAD),
    ),
)
TEXT = """\
schema = 1
thread = 'feature/"x"'
fence = 7
path = "/work/x"

[holder]
session_id = "agent-a"
granted_at = "2026-07-01T12:00:00Z"
ttl_s = 300

[holder.owner]
pid = 42
boot_id = "b"
start_ticks = 18446744073709551615
command = "claude"

[holder.liveness]
device = 18446744073709551615
inode = 9

[holder.token]
salt = "00"
digest = "11"

[holder.renewed]
at = "2026-07-01T12:00:00Z"
awake_ns = 5
boot_id = "b"

[[past]]
session_id = "agent-b"
fence = 6
ended_at = "2026-07-01T12:00:00Z"
cause = "handed over"
by = "agent-a"

[past.token]
salt = "22"
digest = "33"

[[past]]
session_id = "agent-c"
fence = 5
ended_at = "2026-07-01T12:00:00Z"
cause = "dead"
"""


def test_a_claim_file_can_be_read_by_people():
    assert claim_to_toml(CLAIM).decode() == TEXT
    assert claim_from_toml(TEXT.encode(), "x") == CLAIM


def test_a_free_claim_keeps_its_fence_in_three_lines():
    assert claim_to_toml(Claim(thread="t", fence=3)) == b'schema = 1\nthread = "t"\nfence = 3\n'


@given(claims)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_claim_with_any_unknown_keys_reads_back_equal(claim):
    data = claim_to_toml(claim)
    assert claim_from_toml(data, "x") == claim
    assert claim_to_toml(claim_from_toml(data, "x")) == data


def test_every_problem_of_a_claim_is_listed_with_its_key():
    with pytest.raises(RecordCorrupt) as caught:
        claim_from_toml(
            b'thread = "t"\nfence = -1\npast = [{cause = "bored"}]\n[holder]\nttl_s = nan\n', "c"
        )
    assert set(caught.value.problems) == {
        "schema: missing",
        "fence: must be an integer from 0 to 9223372036854775807, not -1",
        "holder.ttl_s: must be a number of seconds, not nan",
        "holder.session_id: missing",
        "holder.granted_at: missing",
        "holder.renewed: missing",
        (
            "past[0].cause: must be one of released, dead, expired, handed over, forced, lost,"
            " deleted, not 'bored'"
        ),
        "past[0].session_id: missing",
        "past[0].fence: missing",
        "past[0].ended_at: missing",
    }


def test_a_newer_claim_is_read_where_it_can_be_and_else_unavailable():
    newer = claim_from_toml(b'schema = 2\nthread = "t"\nfence = 3\nshared = true\n', "c")
    assert is_claim_from_newer_schema(newer)
    assert not is_claim_from_newer_schema(CLAIM)
    with pytest.raises(StoreUnavailable, match="schema 2"):
        claim_from_toml(b'schema = 2\nthread = "t"\nfence = "3.1"\n', "c")
