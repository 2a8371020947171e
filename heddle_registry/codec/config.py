"""The config file: ``config.toml`` of a repository or of a user, as one layer of `Settings`.

Not on any hot path: cattrs is imported by `settings_from_toml` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping  # noqa: TC003 (cattrs resolves the annotations)
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.codec.toml_text import key_text
from heddle_registry.core.limits import check_ttl
from heddle_registry.core.record import Record
from heddle_registry.errors import UsageError

if TYPE_CHECKING:
    from heddle_registry.core.attach_rules import AttachRule

_HINT: Final = "Nothing was changed; docs/reference/configuration.md lists the keys"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AttachRuleSetting(Record):
    """One ``[[attach.rules]]``: where all of ``when`` match, attach to ``attach_to``.

    ``when`` maps fields to patterns; ``before`` or ``after`` names the rule beside which it
    stands, both None put it last. See `heddle_registry.core.attach_rules.AttachRule`.
    """

    name: str
    when: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    attach_to: str
    reason: str = ""
    before: str | None = None
    after: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AttachSettings(Record):
    """The table ``[attach]``."""

    rules: tuple[AttachRuleSetting, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PluginSettings(Record):
    """The table ``[plugins]``: names that are switched off, and the versions others must have."""

    disabled: tuple[str, ...] = ()
    pinned: Mapping[str, str] = attrs.field(factory=dict, hash=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Settings(Record):
    """What one layer says, or all of them merged. None: it says nothing."""

    attach: AttachSettings = AttachSettings()
    plugins: PluginSettings = PluginSettings()
    lock_timeout_s: float | None = None
    default_ttl_s: float | None = None
    """The TTL of a claim that names neither a TTL nor an owner."""
    detection: bool | None = None
    """False: look for no harnesses around the process."""


def merge(
    *,
    options: Settings | None = None,
    environment: Settings | None = None,
    repository: Settings | None = None,
    user: Settings | None = None,
) -> Settings:
    """Return all layers as one; options > environment > repository > user.

    Single values come from the highest layer that says something. Rules and pins are merged by
    name, the highest layer's first; a plugin that any layer disables is disabled, so that a
    repository cannot switch on what its user has switched off.
    """
    layers = [layer for layer in (options, environment, repository, user) if layer is not None]
    rules: dict[str, AttachRuleSetting] = {}
    pinned: dict[str, str] = {}
    disabled: dict[str, None] = {}
    for layer in layers:
        for rule in layer.attach.rules:
            rules.setdefault(rule.name, rule)
        for plugin, version in layer.plugins.pinned.items():
            pinned.setdefault(plugin, version)
        disabled.update(dict.fromkeys(layer.plugins.disabled))
    return Settings(
        attach=AttachSettings(rules=tuple(rules.values())),
        plugins=PluginSettings(disabled=tuple(disabled), pinned=pinned),
        lock_timeout_s=_first([layer.lock_timeout_s for layer in layers]),
        default_ttl_s=_first([layer.default_ttl_s for layer in layers]),
        detection=_first([layer.detection for layer in layers]),
    )


def _first(said: list[Any]) -> Any:
    return next((value for value in said if value is not None), None)


def settings_from_toml(data: bytes, path: str) -> Settings:
    """Return the settings in ``data``, the content of the file ``path``; an empty one says nothing.

    :raises UsageError: not TOML, an unknown key, a wrong value; lists every problem with its key
        and, where it can be told, its line.
    """
    from heddle_registry.codec.document import NotToml, parse_document

    if not data.strip():
        return Settings()
    try:
        document = parse_document(data)
    except NotToml as error:
        raise UsageError(f"{path} cannot be used: {error}", _HINT) from None
    settings, problems = _structure(document)
    if settings is not None:
        problems = _value_problems(settings)
        if not problems:
            return settings
    lines = data.decode().splitlines()
    listed = "; ".join(_with_line(lines, key, reason) for key, reason in problems)
    raise UsageError(f"{path} cannot be used: {listed}", _HINT)


Problem = tuple[str, str]
"""A key's path, and what is wrong with it."""


def _structure(document: dict[str, Any]) -> tuple[Settings | None, list[Problem]]:
    from cattrs import ClassValidationError, Converter, transform_error

    converter = Converter(forbid_extra_keys=True)
    for kind in (str, bool):
        converter.register_structure_hook(kind, _strictly)
    converter.register_structure_hook(float, _read_number)
    # Without this a string would be taken for an array of its characters.
    converter.register_structure_hook_func(
        lambda kind: getattr(kind, "__origin__", None) is tuple,
        lambda value, kind: tuple(
            converter.structure(_strictly(value, list), _list_of(kind.__args__[0]))
        ),
    )
    try:
        return converter.structure(document, Settings), []
    except ClassValidationError as error:
        problems: list[Problem] = []
        for line in transform_error(error, format_exception=_reason):
            reason, _, at = line.rpartition(" @ $")
            reason, *unknown = reason.split("\0")
            at = at.replace("['", ".").replace("']", "").lstrip(".")
            if unknown:
                problems += [(f"{at}.{key_text(key)}".lstrip("."), reason) for key in unknown]
            else:
                problems.append((at, reason))
        return None, problems


def _list_of(item: Any) -> Any:
    return list[item]


_NAMES: Final = {str: "a string", bool: "true or false", float: "a number", list: "an array"}


def _strictly(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"must be {_NAMES[kind]}")
    return value


def _read_number(value: Any, _kind: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("must be a number")
    return float(value)


def _reason(error: BaseException, _kind: type | None) -> str:
    from cattrs import ForbiddenExtraKeysError

    if isinstance(error, ForbiddenExtraKeysError):
        # One error for all of them, placed at their table: the names follow the reason.
        return "\0".join(["unknown key", *sorted(error.extra_fields)])
    if isinstance(error, KeyError):
        return "missing"
    if type(error) is ValueError:
        return str(error)
    return "must be a table"


def _value_problems(settings: Settings) -> list[Problem]:
    problems = _rule_problems(settings) if settings.attach.rules else []
    if settings.lock_timeout_s is not None and settings.lock_timeout_s < 0:
        problems.append(("lock_timeout_s", "must not be negative"))
    if settings.default_ttl_s is not None:
        try:
            check_ttl(settings.default_ttl_s)
        except UsageError as error:
            problems.append(("default_ttl_s", f"{error.message}; {error.hint}"))
    return problems


def _rule_problems(settings: Settings) -> list[Problem]:
    # A rule may stand beside one of another layer or of a plugin, so that only the circles in
    # this file can be seen here.
    from heddle_registry.core.attach_order import circular, rule_problems

    problems: list[Problem] = []
    names: set[str] = set()
    rules = attach_rules(settings)
    circle = circular(rules)
    for index, rule in enumerate(rules):
        at = f"attach.rules[{index}]"
        empty = [key for key in ("name", "attach_to") if not getattr(rule, key)]
        problems += [(f"{at}.{key}", "must not be empty") for key in empty]
        problems += [(f"{at}.{key}", why) for key, why in rule_problems(rule) if key not in empty]
        if rule.name in names:
            problems.append((f"{at}.name", f"{rule.name!r} is the name of a rule above"))
        names.add(rule.name)
        if rule.name in circle:
            beside = "before" if rule.before is not None else "after"
            problems.append((f"{at}.{beside}", f"{rule.name!r} stands in a circle of rules"))
    return problems


def attach_rules(settings: Settings) -> tuple[AttachRule, ...]:
    """Return the rules of ``[[attach.rules]]`` as the core asks them, in the file's order."""
    if not settings.attach.rules:
        return ()
    from attrs import asdict

    from heddle_registry.core.attach_rules import AttachRule

    return tuple(AttachRule(**asdict(rule)) for rule in settings.attach.rules)


def _with_line(lines: list[str], key: str, reason: str) -> str:
    line = _line_of(lines, key)
    return f"{key}: {reason}" + (f" (line {line})" if line is not None else "")


def _line_of(lines: list[str], key: str) -> int | None:
    # The parser tells no places, so look for the line that names most of the key's path. It can
    # be fooled by a multi-line string that looks like TOML; nothing but the message depends on it.
    found, longest, section = None, 0, ""
    counts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        words = line.strip()
        if words.startswith("["):
            name = words.lstrip("[").partition("]")[0].strip()
            if words.startswith("[["):
                counts[name] = counts.get(name, -1) + 1
            section = name
            for array, last in counts.items():
                if f"{name}.".startswith(f"{array}."):
                    section = f"{array}[{last}]{name[len(array) :]}"
            where = section
        else:
            name, equals, _ = words.partition("=")
            if not equals:
                continue
            where = f"{section}.{name.strip()}".lstrip(".")
        covers = key == where or key.startswith((f"{where}.", f"{where}["))
        if covers and len(where) > longest:
            found, longest = number, len(where)
    return found
