"""Sixteen processes at one branch: one winner a round, and every loser is told who."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry import AgentRegistry
from tests.process_helpers import python

if TYPE_CHECKING:
    from pathlib import Path

RACERS = 16
ROUNDS = 200

# Half reserve with the API's block and hold it, half as one-shot scripts do. Each round begins
# with a line of input and ends with a line of output; the winner gives the branch back when told.
RACER = """if True:
    import json, sys
    from heddle_registry import AgentRegistry, Held, Reserved
    from heddle_registry.registry.attempt import Terms
    from heddle_registry.registry.scripting import try_reserve
    heddle_dir, kind = sys.argv[1:]
    registry = AgentRegistry(heddle_dir, lock_timeout_s=60)
    print("ready", flush=True)
    def holder_of(entry):
        return None if entry is None else entry.session_id
    for line in sys.stdin:
        command = line.split()
        if command[0] == "race" and kind == "block":
            block = registry.reserve(command[1])
            try:
                claim = block.__enter__()
                claim.check()
                said = ["won", claim.session_id, claim.fence]
                give_back = lambda: block.__exit__(None, None, None)
            except Held as held:
                said = ["lost", holder_of(held.holder), None]
        elif command[0] == "race":
            terms = Terms(ttl_s=300.0) if kind == "ttl" else (
                Terms(owner=registry.owner_for(registry.host.own_pid())))
            outcome = try_reserve(registry, command[1], terms=terms)
            if isinstance(outcome, Reserved):
                said = ["won", outcome.entry.session_id, outcome.fence]
                give_back = lambda: registry.release(outcome.entry.session_id, token=outcome.token)
            else:
                said = ["lost", holder_of(outcome.entry), None]
        else:
            give_back()
            said = ["given back"]
        print(json.dumps(said), flush=True)
    """
KINDS = ("block", "ttl", "block", "owner")


@pytest.mark.skipif(sys.platform == "win32", reason="sixteen processes by fork and flock")
def test_of_sixteen_processes_one_gets_the_branch_and_the_others_are_told_who(
    tmp_path: Path,
) -> None:
    heddle_dir = tmp_path / ".heddle"
    registry = AgentRegistry(heddle_dir)
    with ExitStack() as stack:
        racers = [
            stack.enter_context(python(RACER, heddle_dir, KINDS[number % len(KINDS)]))
            for number in range(RACERS)
        ]
        for racer in racers:
            assert racer.line(60) == "ready"
        fence = 0
        wins = [0] * RACERS
        for _ in range(ROUNDS):
            for racer in racers:
                racer.tell("race main")
            said: list[list[Any]] = [json.loads(racer.line(60)) for racer in racers]
            winners = [number for number, words in enumerate(said) if words[0] == "won"]
            assert len(winners) == 1, said
            winner = winners[0]
            session_id, its_fence = said[winner][1:]
            assert its_fence == fence + 1
            fence = its_fence
            wins[winner] += 1
            assert {words[1] for words in said if words[0] == "lost"} == {session_id}
            assert registry.check("main", fence).valid
            racers[winner].tell("give back")
            assert json.loads(racers[winner].line(60)) == ["given back"]
        assert fence == ROUNDS
        assert sum(1 for count in wins if count) > 1
    assert [entry for entry in registry.list() if entry.is_active] == []
    assert registry.look().problems == ()
