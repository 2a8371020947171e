"""``probe``: which harnesses are around this process, and whose process it is."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from heddle_registry.codec.config import Settings
    from heddle_registry.probe import Link, ProbeResult

_PERCENT = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    from heddle_registry.cli.arguments import folder
    from heddle_registry.cli.situations import add_hook_options

    add_hook_options(parser)
    parser.add_argument(
        "--input", metavar="FILE", type=folder, help="look at a recorded situation, not at this one"
    )
    parser.add_argument(
        "--record", metavar="FILE", type=folder, help="write the situation down, without secrets"
    )


def run(args: argparse.Namespace) -> int:
    """Print the chain and return 0, also where nobody is found."""
    from heddle_registry.cli.output import print_json
    from heddle_registry.cli.situations import (
        as_switched,
        present_situation,
        read_recording,
        write_recording,
    )
    from heddle_registry.opening import local_host
    from heddle_registry.surroundings import plugins_here, probe_situation

    host = local_host()
    settings = _settings(args)
    plugins = plugins_here(host, settings)
    if args.input is not None:
        situation = read_recording(args.input)
    else:
        situation = present_situation(host, args)
    situation = as_switched(situation, settings)
    if args.record is not None:
        write_recording(args.record, situation, plugins)
    found = probe_situation(situation, plugins)
    if args.json:
        print_json(found.as_json())
    else:
        _print_text(found)
    return 0


def _settings(args: argparse.Namespace) -> Settings | None:
    # Outside of any repository the user's own file is all there is.
    from heddle_registry.errors import UsageError
    from heddle_registry.opening import find_heddle_dir
    from heddle_registry.settings import load_settings

    try:
        heddle_dir = find_heddle_dir(explicit=args.heddle_dir)
    except UsageError:
        heddle_dir = ""
    return load_settings(heddle_dir)


def _print_text(found: ProbeResult) -> None:
    if not found.chain:
        print("no harness is around this process")
    for depth, link in enumerate(found.chain):
        _print_link(link, "  " * depth)
    if found.candidates:
        print("candidates, of which nothing here can pick one:")
        _print_links(found.candidates)


def _print_links(links: Sequence[Link]) -> None:
    for link in links:
        _print_link(link, "  ")


def _print_link(link: Link, indent: str) -> None:
    from heddle_registry.cli.text import clean

    known = [
        link.native_actor_key or "(no session known)",
        "/".join(part for part in (link.provider, link.model) if part),
        f"{link.confidence * _PERCENT:.0f} %",
        f"by {link.source}" if link.source else "",
        ", ".join(link.evidence),
    ]
    print(clean(f"{indent}{link.harness}  " + "  ".join(part for part in known if part)))
