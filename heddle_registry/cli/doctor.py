"""``doctor``: what is unsafe here and now, and how to mend it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from heddle_registry.diagnosis import Diagnosis, Mending
    from heddle_registry.ports.findings import Check

_STYLE_OF = {"ok": "ok  ", "warn": "warn", "bad": "BAD "}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument(
        "--fix", action="store_true", help="mend what can be mended; each change is shown first"
    )


def run(args: argparse.Namespace) -> int:
    """Look, with ``--fix`` mend, and return 0; 6 where records stay damaged, 7 where all does."""
    from heddle_registry.cli.context import find_folder
    from heddle_registry.diagnosis import diagnose, mend
    from heddle_registry.registry import AgentRegistry

    # Not open_registry: a wrong config file is one of the things to report.
    registry = AgentRegistry(find_folder(args), lock_timeout_s=args.lock_timeout)
    found = diagnose(registry)
    mendings: list[Mending] = []
    if args.fix:
        for check in found.mendable:
            if not args.json:
                _print_plan(check)
            mending = mend(check)
            mendings.append(mending)
            if not args.json:
                _print_result(mending)
        found = diagnose(registry)
    if args.json:
        _print_json(found, mendings if args.fix else None)
    else:
        _print_text(found)
    return found.exit_code


def _print_json(found: Diagnosis, mendings: Iterable[Mending] | None) -> None:
    from heddle_registry.cli.output import print_json

    answer: dict[str, object] = {
        "checks": [
            {"name": c.name, "status": c.status, "detail": c.detail, "fix": c.fix or None}
            for c in found.checks
        ],
        "plugins": [{"name": name, "version": version} for name, version in found.plugins],
        "plugin_faults": [
            {"plugin": f.plugin, "hook": f.hook, "why": f.why} for f in found.plugin_faults
        ],
    }
    if mendings is not None:
        answer["mended"] = [
            {"name": m.check.name, "fix": m.check.fix, "done": m.done, "result": m.result}
            for m in mendings
        ]
    print_json(answer)


def _print_plan(check: Check) -> None:
    from heddle_registry.cli.text import clean

    print(f"mending {clean(check.name)}: {clean(check.detail)}")
    print(f"  will: {clean(check.fix)}", flush=True)


def _print_result(mending: Mending) -> None:
    from heddle_registry.cli.text import clean

    print(f"  {'done' if mending.done else 'not done'}: {clean(mending.result)}\n")


def _print_text(found: Diagnosis) -> None:
    from heddle_registry.cli.text import clean

    width = max(len(check.name) for check in found.checks)
    for check in found.checks:
        print(f"{_STYLE_OF[check.status]}  {clean(check.name):<{width}}  {clean(check.detail)}")
        if check.fix and check.status != "ok":
            how = "--fix will" if check.repair is not None else "fix"
            print(f"{'':{width + 8}}{how}: {clean(check.fix)}")
    for name, version in found.plugins:
        print(f"      plugin {clean(name)} {clean(version)}")
    for fault in found.plugin_faults:
        print(f"warn  {clean(fault.message)}")
