from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from heddle_registry.errors import RecordCorrupt
from heddle_registry.git_guard import refusal
from tests.registry.world import World

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World("directory", tmp_path)


def test_a_held_branch_is_refused_in_the_words_of_why_to_all_but_its_bearer(world: World) -> None:
    pid = world.host.spawn(["builder"])
    held = world.reserve("main", pid=pid)

    said = refusal(world.registry, "main", None)
    assert said is not None
    for part in ("'main' is held", held.entry.session_id, f"process {pid}", "It frees when"):
        assert part in said
    for token in ("", "x", held.entry.session_id):
        assert refusal(world.registry, "main", token) is not None
    assert refusal(world.registry, "main", held.token) is None
    assert refusal(world.registry, "other", None) is None


def test_an_expired_claim_keeps_nobody_away_and_its_bearer_neither(world: World) -> None:
    held = world.on_terms("main", ttl_s=60)
    assert refusal(world.registry, "main", None) is not None

    world.host.advance(61)

    assert refusal(world.registry, "main", None) is None
    assert refusal(world.registry, "main", held.token) is None


def test_a_dead_holder_keeps_nobody_away(world: World) -> None:
    pid = world.host.spawn(["builder"])
    world.reserve("main", pid=pid)

    world.host.kill(pid)

    assert refusal(world.registry, "main", None) is None


def test_the_token_of_a_claim_that_was_taken_bears_nothing(world: World) -> None:
    old = world.on_terms("main", ttl_s=60)
    new = world.on_terms("main", ttl_s=60, force_reason="I say so")

    assert refusal(world.registry, "main", old.token) is not None
    assert refusal(world.registry, "main", new.token) is None


def test_whoever_is_merely_present_keeps_nobody_away(world: World) -> None:
    world.present("agent-here", "main", pid=world.host.spawn(["agent"]))

    assert refusal(world.registry, "main", None) is None


def test_a_lost_claim_keeps_everybody_away_while_its_holder_may_write(world: World) -> None:
    held = world.on_terms("main", ttl_s=60)
    (world.folder / "agents" / f"{held.entry.session_id}.toml").unlink()

    for token in (None, held.token):
        said = refusal(world.registry, "main", token)
        assert said is not None
        assert "'main' is blocked" in said
    world.host.advance(61)
    assert refusal(world.registry, "main", None) is None


def test_a_name_too_long_to_be_claimed_is_free(world: World) -> None:
    assert refusal(world.registry, "x" * 2000, None) is None


def test_a_claim_that_cannot_be_read_is_an_error_of_that_branch_alone(world: World) -> None:
    world.on_terms("main", ttl_s=60)
    (path,) = (world.folder / "claims").glob("*.toml")
    path.write_text("no toml")
    world.on_terms("other", ttl_s=60)

    with pytest.raises(RecordCorrupt):
        refusal(world.registry, "main", None)
    assert refusal(world.registry, "other", None) is not None
