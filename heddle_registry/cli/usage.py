"""``usage``: what agents cost, by session, branch, harness, model, or along the tree."""

from __future__ import annotations

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from heddle_registry.core.spending import ActorSpending, Spending
    from heddle_registry.core.usage import UsageTotals
    from heddle_registry.plugins import Plugins
    from heddle_registry.spending import Account

GROUPINGS = ("entry", "thread", "harness", "model", "tree")
_BUCKETS = (
    "input_tokens",
    "cache_creation_tokens",
    "cache_read_tokens",
    "output_tokens",
    "reasoning_tokens",
    "tool_calls",
    "requests",
    "cost_micros_usd",
    "known_cost_micros_usd",
    "estimated_cost_micros_usd",
    "unpriced_requests",
    "cost_source",
    "lower_bound",
)
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_LOCK_TIMEOUT_S = 2.0
_LEAST_SOURCE_WORDS = 2
_NO_PLUGIN = "none; each has a plugin of its own, e.g. `pip install heddle-registry-claude-code`"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument(
        "--by",
        metavar="BY",
        choices=GROUPINGS,
        default="entry",
        help=f"what to add up by: {', '.join(GROUPINGS)} (default: entry, everybody for itself)",
    )
    parser.add_argument(
        "--since",
        metavar="WHEN",
        type=since_s,
        help="only what was used since then: a time, a date, or how long ago (90m, 24h, 7d)",
    )
    parser.add_argument(
        "--source",
        metavar="HARNESS PATH",
        nargs="+",
        action="append",
        help="read these transcripts or folders of a harness, and no registry; may be repeated",
    )


def since_s(word: str) -> float:
    """Read an instant as seconds since the epoch.

    RFC 3339, a date (its beginning, here), a time without zone (here), or how long ago it is.
    """
    import math
    import time
    from datetime import datetime

    unit = _UNITS_S.get(word[-1:])
    try:
        if unit is not None:
            ago_s = float(word[:-1]) * unit
            if math.isfinite(ago_s) and ago_s >= 0:
                return time.time() - ago_s
        else:
            return datetime.fromisoformat(word).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    raise argparse.ArgumentTypeError(
        f"{word[:60]!a} is no time: 2026-07-01T12:00:00Z, 2026-07-01, 90m, 24h, 7d"
    )


def run(args: argparse.Namespace) -> int:
    """Tell and return 0: transcripts that cannot be read are reported, and are no failure."""
    from heddle_registry.cli.progress import Progress, reading_transcripts

    progress = Progress(reading_transcripts)
    try:
        if args.source is not None:
            account = _of_sources(args, progress)
        else:
            account = _of_registry(args, progress)
    finally:
        progress.close()
    if args.json:
        _print_json(args.by, account)
    else:
        from heddle_registry.cli.usage_table import print_account

        print_account(args.by, account)
    return 0


def _of_registry(args: argparse.Namespace, progress: Any) -> Account:
    from heddle_registry.cli.context import find_folder, open_registry
    from heddle_registry.settings import load_settings
    from heddle_registry.spending import fill_running, local_prices, spending_of_registry
    from heddle_registry.surroundings import plugins_here

    if args.lock_timeout is None:
        # The answer needs no lock; what it writes into running entries is not worth a long wait.
        args.lock_timeout = _LOCK_TIMEOUT_S
    registry = open_registry(args)
    plugins = plugins_here(registry.host, load_settings(find_folder(args)))
    account = spending_of_registry(
        registry, plugins, since_s=args.since, progress=progress, prices=local_prices()
    )
    if args.since is None:
        fill_running(registry, account)
    return account


def _of_sources(args: argparse.Namespace, progress: Any) -> Account:
    import os

    from heddle_registry.cache_folder import cache_folder
    from heddle_registry.errors import UsageError
    from heddle_registry.opening import local_host
    from heddle_registry.spending import local_prices, spending_of_sources
    from heddle_registry.surroundings import plugins_here

    host = local_host()
    plugins = plugins_here(host)
    named = []
    for words in args.source:
        if len(words) < _LEAST_SOURCE_WORDS:
            raise UsageError(
                f"--source {words[0][:80]!r} names no path",
                "Give it a harness, then files or folders: --source claude-code PATH...",
            )
        harness = _harness(words[0], plugins)
        named += [(harness, path) for path in words[1:]]
    for _, path in named:
        if not path or "\0" in path:
            raise UsageError(f"{path!r} is no path")
    if not any(os.path.lexists(path) for _, path in named):
        raise UsageError(f"there is no {named[0][1]}", "Name a transcript, or a folder of them")
    cache = cache_folder(host.environment(), host.home())
    return spending_of_sources(
        named,
        plugins,
        cache_dir=os.path.join(cache, "usage") if cache is not None else None,
        since_s=args.since,
        progress=progress,
        prices=local_prices(),
    )


def _harness(word: str, plugins: Plugins) -> str:
    """Return the harness of that name, or the one whose name begins with that word."""
    from difflib import get_close_matches

    from heddle_registry.errors import UsageError

    readers = plugins.usage_readers()
    if word in readers:
        return word
    begun = [name for name in readers if name.startswith(f"{word}-")]
    if len(begun) == 1:
        return begun[0]
    near = get_close_matches(word, readers, 1)
    hint = "Harnesses: " + (", ".join(sorted(readers)) or _NO_PLUGIN)
    raise UsageError(
        f"no plugin reads the transcripts of {word[:80]!r}",
        f"Did you mean {near[0]}?" if near else hint,
    )


# -- JSON


def totals_json(spending: Spending) -> dict[str, Any]:
    """Return the buckets; null is unknown, never 0."""
    totals = spending.totals
    if totals is None:
        told: dict[str, Any] = dict.fromkeys(_BUCKETS)
        told |= {"cost_source": "unknown", "lower_bound": bool(spending.unknown_agents)}
    else:
        told = {
            name: None if name in spending.untold else getattr(totals, name) for name in _BUCKETS
        }
    return {**told, "unknown_actors": spending.unknown}


def _actor_json(one: ActorSpending) -> dict[str, Any]:
    entry = one.entry
    return {
        "session_id": entry.session_id if entry is not None else None,
        "thread": one.thread,
        "status": str(entry.status) if entry is not None else None,
        "harness": one.harness,
        "native_actor_key": one.actor,
        "native_parent_actor_key": one.parent,
        "parent": one.parent,
        "model": one.model,
        "models": list(one.models),
        "transcript": one.sources[0] if one.sources else None,
        "transcripts": list(one.sources),
        "counted_from": _counted_from(one),
        **totals_json(one.own),
    }


def _counted_from(one: ActorSpending) -> str | None:
    if one.own.totals is None:
        return None
    return "entry" if one.is_recorded else "transcript"


def _group_json(by: str, groups: Sequence[tuple[str | None, Spending]]) -> list[dict[str, Any]]:
    return [{by: name, **totals_json(spending)} for name, spending in groups]


def _by_model_json(models: Mapping[str | None, UsageTotals]) -> list[dict[str, Any]]:
    from heddle_registry.core.spending import Spending

    return [
        {"model": model, **totals_json(Spending(totals=totals))} for model, totals in models.items()
    ]


def _print_json(by: str, account: Account) -> None:
    from heddle_registry.cli.output import print_json
    from heddle_registry.core import spending

    actors = account.actors
    if by == "entry":
        rows = [
            {**_actor_json(one), "by_model": _by_model_json(one.by_model)}
            for one in spending.by_entry(actors)
        ]
    elif by == "tree":
        rows = [
            {
                **_actor_json(row.actor),
                "depth": row.depth,
                "is_orphan": row.is_orphan,
                "subtree": totals_json(row.subtree),
            }
            for row in spending.tree(actors, account.chosen)
        ]
    else:
        rows = _group_json(by, groups_of(by, actors))
    print_json(
        {
            "by": by,
            "rows": rows,
            "totals": totals_json(spending.whole(actors)),
            "faults": [
                {"path": _text(fault.path), "code": fault.code, "message": _text(fault.detail)}
                for fault in account.faults
            ],
            "problems": [
                {"path": p.path, "code": p.code, "message": p.message} for p in account.problems
            ],
        }
    )


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def groups_of(by: str, actors: Sequence[ActorSpending]) -> list[tuple[str | None, Spending]]:
    """Return the spending of each branch, harness or model, the largest first."""
    from heddle_registry.core import spending

    if by == "model":
        return spending.by_model(actors)
    if by == "thread":
        return spending.grouped(actors, lambda one: one.thread)
    return spending.grouped(actors, lambda one: one.harness)
