"""A damaged claim's file says what its unbroken lines say, and nothing makes it raise."""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.codec import claim_from_toml, claim_to_toml
from heddle_registry.codec.entries import MAX_FENCE
from heddle_registry.codec.salvage import remains_of_claim
from heddle_registry.core.claim import Claim, ClaimHolder, EndCause, PastHolder
from heddle_registry.core.evidence import LivenessFile, Owner
from heddle_registry.core.recovery import ClaimRemains
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.token import hash_token

AT = Timestamp("2026-07-01T12:00:00Z")
NOW = Instant(at=AT, awake_ns=5, boot_id="boot")


def past(session_id: str, fence: int) -> PastHolder:
    return PastHolder(
        session_id=session_id,
        fence=fence,
        token=hash_token(session_id, b"salt"),
        ended_at=AT,
        cause=EndCause.FORCED,
        by="agent-next",
        reason='said "so" # really',
    )


CLAIM = Claim(
    thread="feature/ünï [x]",
    fence=7,
    path="/tree",
    holder=ClaimHolder(
        session_id="agent-holder",
        token=hash_token("h", b"salt"),
        owner=Owner(pid=5, boot_id="boot", start_ticks=9, command="sleep"),
        liveness=LivenessFile(device=1, inode=2),
        ttl_s=60.0,
        granted_at=AT,
        renewed_at=NOW,
    ),
    past=(past("agent-b", 6), past("agent-a", 5)),
)
DATA = claim_to_toml(CLAIM)


def broken(old: str, new: str) -> ClaimRemains:
    text = DATA.decode()
    assert old in text
    return remains_of_claim(text.replace(old, new).encode())


def test_a_sound_file_is_told_wholly():
    found = remains_of_claim(DATA)
    assert claim_from_toml(DATA, "x") == CLAIM
    assert found == ClaimRemains(
        thread=CLAIM.thread,
        fence=7,
        highest_fence=7,
        path="/tree",
        holder=CLAIM.holder,
        is_holder_whole=True,
        past=CLAIM.past,
    )


def test_a_broken_line_costs_itself_and_the_table_that_needs_it():
    whole = remains_of_claim(DATA)
    assert broken("schema = 1", "schema = ") == whole
    assert broken('path = "/tree"', "path = /tree") == attrs.evolve(whole, path=None)
    assert broken("fence = 7", 'fence = "7"') == attrs.evolve(whole, fence=0, highest_fence=6)
    first, second = CLAIM.past
    found = broken("fence = 6", "fence = six")
    assert (found.past, found.holder, found.is_holder_whole) == ((second,), CLAIM.holder, True)
    found = broken("by = ", "by ")
    told = (attrs.evolve(first, by=""), attrs.evolve(second, by=""))
    assert (found.past, found.is_holder_whole) == (told, True)


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("pid = 5", "pid = -5", {"owner": None}),
        ("device = 1", "device", {"liveness": None}),
        ("device = 1\ninode = 2\n", "", {"liveness": None}),
        ("ttl_s = 60", "ttl_s = 6O", {"ttl_s": None}),
        ("command = ", "command ", {"owner": attrs.evolve(CLAIM.holder.owner, command="")}),
    ],
)
def test_a_holder_that_is_not_whole_is_told_as_far_as_it_goes(old, new, kept):
    found = broken(old, new)
    assert found.holder == attrs.evolve(CLAIM.holder, **kept)
    if old != "pid = 5":  # a wrong number is no broken line
        assert not found.is_holder_whole


def test_a_table_that_no_program_knows_says_nothing_of_the_holder():
    found = remains_of_claim(DATA + b'[holder.newer]\nsession_id = "agent-other"\n')
    assert found.holder == CLAIM.holder
    assert not found.is_holder_whole, "a newer program may mean something by it"


def test_fences_are_remembered_up_to_the_highest_that_there_can_be():
    assert broken("fence = 7", f"fence = {MAX_FENCE}").highest_fence == MAX_FENCE
    assert broken("fence = 7", f"fence = {MAX_FENCE + 1}").highest_fence == 6
    assert remains_of_claim(b"").highest_fence == 0


@pytest.mark.parametrize("old", ['session_id = "agent-holder"', "[holder.renewed]", "awake_ns = 5"])
def test_a_holder_without_what_makes_it_one_is_none(old):
    found = broken(old, "[?")
    assert found.holder is None
    assert not found.is_holder_whole
    assert found.past == CLAIM.past


def test_a_past_holder_keeps_its_story_where_only_its_token_is_broken():
    text = DATA.decode()
    at = text.rindex("salt = ")
    found = remains_of_claim((text[:at] + "salt # " + text[at + 7 :]).encode())
    assert found.past == (CLAIM.past[0], attrs.evolve(CLAIM.past[1], token=None))


@given(st.binary(max_size=300))
def test_no_bytes_at_all_make_it_raise(data: bytes):
    remains_of_claim(data)


def test_no_torn_or_mangled_file_makes_it_raise_or_tell_of_anybody_else():
    known = {"agent-holder", "agent-a", "agent-b"}
    chance = random.Random(5)
    for cut in range(0, len(DATA), 7):
        lines = DATA.splitlines(keepends=True)
        chance.shuffle(lines)
        mangled = bytearray(DATA)
        mangled[cut] = chance.randrange(256)
        for data in (DATA[:cut], DATA[cut:], bytes(mangled), b"".join(lines)):
            remains_of_claim(data)
        torn = remains_of_claim(DATA[:cut])
        named = {told.session_id for told in torn.past}
        named |= {torn.holder.session_id} if torn.holder is not None else set()
        assert named <= known
