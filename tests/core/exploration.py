"""Walk every reachable state of the pure core, and say by which shortest path a promise breaks.

The model keeps no rules of its own: every step runs the real ``decide_*`` functions over records
that `select` picks, and applies their effects one at a time, so that a crash may fall between any
two. A state is the *shape* of one branch: its claim, the holder, and the Active entries beside it.
What a decision cannot tell apart has one shape:

* A time is "still running" or "over" (a TTL), "kept" or "stale" (an ended entry). So bounded
  time, and any longer one, is three steps: a TTL passes, a week passes, or nothing.
* A fence is below, equal to or above the claim's. Its growth is checked at every write.
* A process that died is just dead; its agent's number goes on as a new process (resume).
* Ended entries that no claim names are read by no decision and are dropped.
* Agents differ only by what stands on the branch, so sorting them is the whole symmetry.

Beside the records the model remembers what no record says: who *believes* that it may write. A
living agent believes from the moment it was granted or renewed until it is told otherwise, gives
the claim up, its TTL passes, or somebody takes the branch on purpose (force, the doors that ask
for no token). This is the oracle: no step may ever leave two believers on a branch or a folder.

`Walk` explores one branch, with another one beside it that may be in any reachable shape; that
covers every pair of branches whatever their order (see ``docs/explanation/state-machine.md``).
`exploration_pairs.PairWalk` explores the product itself.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tests.core.exploration_checks import Broken, probe
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

CI_WALK = {"agents": 3, "modes": ("owner", "ttl"), "max_beside": 1}
NIGHTLY_WALK = {"agents": 3, "max_beside": 2}
CI_PAIRS = {"agents": 3, "paths": (1, 2), "modes": ("owner",), "max_orphans": 0, "max_beside": 0}
NIGHTLY_PAIRS = {
    "agents": 3,
    "paths": (0, 1, 2),
    "modes": ("owner", "ttl"),
    "max_orphans": 0,
    "max_beside": 0,
}


class Walk:
    """One branch to the end, beside another branch in any reachable shape.

    ``states`` counts shapes, ``transitions`` the steps between them.
    """

    def __init__(self, steps: Steps, *, all_neighbours: bool = False) -> None:
        self.steps = steps
        self.came_from: dict[Branch, tuple[Branch, str] | None] = {}
        self.all_neighbours = all_neighbours
        self.kinds: set[tuple[ClaimState, bool, int]] = set()
        self.beside: dict[Beside, Branch] = {}
        self.transitions = 0
        self.crashes = 0

    def sorted(self, branch: Branch) -> Branch:
        order = sorted(
            range(self.steps.agents), key=lambda agent: signature(branch, agent), reverse=True
        )
        names = {agent: place for place, agent in enumerate(order) if agent != place}
        return relabel(branch, names) if names else branch

    def actors(self, branch: Branch) -> list[int]:
        """Return the agents, but of those without any part in the branch one only."""
        found, fresh = [], False
        nothing = (False, False, False, (), False)
        for agent in range(self.steps.agents):
            is_fresh = signature(branch, agent) == nothing
            if not (is_fresh and fresh):
                found.append(agent)
            fresh = fresh or is_fresh
        return found

    def run(self) -> Walk:
        """Explore.

        :raises Broken: with the shortest path to the broken promise.
        """
        self._met(EMPTY, None, "")
        queue = deque([EMPTY])
        done: list[Branch] = []
        crossed: dict[Branch, int] = {}
        while queue:
            while queue:
                branch = queue.popleft()
                done.append(branch)
                queue.extend(self._expand(branch, None))
            neighbours = list(self.beside.items())
            for branch in done:
                for beside, _ in neighbours[crossed.get(branch, 0) :]:
                    if not share_a_folder(branch, beside):
                        queue.extend(self._expand(branch, beside))
                crossed[branch] = len(neighbours)
            if not queue and len(self.beside) > len(neighbours):
                continue
        return self

    @property
    def states(self) -> int:
        return len(self.came_from)

    def path_to(self, branch: Branch) -> list[str]:
        told: list[str] = []
        while (before := self.came_from[branch]) is not None:
            branch, label = before
            told.append(label)
        return told[::-1]

    def _met(self, shape: Branch, before: Branch | None, label: str) -> bool:
        if shape in self.came_from:
            return False
        self.came_from[shape] = None if before is None else (before, label)
        try:
            probe(self.steps.decide, shape)
        except Broken as broken:
            raise Broken(self._tale(str(broken), self.path_to(shape), shape)) from None
        seen = seen_from_beside(shape)
        if seen is not None:
            kind = kind_of(seen)
            if self.all_neighbours or kind not in self.kinds:
                self.kinds.add(kind)
                self.beside.setdefault(seen, shape)
        return True

    def _expand(self, branch: Branch, beside: Beside | None) -> Iterator[Branch]:
        steps = self._all_steps(branch, beside)
        while True:
            try:
                label, shape = next(steps)
            except StopIteration:
                return
            except Broken as broken:
                path = [*self.path_to(branch), "then: the step that breaks it"]
                if beside is not None:
                    there = self.path_to(self.beside[beside])
                    path = [*(f"beside: {label}" for label in there), *path]
                raise Broken(self._tale(str(broken), path, branch)) from None
            self.transitions += 1
            self.crashes += "crash" in label
            shape = self.sorted(shape)
            if self._met(shape, branch, label):
                yield shape

    def _all_steps(self, branch: Branch, beside: Beside | None) -> Iterator:
        actors = self.actors(branch)
        yield from self.steps.of(branch, beside, actors, crossing=beside is not None)
        if beside is not None:
            return
        for agent in actors:
            if (shape := dies(branch, agent)) != branch:
                yield f"agent {agent} dies", shape
        if (shape := ttl_passes(branch)) != branch:
            yield "a TTL passes", shape
        if (shape := week_passes(branch)) != branch:
            yield "a week passes", shape

    def _tale(self, broken: str, path: list[str], shape: Branch) -> str:
        told = "\n".join(f"  {at}. {label}" for at, label in enumerate(path, start=1))
        return f"{broken}\n{told}\n  in {shape}"
