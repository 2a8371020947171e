from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import pytest

from heddle_registry.core.harness import Harness, env, program
from heddle_registry.core.identity import Identity
from heddle_registry.hookspecs import hookimpl
from heddle_registry.testing.probe_kit import CANARY, Case, check_probe, command, hook, not_me

NUMBERS = itertools.count()
SIGNALS = [env("ACME", equals="1"), env("ACME_SESSION", kind="session"), program("acme")]


def plugin(probe: Any, signals: Any = SIGNALS, **more: Any) -> ModuleType:
    module = ModuleType("heddle_registry_acme")

    def heddle_harnesses() -> Any:
        return [Harness(name="acme", signals=signals, **more)]

    def heddle_probe(probe: Any, _answer: Any = probe) -> Any:
        return _answer(probe)

    module.heddle_harnesses = hookimpl(heddle_harnesses)
    module.heddle_probe = hookimpl(heddle_probe)
    return module


def good(probe: Any) -> Identity | None:
    session = probe.payload.get("session") or probe.env.get("ACME_SESSION")
    return Identity(actor=session, model=probe.payload.get("model")) if session else None


def test_a_good_probe_passes_with_and_without_cases() -> None:
    check_probe(plugin(good))
    check_probe(plugin(good), [Case("c", hook("acme", "go", {"session": "s"}), "acme:session:s")])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (plugin(good, [program("acme"), program("node")]), "runs on every machine"),
        (plugin(good, [program("acme"), env("CLAUDE_PROJECT_DIR")]), "is taken for acme"),
        (plugin(good, [env("TERM", kind="weak")]), "no such signal"),
        (plugin(lambda probe: Identity(actor=probe.payload["session"])), "KeyError"),
        (plugin(lambda probe: {"actor": "x"}), "answered dict"),
        (plugin(lambda probe: Identity(actor=f"s{next(NUMBERS)}")), "two different answers"),
        (
            plugin(lambda probe: Identity(actor="s", model=probe.env.get("MESSAGING_TOKEN"))),
            "a secret came back",
        ),
        (
            plugin(lambda probe: Identity(actor="s", transcript=probe.payload.get("prompt"))),
            "a secret came back",
        ),
        (
            plugin(lambda probe: Identity(actor=probe.env.get("HEDDLE_AGENT_SESSION_ID", "x"))),
            "HEDDLE_* variables change the answer",
        ),
    ],
)
def test_a_probe_with_a_fault_is_told_which(bad: ModuleType, said: str) -> None:
    cases = [
        Case("hook", hook("acme", "go", {"session": "s"}), actor=None),
        Case("command", command({"ACME": "1"}, argv=[["sh"], ["acme"]]), actor=None),
    ]
    with pytest.raises(AssertionError) as caught:
        check_probe(bad, cases)
    assert said in str(caught.value)


def test_a_wrong_answer_to_a_case_is_told_with_the_right_one() -> None:
    situation = hook("acme", "go", {"session": "s", "model": "m"})
    for case in (
        Case("c", situation, actor="acme:session:t"),
        Case("c", situation, actor="acme:session:s", parent="acme:session:t"),
        Case("c", situation, actor="acme:session:s", model="other"),
    ):
        with pytest.raises(AssertionError, match="expected"):
            check_probe(plugin(good), [case])


def test_the_recordings_that_come_with_the_kit_are_of_seven_harnesses_and_hold_no_secret() -> None:
    assert len({recorded.harness for recorded in not_me()}) == 7
    for recorded in not_me():
        for name, value in recorded.situation["environment"].items():
            if name.endswith(("TOKEN", "KEY")):
                assert value in {"<redacted-ephemeral-token>", "dummy", "dummy-key"}
    assert CANARY not in str(not_me())
