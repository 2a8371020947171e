"""What a reading of usage answers: a row for each actor, priced where a price is known."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

import attrs

from heddle_registry.core.record import Record
from heddle_registry.core.usage import UsageTotals, sum_totals, totals_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from heddle_registry.adapters.transcripts import SourceFault
    from heddle_registry.adapters.usage_rows import ActorGroups
    from heddle_registry.core.usage import UsageGroup


class Prices(Protocol):
    """What a price adapter answers; `prices.GenaiPrices` is the one we ship."""

    def estimate(self, harness: str, group: UsageGroup) -> int | None:
        """Return the cost of a group in millionths of a US dollar; None where it is unknown."""
        ...


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UsageRow(Record):
    """One actor's own usage (never its children's)."""

    actor: str
    """The native key, ``harness:kind:id``; ``harness:path:…`` where the transcript names nobody."""
    harness: str
    parent: str | None
    """The native key of the parent, where a transcript tells."""
    sources: tuple[str, ...]
    totals: UsageTotals
    by_model: Mapping[str | None, UsageTotals]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UsageReport(Record):
    """What `read_usage` found. ``faults`` names the sources that could not be read in full."""

    rows: tuple[UsageRow, ...]
    faults: tuple[SourceFault, ...]
    totals: UsageTotals

    def parents(self) -> dict[str, str | None]:
        """Return each row's parent, as `core.usage.roll_up` wants it."""
        return {row.actor: row.parent for row in self.rows}


def rows_of(
    found: Iterable[ActorGroups], numbers: Mapping[int, str], prices: Prices | None
) -> tuple[UsageRow, ...]:
    """Return the rows of actors, by their keys; ``numbers`` are the sources' paths."""
    rows = []
    for key, harness, parent, held_by, groups in found:
        by_model: dict[str | None, UsageTotals] = {}
        for group in groups:
            estimate, model = None, group.model
            if prices is not None and not group.costed:
                estimate = prices.estimate(harness, group)
            totals = totals_of(group, estimate)
            by_model[model] = by_model[model] + totals if model in by_model else totals
        rows.append(
            UsageRow(
                actor=key,
                harness=harness,
                parent=parent,
                sources=tuple(sorted(map(numbers.__getitem__, held_by))),
                totals=sum_totals(by_model.values()),
                by_model=by_model,
            )
        )
    return tuple(sorted(rows, key=attrgetter("actor")))
