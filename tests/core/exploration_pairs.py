"""Two branches together, step by step: the product that `Walk` need not enumerate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.core.exploration_checks import Broken
from tests.core.exploration_records import kind_of
from tests.core.exploration_shapes import (
    EMPTY,
    Beside,
    Branch,
    dies,
    relabel,
    seen_from_beside,
    share_a_folder,
    signature,
    ttl_passes,
    week_passes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heddle_registry.core.claim import ClaimState
    from tests.core.exploration_steps import Steps


def swap_folders(branch: Branch) -> Branch:
    claim = branch.claim
    if claim is None or not claim.path:
        return branch
    return branch._replace(claim=claim._replace(path=3 - claim.path))


class PairWalk:
    """Two branches and two folders together, step by step, every agent on both of them."""

    def __init__(self, steps: Steps, *, most_states: int | None = None) -> None:
        self.steps = steps
        self.most_states = most_states
        self.numbers: dict[Branch, int] = {}
        self.came_from: dict[tuple[Branch, Branch], tuple | None] = {}
        self.transitions = 0
        self.depth = 0
        self.is_complete = True
        self._known: dict[tuple[Branch, Beside | None], list[tuple[str, Branch]]] = {}
        self._alike: dict[tuple[ClaimState, bool, int], Beside] = {}

    @property
    def states(self) -> int:
        return len(self.came_from)

    def run(self) -> PairWalk:
        """Explore.

        :raises Broken: with the shortest path to the broken promise.
        """
        start = (EMPTY, EMPTY)
        self.came_from[start] = None
        layer = [start]
        while layer:
            if self.most_states is not None and self.states > self.most_states:
                self.is_complete = False
                break
            following = []
            for pair in layer:
                for label, reached in self._steps(pair):
                    self.transitions += 1
                    after = self.canonical(reached)
                    if after not in self.came_from:
                        self.came_from[after] = (pair, label)
                        self._check(after)
                        following.append(after)
            layer = following
            self.depth += 1
        return self

    def canonical(self, pair: tuple[Branch, Branch]) -> tuple[Branch, Branch]:
        """Return the one that stands for all that differ by names of agents, folders, branches."""
        best: tuple[tuple[int, int], tuple[Branch, Branch]] | None = None
        one, two = pair
        variants = [(one, two), (two, one)]
        if any(b.claim is not None and b.claim.path for b in pair):
            swapped = swap_folders(one), swap_folders(two)
            variants += [swapped, swapped[::-1]]
        for first, second in variants:
            left, right = first, second
            order = sorted(
                range(self.steps.agents),
                key=lambda agent: (signature(left, agent), signature(right, agent)),
                reverse=True,
            )
            names = {agent: place for place, agent in enumerate(order) if agent != place}
            if names:
                left, right = relabel(left, names), relabel(right, names)
            rank = (
                self.numbers.setdefault(left, len(self.numbers)),
                self.numbers.setdefault(right, len(self.numbers)),
            )
            if best is None or rank < best[0]:
                best = rank, (left, right)
        return best[1]

    def _steps(self, pair: tuple[Branch, Branch]) -> Iterator:
        one, two = pair
        for label, shape in self._local(pair, one, seen_from_beside(two)):
            yield f"first: {label}", (shape, two)
        for label, shape in self._local(pair, two, seen_from_beside(one)):
            yield f"second: {label}", (one, shape)
        for agent in range(self.steps.agents):
            yield f"agent {agent} dies", (dies(one, agent), dies(two, agent))
        yield "a TTL passes", (ttl_passes(one), ttl_passes(two))
        yield "a week passes", (week_passes(one), week_passes(two))

    def _local(self, pair, branch: Branch, beside: Beside | None) -> list[tuple[str, Branch]]:
        if beside is not None:
            beside = self._alike.setdefault(kind_of(beside), beside)
        found = self._known.get((branch, beside))
        if found is None:
            agents = range(self.steps.agents)
            try:
                found = list(self.steps.of(branch, beside, agents))
            except Broken as broken:
                raise Broken(self._tale(str(broken), pair)) from None
            self._known[branch, beside] = found
        return found

    def _check(self, pair: tuple[Branch, Branch]) -> None:
        one, two = pair
        beside = seen_from_beside(two)
        if beside is not None and share_a_folder(one, beside):
            raise Broken(self._tale("two agents may write to one folder", pair))

    def _tale(self, broken: str, pair: tuple[Branch, Branch]) -> str:
        told: list[str] = []
        at = pair
        while (before := self.came_from[at]) is not None:
            at, label = before
            told.append(label)
        lines = "\n".join(f"  {n}. {label}" for n, label in enumerate(told[::-1], start=1))
        return f"{broken}\n{lines}\n  in {pair}"
