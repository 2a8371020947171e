"""Finding plugins, asking them, and keeping their faults to themselves.

A plugin is an entry point of the group ``heddle_registry``. ``HEDDLE_REGISTRY_PLUGINS=a,b`` loads
exactly those, empty loads none, unset loads all. A plugin that raises, answers the wrong type,
misspells a hook or cannot be imported costs its own answer; a `PluginFault` says so.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from heddle_registry.core.combine import (
    choose_identity,
    first_by_name,
    join_harnesses,
    joined_by_name,
)
from heddle_registry.errors import PluginFault

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from heddle_registry.core.harness import Harness
    from heddle_registry.core.identity import Identity, Probe

T = TypeVar("T")

GROUP: Final = "heddle_registry"
SWITCH: Final = "HEDDLE_REGISTRY_PLUGINS"
_MARKS: Final = frozenset({f"{GROUP}_impl", f"{GROUP}_spec"})
"""What pluggy's markers set on a function."""
_CACHE_VERSION: Final = 2
_MOST_KEPT: Final = 8
"""Environments whose plugins are remembered."""


class Plugins:
    """The loaded plugins. Ask them through its methods; each call collects its own `faults`.

    Not safe to share between OS threads while it loads; afterwards reading is.
    """

    def __init__(self, modules: Iterable[tuple[str, object]] = ()) -> None:
        import pluggy

        from heddle_registry import hookspecs

        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(_marked_of(hookspecs))
        self._harnesses: dict[str, Harness] | None = None
        self._speaks_for: dict[str, frozenset[str]] = {}
        self.faults: list[PluginFault] = []
        self.versions: dict[str, str] = {}
        for name, module in modules:
            self.add(name, module)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the loaded plugins, sorted."""
        return tuple(sorted(name for name, _ in self._manager.list_name_plugin()))

    def add(self, name: str, module: object, version: str = "") -> None:
        """Register a plugin's module. What is wrong with it becomes a fault, never an error."""
        import pluggy

        plugin = _marked_of(module)
        try:
            self._manager.register(plugin, name=name)
        except (pluggy.PluginValidationError, ValueError, TypeError) as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._fault(name, "registration", str(error))
            return
        self.versions[name] = version
        for hook, caller in vars(self._manager.hook).items():
            if isinstance(caller, pluggy.HookCaller) and not caller.has_spec():
                for implementation in caller.get_hookimpls():
                    if implementation.plugin is plugin:
                        self._fault(name, hook, "there is no hook of that name")

    def harnesses(self) -> dict[str, Harness]:
        """Return every known harness by name: the table's and the plugins'."""
        if self._harnesses is None:
            from heddle_registry.core.harness import Harness
            from heddle_registry.detection import known_harnesses

            answers = self._ask("heddle_harnesses", lambda a: _all(a, Harness), {})
            self._speaks_for = {n: frozenset(h.name for h in a) for n, a in answers.items()}
            self._harnesses = join_harnesses(known_harnesses(), answers)
        return self._harnesses

    def identity(self, probe: Probe) -> Identity | None:
        """Ask the plugins that speak for the probe's harness whose process it is."""
        from heddle_registry.core.identity import Identity

        self.harnesses()
        speakers = {n for n, spoken in self._speaks_for.items() if probe.harness in spoken}
        answers = self._ask("heddle_probe", lambda a: _one(a, Identity), {"probe": probe}, speakers)
        return choose_identity(answers)

    def usage(self, source: Any, harness: str | None = None) -> tuple[Any, ...] | None:
        """Return the usage records of one transcript, or None where no plugin reads it.

        :param harness: ask only the plugins that speak for it; its name where the source has one
        """
        from heddle_registry.core.readings import UsageReadings
        from heddle_registry.core.usage import UsageCounter, UsageRecord

        kinds = UsageRecord, UsageCounter, UsageReadings
        self.harnesses()
        wanted = harness or getattr(source, "harness", None)
        speakers = {n for n, s in self._speaks_for.items() if wanted is None or wanted in s}
        answers = self._ask(
            "heddle_usage",
            lambda a: None if a is None else _all(a, kinds),
            {"source": source},
            speakers,
        )
        return first_by_name(answers)

    def usage_readers(self) -> dict[str, Callable[[Any], Iterable[Any]]]:
        """Return, for each harness that a plugin speaks for, how its transcripts are read.

        For `adapters.usage_reader.read_usage`: records come one by one, so that a transcript of
        any size is read in little memory, and what a plugin raises is a fault of that transcript.
        Of several plugins the first by name that does not answer None reads it.
        """
        readers: dict[str, Callable[[Any], Iterable[Any]]] = {}
        hooks = sorted(self._manager.hook.heddle_usage.get_hookimpls(), key=_plugin_name)
        for harness in self.harnesses():
            speakers = [
                hook for hook in hooks if harness in self._speaks_for.get(hook.plugin_name, ())
            ]
            if speakers:
                readers[harness] = partial(_first_answer, speakers)
        return readers

    def attach_rules(self) -> tuple[Any, ...]:
        """Return the attach rules of all plugins, by plugin name."""
        from heddle_registry.core import attach

        kind = attach.AttachRule
        return joined_by_name(self._ask("heddle_attach_rules", lambda a: _all(a, kind), {}))

    def attach_reason(self, decision: Any) -> str | None:
        """Return a plugin's better sentence about a decision, or None."""
        arguments = {"decision": decision}
        return first_by_name(self._ask("heddle_attach_reason", lambda a: _one(a, str), arguments))

    def _ask(
        self,
        hook: str,
        check: Callable[[Any], T],
        arguments: Mapping[str, Any],
        only: Iterable[str] | None = None,
    ) -> dict[str, T]:
        # Each implementation is called by itself: pluggy's own call ends at the first that raises.
        answers: dict[str, T] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            if only is not None and name not in only:
                continue
            given = {key: arguments[key] for key in implementation.argnames}
            try:
                answers[name] = check(implementation.function(**given))
            except (Exception, SystemExit) as error:  # noqa: BLE001
                self._fault(name, hook, f"{type(error).__name__}: {error}")
        return answers

    def _fault(self, plugin: str, hook: str, why: str) -> None:
        fault = PluginFault(plugin, hook, why[:500])
        if str(fault) not in map(str, self.faults):
            self.faults.append(fault)


def load_plugins(
    environ: Mapping[str, str] | None = None,
    *,
    cache_file: str | None = None,
    pins: Mapping[str, str] | None = None,
    disabled: Collection[str] = (),
    cwd: str | None = None,
) -> Plugins:
    """Load the installed plugins that the switch and the pins let through.

    Changes ``sys.path`` while it imports, so call it from one OS thread only.

    :param cache_file: where to keep the list of entry points; it is looked up again as soon as a
        package is installed or removed. None looks every time. It is ours to rewrite, may be lost,
        and failing to write it is no error.
    :param pins: plugin name -> ``distribution`` or ``distribution==version`` that it must be from
    :param disabled: names that are switched off
    :param cwd: nothing is imported from here; the current directory when left out
    """
    environ = os.environ if environ is None else environ
    switch = environ.get(SWITCH)
    wanted = None if switch is None else {part.strip() for part in switch.split(",")} - {""}
    plugins = Plugins()
    if wanted is not None and not wanted:
        return plugins
    roots = _import_roots(cwd)
    chosen: dict[str, list[str]] = {}
    for name, value, distribution, version in installed(cache_file, roots):
        if name in disabled or (wanted is not None and name not in wanted):
            continue
        pin = (pins or {}).get(name)
        if pin is not None and pin not in {distribution, f"{distribution}=={version}"}:
            plugins._fault(name, "pin", f"{distribution}=={version} is not {pin}")  # noqa: SLF001
        elif name in chosen:
            plugins._fault(  # noqa: SLF001
                name, "registration", f"{distribution} uses the name that {chosen[name][1]} has"
            )
        else:
            chosen[name] = [value, distribution, version]
    for name in sorted((wanted or set()) - set(chosen) - set(disabled)):
        plugins._fault(name, "import", f"{SWITCH} names it, and it is not installed")  # noqa: SLF001
    with _importing_from(roots):
        for name, (value, _, version) in sorted(chosen.items()):
            try:
                module = _resolved(value)
            except (Exception, SystemExit) as error:  # noqa: BLE001
                plugins._fault(name, "import", f"{type(error).__name__}: {error}")  # noqa: SLF001
                continue
            plugins.add(name, module, version)
    return plugins


def installed(
    cache_file: str | None = None, roots: Sequence[str] | None = None
) -> list[tuple[str, str, str, str]]:
    """Return name, target, distribution and version of each installed plugin, sorted."""
    import json

    roots = _import_roots(None) if roots is None else roots
    key = [_CACHE_VERSION, sys.version, [[root, _stamp(root)] for root in roots]]
    known = _kept_in(cache_file) if cache_file is not None else []
    for of_key, plugins in known:
        if of_key == key:
            return plugins
    found = _scan(roots)
    if cache_file is not None:
        from heddle_registry.cache_folder import keep_file

        here = _environment_of(key)
        others = [kept for kept in known if _environment_of(kept[0]) != here]
        text = json.dumps([(key, found), *others][:_MOST_KEPT]).encode()
        keep_file(cache_file, lambda file: os.write(file, text))
    return found


def _kept_in(cache_file: str) -> list[tuple[list[Any], list[tuple[str, str, str, str]]]]:
    # Of each environment that commands were run from, for several may take turns.
    import json

    try:
        with open(cache_file, encoding="utf-8") as kept:
            return [
                (key, [(str(n), str(v), str(d), str(w)) for n, v, d, w in plugins])
                for key, plugins in json.load(kept)
                if _environment_of(key)
            ]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return []


def _environment_of(key: Sequence[Any]) -> object:
    return key[1], [root for root, _ in key[2]]


def _scan(roots: Sequence[str]) -> list[tuple[str, str, str, str]]:
    import re
    from importlib.metadata import distributions

    seen: set[str] = set()
    found = []
    for distribution in distributions(path=list(roots)):
        name = str(distribution.metadata["Name"])
        spelled = re.sub(r"[-_.]+", "-", name).lower()  # installers spell one name in many ways
        if spelled in seen:  # an earlier folder of the path shadows it
            continue
        seen.add(spelled)
        found += [
            (point.name, point.value, name, distribution.version)
            for point in distribution.entry_points
            if point.group == GROUP
        ]
    return sorted(set(found))


def _stamp(root: str) -> int:
    # Installing or removing a package makes or removes a folder in there.
    try:
        return os.stat(root).st_mtime_ns
    except OSError:
        return 0


def _import_roots(cwd: str | None) -> list[str]:
    """Return the import path without the current directory and folders that are not absolute."""
    here = os.path.realpath(cwd or os.getcwd())
    return [p for p in sys.path if os.path.isabs(p) and os.path.realpath(p) != here]


@contextmanager
def _importing_from(roots: Sequence[str]) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:] = roots
    try:
        yield
    finally:
        sys.path[:] = before


def _resolved(value: str) -> object:
    module, _, attribute = value.partition(":")
    __import__(module.strip())  # `importlib` would be one module more
    found: object = sys.modules[module.strip()]
    for part in filter(None, attribute.strip().split(".")):
        found = getattr(found, part)
    return found


def _plugin_name(hook: Any) -> str:
    return str(hook.plugin_name)


def _first_answer(hooks: Sequence[Any], source: Any) -> Iterable[Any]:
    for hook in hooks:
        answer = hook.function(**dict.fromkeys(hook.argnames, source))
        if answer is not None:
            return answer  # type: ignore[no-any-return]
    return ()


class _Marked(SimpleNamespace):
    # pluggy looks at every name of what it is given, at some 20 µs each, and most things have
    # thirty names before they have one of their own.
    def __dir__(self) -> list[str]:
        return list(vars(self))


def _marked_of(module: object) -> Any:
    if not isinstance(module, ModuleType):
        return module
    marked = {name: value for name, value in vars(module).items() if _is_marked(value)}
    return _Marked(**marked)


def _is_marked(value: object) -> bool:
    try:
        return not _MARKS.isdisjoint(vars(value))
    except Exception:  # noqa: BLE001 - most things have no such table; a proxy may do anything
        return False


def _all(answer: Any, kinds: Any) -> tuple[Any, ...]:
    if isinstance(answer, (str, bytes)) or not hasattr(answer, "__iter__"):
        raise TypeError(f"answered {type(answer).__name__}, expected a list")
    values = tuple(answer)
    for value in values:
        if not isinstance(value, kinds):
            raise TypeError(f"answered a list with {type(value).__name__} in it")
    return values


def _one(answer: Any, kind: type[T]) -> T | None:
    if answer is not None and not isinstance(answer, kind):
        raise TypeError(f"answered {type(answer).__name__}, expected {kind.__name__} or None")
    return answer
