"""Putting a team's and plugins' attach rules among the built-in ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heddle_registry.core.attach_rules import ATTACH_RULES, CREATE_RULE, FIELDS, TARGETS, AttachRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BUILT_IN = tuple(rule.name for rule in ATTACH_RULES)


def rule_problems(rule: AttachRule) -> list[tuple[str, str]]:
    """Return what is wrong with a rule by itself: the key, and why. Empty where nothing is."""
    texts = {
        "name": rule.name,
        "attach_to": rule.attach_to,
        "reason": rule.reason,
        "before": rule.before or "",
        "after": rule.after or "",
        **{f"when.{field}": pattern for field, pattern in rule.when.items()},
    }
    problems = [(key, "must be text") for key, text in texts.items() if not isinstance(text, str)]
    if problems:
        return problems
    problems = [
        (f"when.{field}", f"is no field; there are {', '.join(FIELDS)}")
        for field in rule.when
        if field not in FIELDS
    ]
    if not rule.name or ":" in rule.name or not rule.name.isprintable():
        problems.append(("name", "must be printable, without a colon, and not empty"))
    if rule.name in BUILT_IN:
        problems.append(("name", f"{rule.name!r} is a built-in rule"))
    if rule.look is not None:
        problems.append(("look", "is for built-in rules only"))
    if rule.attach_to not in TARGETS:
        problems.append(("attach_to", f"must be one of {', '.join(TARGETS)}"))
    if rule.before is not None and rule.after is not None:
        problems.append(("after", "a rule has `before` or `after`, not both"))
    if rule.after == CREATE_RULE:
        problems.append(("after", f"{CREATE_RULE} always decides: nothing comes after it"))
    return problems


def circular(rules: Iterable[AttachRule]) -> frozenset[str]:
    """Return the names of the rules that stand before or after each other in a circle."""
    beside = {rule.name: rule.before or rule.after for rule in rules}
    found = set()
    for name in beside:
        walked: list[str] = []
        at: str | None = name
        while at in beside and at not in walked:
            walked.append(at)
            at = beside[at]
        if at in walked:
            found.update(walked[walked.index(at) :])
    return frozenset(found)


def order_rules(
    extra: Sequence[AttachRule],
) -> tuple[tuple[AttachRule, ...], Mapping[str, str]]:
    """Return all rules in the order in which they are asked, and why some of ``extra`` are not.

    Several rules at one place keep the order in which they are given. Left out, each with its
    reason by name: what `rule_problems` finds, second rules of one name, circles, and rules
    beside one that is not there.
    """
    refused: dict[str, str] = {}
    known: dict[str, AttachRule] = {}
    for rule in extra:
        problems = rule_problems(rule)
        if problems:
            refused[rule.name] = "; ".join(f"{key}: {why}" for key, why in problems)
        elif rule.name in known:
            refused[rule.name] = "another rule has its name"
        else:
            known[rule.name] = rule
    for name in circular(known.values()):
        refused[name] = "it stands before or after itself, in a circle"
        del known[name]
    ordered = list(ATTACH_RULES)
    last_after: dict[str, AttachRule] = {}
    waiting = list(known.values())
    while waiting:
        placed = {rule.name: at for at, rule in enumerate(ordered)}
        ready = next((r for r in waiting if (r.before or r.after or CREATE_RULE) in placed), None)
        if ready is None:
            for rule in waiting:
                beside = rule.before or rule.after
                refused[rule.name] = f"there is no rule {beside!r} to stand beside"
            break
        waiting.remove(ready)
        if ready.after is not None:
            behind = last_after.get(ready.after)
            at = 1 + placed[behind.name if behind is not None else ready.after]
            last_after[ready.after] = ready
        else:
            at = placed[ready.before or CREATE_RULE]
        ordered.insert(at, ready)
    return tuple(ordered), refused
