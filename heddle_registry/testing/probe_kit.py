"""Checks that any probe plugin must pass, for the plugin's own repository.

One line does it:

    import heddle_registry_acme
    from heddle_registry.testing.probe_kit import probe_contract

    TestAcme = probe_contract(heddle_registry_acme)

With recordings of the real program, say what the right answers are:

    TestAcme = probe_contract(heddle_registry_acme, [
        Case("start", hook("acme", "start", {"session": "s1"}), actor="acme:session:s1"),
    ])

Nothing here reads the machine it runs on. Recorded environments, ancestors and payloads of seven
other harnesses come with the package; none of them may be taken for the plugin's.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import attrs

from heddle_registry.core.harness import EVENTS, Harness, Signal, SignalKind, native_id
from heddle_registry.plugins import Plugins
from heddle_registry.probe import ProbeResult, probe_recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

CANARY: Final = "canary-7f3a-do-not-keep"
"""Put where a secret might be; it must never come back."""

_RECORDED: Final = os.path.join(os.path.dirname(__file__), "recorded.jsonl")
_EVERYDAY: Final = frozenset(
    {"sh", "bash", "zsh", "fish", "dash", "node", "bun", "deno", "python", "python3", "ruby", "git",
     "tmux", "screen", "ssh", "sshd", "systemd", "init", "sudo", "env", "make", "code", "vim",
     "emacs", "login", "docker", "npm", "npx", "uv", "uvx"}
)  # fmt: skip
_AWKWARD: Final[tuple[Any, ...]] = (
    None, True, 7, 1.5, "", " ", "a b", "x" * 5_000, "line\nbreak", "\x00", [], ["a"], {},
    {"id": {"id": []}}, "../../etc/passwd", "/", "{}",
)  # fmt: skip


@attrs.frozen
class Case:
    """A situation and the right answer. What is None is not looked at, but for ``actor``.

    ``actor=None`` says that nobody may be named. ``parent=""`` says that there must be none.
    """

    name: str
    situation: Mapping[str, Any]
    actor: str | None
    parent: str | None = None
    model: str | None = None
    transcript: str | None = None


@attrs.frozen
class Recorded:
    """One recorded situation of a harness that has nothing to do with the plugin."""

    name: str
    harness: str
    situation: Mapping[str, Any]


def command(
    environment: Mapping[str, str] | None = None,
    *,
    argv: Sequence[Sequence[str]] | None = None,
    home: str | None = None,
    cwd: str | None = None,
) -> dict[str, Any]:
    """Return the situation of a command that an agent ran.

    :param argv: the command lines of the process and its ancestors, nearest first; None where
        ancestors cannot be seen
    """
    return _situation(environment, argv, home=home, cwd=cwd)


def hook(
    harness: str,
    event: str,
    payload: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    argv: Sequence[Sequence[str]] | None = None,
    home: str | None = None,
    cwd: str | None = None,
) -> dict[str, Any]:
    """Return the situation of a hook that a harness called with a payload."""
    situation = _situation(environment, argv, home=home, cwd=cwd)
    return {**situation, "harness": harness, "event": event, "payload": dict(payload)}


def _situation(
    environment: Mapping[str, str] | None,
    argv: Sequence[Sequence[str]] | None,
    *,
    home: str | None,
    cwd: str | None,
) -> dict[str, Any]:
    ancestors = None
    if argv is not None:
        ancestors = [
            {"pid": 100 - place, "argv": list(line), "starttime": 5_000 - place}
            for place, line in enumerate(argv)
        ]
    return {
        "environment": dict(environment or {}),
        "ancestors": ancestors,
        "payload": None,
        "event": None,
        "harness": None,
        "cwd": cwd,
        "home": home,
    }


@cache
def not_me() -> tuple[Recorded, ...]:
    """Return recorded situations of seven harnesses, commands and hooks."""
    with open(_RECORDED, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return tuple(Recorded(row["name"], row["harness"], row["situation"]) for row in rows)


def people() -> tuple[Recorded, ...]:
    """Return situations in which a person types: shells in terminals and editors."""
    shell = [["-zsh"], ["login"], ["/sbin/init"]]
    in_editor = [["/bin/zsh", "-i"], ["/usr/share/code/code", "--type=ptyHost"], ["/sbin/init"]]
    in_tmux = [["-bash"], ["tmux", "new-session", "-d"], ["/sbin/init"]]
    return (
        Recorded("shell", "", command({"TERM": "xterm", "SHELL": "/bin/zsh"}, argv=shell)),
        Recorded(
            "editor",
            "",
            command({"TERM_PROGRAM": "vscode", "CURSOR_TRACE_ID": "1"}, argv=in_editor),
        ),
        Recorded("tmux", "", command({"TMUX": "/run/tmux,1,0"}, argv=in_tmux)),
        Recorded("cron", "", command({}, argv=[["/bin/sh", "-c", "true"], ["cron"]])),
        Recorded("nothing", "", command({})),
    )


def check_probe(plugin: object, cases: Iterable[Case] = (), *, name: str = "plugin") -> None:
    """Run every check; raise an `AssertionError` that lists everything that is wrong.

    :param plugin: the plugin's module
    :param name: what it is registered as
    """
    kit = _Kit(plugin, tuple(cases), name)
    problems: list[str] = []
    for check in _checks():
        try:
            check(kit)
        except AssertionError as failure:
            problems.append(f"{check.__name__.removeprefix('check_')}: {failure}")
    if problems:
        raise AssertionError("\n".join(["the probe does not pass:", *problems]))


def probe_contract(plugin: object, cases: Iterable[Case] = (), *, name: str = "plugin") -> type:
    """Return a class for pytest with one test a check."""
    kit_cases = tuple(cases)

    def test(check: Callable[[_Kit], None]) -> Callable[[object], None]:
        def run(_self: object) -> None:
            check(_Kit(plugin, kit_cases, name))

        run.__doc__ = check.__doc__
        return run

    body = {"test_" + c.__name__.removeprefix("check_"): test(c) for c in _checks()}
    return type("TestProbeContract", (), body)


@attrs.frozen
class _Kit:
    plugin: object
    cases: tuple[Case, ...]
    name: str

    def loaded(self) -> Plugins:
        return Plugins([(self.name, self.plugin)])

    def own(self) -> tuple[Harness, ...]:
        """Return the plugin's harnesses, with what the table knows of them."""
        plugins = self.loaded()
        known = plugins.harnesses()
        answer: list[Harness] = getattr(self.plugin, "heddle_harnesses", list)()
        return tuple(known[harness.name] for harness in answer)

    def ask(self, situation: Mapping[str, Any]) -> ProbeResult:
        plugins = self.loaded()
        result = probe_recorded(situation, plugins)
        _require(not plugins.faults, "; ".join(map(str, plugins.faults)))
        return result


def check_registers_without_a_fault(kit: _Kit) -> None:
    """Find the hooks, with the right arguments, and harnesses in the answer."""
    plugins = kit.loaded()
    plugins.harnesses()
    _require(not plugins.faults, "; ".join(map(str, plugins.faults)))
    _require(kit.own(), "heddle_harnesses answers no harness")


def check_signals_can_recognise_it(kit: _Kit) -> None:
    """There is a deciding signal, none that is everybody's, and events mean what is known."""
    deciding = {SignalKind.STRONG, SignalKind.SESSION, SignalKind.PROGRAM}
    for harness in kit.own():
        _require(
            any(s.kind in deciding for s in harness.signals), f"{harness.name}: no such signal"
        )
        programs = {s.name for s in harness.signals if s.source == "program" and not s.path}
        common = sorted(programs & _EVERYDAY)
        _require(not common, f"{harness.name}: {', '.join(common)} runs on every machine")
        strange = sorted(set(harness.events.values()) - set(EVENTS))
        _require(not strange, f"{harness.name}: unknown meanings {strange}")


def check_is_recognised_by_its_own_marks(kit: _Kit) -> None:
    """Its program among the ancestors puts it into the chain; variables alone, at the most."""
    for harness in kit.own():
        programs = [s for s in harness.signals if s.kind is SignalKind.PROGRAM and not s.path]
        for signal in programs[:1]:
            argv = [["python3", "tool.py"], [f"/opt/bin/{signal.name}"], ["/sbin/init"]]
            chain = kit.ask(command(_marks(harness), argv=argv)).chain
            _require(chain, f"{signal.name} among the ancestors is not recognised")
            _require(chain[-1].harness == harness.name, f"{signal.name} is taken for another")


def check_is_nobody_else(kit: _Kit) -> None:
    """No recorded situation of another harness is taken for this one's."""
    own = {harness.name for harness in kit.own()}
    for other in not_me():
        if other.harness in own:
            continue
        result = kit.ask(other.situation)
        for link in (*result.chain, *result.candidates):
            mistaken = f"{other.name} is taken for {link.harness} by {link.evidence}"
            _require(link.harness not in own, mistaken)


def check_is_no_person(kit: _Kit) -> None:
    """Take no person's shell for an agent's, nor one with marks that a multiplexer leaked."""
    own = kit.own()
    for person in people():
        _require(not kit.ask(person.situation).chain, f"{person.name}: a person, not an agent")
    leaked = {name: value for harness in own for name, value in _marks(harness).items()}
    argv = [["-bash"], ["tmux", "new-session", "-d"], ["/sbin/init"]]
    _require(not kit.ask(command(leaked, argv=argv)).chain, "leaked marks put it into the chain")


def check_answers_its_cases(kit: _Kit) -> None:
    """Every case has its key, parent, model and transcript."""
    for case in kit.cases:
        link = kit.ask(case.situation).actor
        answer = (link.native_actor_key, link.native_parent_actor_key) if link else (None, None)
        _require(answer[0] == case.actor, f"{case.name}: actor {answer[0]}, expected {case.actor}")
        if link is None:
            continue
        if case.parent is not None:
            wanted = case.parent or None
            _require(answer[1] == wanted, f"{case.name}: parent {answer[1]}, expected {wanted}")
        for field in ("model", "transcript"):
            wanted = getattr(case, field)
            found = getattr(link, field)
            _require(wanted in {None, found}, f"{case.name}: {field} {found}, expected {wanted}")


def check_gives_the_same_answer_twice(kit: _Kit) -> None:
    """Answer by the situation alone: inherited HEDDLE_* variables change nothing."""
    inherited = {"HEDDLE_AGENT_SESSION_ID": "a1", "HEDDLE_THREAD": "b", "HEDDLE_SESSION_ID": "c"}
    for situation in _own_situations(kit):
        first = kit.ask(situation).as_json()
        _require(first == kit.ask(situation).as_json(), "two different answers")
        more = {**situation, "environment": {**situation["environment"], **inherited}}
        _require(first == kit.ask(more).as_json(), "HEDDLE_* variables change the answer")


def check_survives_awkward_payloads(kit: _Kit) -> None:
    """Whatever stands where an id should be: no error, and nothing that cannot be an id."""
    keys = {key for case in kit.cases for key in (case.situation.get("payload") or {})}
    keys |= {"session", "session_id", "sessionId", "sessionID", "agent_id", "parent", "model",
             "properties", "input", "transcript_path", "thread-id"}  # fmt: skip
    for harness in kit.own():
        for value in _AWKWARD:
            for payload in (dict.fromkeys(keys, value), {"one": value}):
                for link in kit.ask(hook(harness.name, "start", payload)).chain:
                    name = link.native_actor_key
                    _require(name is None or native_id(name), f"{name!r} is no key")


def check_keeps_no_secret(kit: _Kit) -> None:
    """Values of variables and payloads stay where they are, but for ids, names and paths."""
    for situation in _own_situations(kit):
        environment = {
            **situation["environment"],
            **{f"{n}_API_KEY": CANARY for n in ("ACME", "OPENAI", "ANTHROPIC")},
            "MESSAGING_TOKEN": CANARY,
        }
        payload = situation.get("payload")
        if payload:
            extra = {"prompt": CANARY, "tool_input": {"command": CANARY}, "token": CANARY}
            payload = {**extra, **payload}
        found = kit.ask({**situation, "environment": environment, "payload": payload})
        _require(CANARY not in json.dumps(found.as_json()), "a secret came back")


def _require(holds: object, otherwise: str) -> None:
    # A statement would be gone under python -O, and every probe would pass.
    if not holds:
        raise AssertionError(otherwise)


def _checks() -> tuple[Callable[[_Kit], None], ...]:
    return (
        check_registers_without_a_fault,
        check_signals_can_recognise_it,
        check_is_recognised_by_its_own_marks,
        check_is_nobody_else,
        check_is_no_person,
        check_answers_its_cases,
        check_gives_the_same_answer_twice,
        check_survives_awkward_payloads,
        check_keeps_no_secret,
    )


def _marks(harness: Harness) -> dict[str, str]:
    """Return variables as the harness would set them."""
    return {
        name: _value(signal)
        for signal in harness.signals
        if signal.source == "env" and signal.kind in {SignalKind.STRONG, SignalKind.SESSION}
        for name in (signal.name, *signal.also)
        if name not in harness.pid_variables
    }


def _value(signal: Signal) -> str:
    if signal.equals is not None:
        return signal.equals
    if signal.agent_name is not None:
        return signal.agent_name
    return (signal.starts_with or "") + (signal.contains or "") or "id-1"


def _own_situations(kit: _Kit) -> list[Mapping[str, Any]]:
    """Return the cases' situations, or one made of the plugin's own marks."""
    found: list[Mapping[str, Any]] = [case.situation for case in kit.cases]
    own = {harness.name: harness for harness in kit.own()}
    found += [other.situation for other in not_me() if other.harness in own]
    for harness in own.values():
        found.append(command(_marks(harness)))
    return found
