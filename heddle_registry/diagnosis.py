"""What is unsafe here and now, and how to mend it. Looking changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.core.evidence import Subject
from heddle_registry.core.record import Record
from heddle_registry.errors import (
    EXIT_DAMAGED,
    EXIT_DONE,
    EXIT_UNAVAILABLE,
    PluginFault,
    RegistryError,
)
from heddle_registry.ports.findings import Check

if TYPE_CHECKING:
    from heddle_registry.codec.config import Settings
    from heddle_registry.registry import AgentRegistry

RECORDS: Final = frozenset({"entries", "claims"})
"""The checks that speak of single records; others speak of the whole store."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Diagnosis(Record):
    """Everything that was looked at; ``plugins`` are name and version."""

    checks: tuple[Check, ...]
    plugins: tuple[tuple[str, str], ...]
    plugin_faults: tuple[PluginFault, ...]

    @property
    def mendable(self) -> tuple[Check, ...]:
        """What `mend` can do something about."""
        return tuple(check for check in self.checks if check.repair is not None)

    @property
    def exit_code(self) -> int:
        """0 where nothing is bad, 6 where only single records are, 7 where more is."""
        bad = {check.name for check in self.checks if check.status == "bad"}
        if not bad:
            return EXIT_DONE
        return EXIT_DAMAGED if bad <= RECORDS else EXIT_UNAVAILABLE


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Mending(Record):
    """What came of one repair."""

    check: Check
    done: bool
    result: str


def diagnose(registry: AgentRegistry) -> Diagnosis:
    """Look at the store, the settings, the host and the plugins. Some 50 ms; changes nothing."""
    heddle_dir: str = getattr(registry.store, "heddle_dir", "")
    settings_check, settings = _settings(heddle_dir)
    plugins, faults = _plugins(registry, settings)
    noted: tuple[PluginFault, ...] = ()
    if heddle_dir:
        from heddle_registry.faults import noted_faults

        noted = noted_faults(heddle_dir)
    return Diagnosis(
        checks=(
            *registry.store.examine(registry.host),
            settings_check,
            *_host(registry),
            _plugins_check(plugins, faults),
            *_notes_check(heddle_dir, noted),
        ),
        plugins=plugins,
        plugin_faults=(*faults, *noted),
    )


def mend(check: Check) -> Mending:
    """Do what ``check.fix`` says, or say why not. Blocks for the store's lock."""
    if check.repair is None:
        return Mending(check=check, done=False, result="nothing here can mend it")
    try:
        return Mending(check=check, done=True, result=check.repair())
    except (RegistryError, OSError) as error:
        return Mending(check=check, done=False, result=str(error))


def _settings(heddle_dir: str) -> tuple[Check, Settings | None]:
    from heddle_registry.settings import load_settings

    try:
        settings = load_settings(heddle_dir)
    except RegistryError as error:
        detail = error.message
        fix = "correct or remove it; until then every other verb refuses to work"
        return Check(name="settings", status="bad", detail=detail, fix=fix), None
    return Check(
        name="settings", status="ok", detail="none" if settings is None else "readable"
    ), settings


def _host(registry: AgentRegistry) -> tuple[Check, ...]:
    seen = registry.host.observe(Subject(session_id="doctor"))
    now = registry.host.now()
    clock = Check(name="clock", status="ok", detail=f"boot {seen.boot_id}, awake clock readable")
    if not (seen.boot_id and now.boot_id):
        clock = Check(
            name="clock",
            status="warn",
            detail="no boot id to be read: TTLs run on the wall clock, and no pid proves death",
            fix="let this process read /proc",
        )
    processes = Check(name="processes", status="ok", detail="all of this host can be seen")
    if seen.in_inner_pid_ns:
        processes = Check(
            name="processes",
            status="warn",
            detail="this pid namespace shows only a part of the host's processes: "
            "owners outside of it stay unknown, which blocks",
            fix="share the host's pid namespace, or use TTLs",
        )
    return (clock, processes)


def _plugins(
    registry: AgentRegistry,
    settings: Settings | None,
) -> tuple[tuple[tuple[str, str], ...], tuple[PluginFault, ...]]:
    from heddle_registry.plugins import load_plugins
    from heddle_registry.registry.attaching import rules_in_force

    plugins = load_plugins(
        pins=settings.plugins.pinned if settings is not None else None,
        disabled=settings.plugins.disabled if settings is not None else (),
        cwd=registry.host.cwd(),
    )
    plugins.harnesses()
    try:
        rules_in_force(settings, plugins)
    except RegistryError as error:
        plugins.faults.append(PluginFault("config.toml", "attach.rules", error.message))
    loaded = tuple((name, plugins.versions.get(name, "")) for name in plugins.names)
    return loaded, tuple(plugins.faults)


def _plugins_check(plugins: tuple[tuple[str, str], ...], faults: tuple[PluginFault, ...]) -> Check:
    if faults:
        names = ", ".join(sorted({fault.plugin for fault in faults}))
        return Check(
            name="plugins",
            status="warn",
            detail=f"at fault: {names}",
            fix="upgrade or remove them; HEDDLE_REGISTRY_PLUGINS names those to load",
        )
    return Check(name="plugins", status="ok", detail=f"{len(plugins)} loaded")


def _notes_check(heddle_dir: str, noted: tuple[PluginFault, ...]) -> tuple[Check, ...]:
    if not noted:
        return ()
    import os

    from heddle_registry.faults import NAME

    names = ", ".join(sorted({fault.plugin for fault in noted}))
    return (
        Check(
            name="hooks",
            status="warn",
            detail=f"{len(noted)} noted while nobody read the error: {names}",
            fix=f"see to them, then remove {os.path.join(heddle_dir, NAME)} by hand",
        ),
    )
