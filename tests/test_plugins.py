"""Finding plugins and keeping their faults to themselves. Real packages on a real import path."""

from __future__ import annotations

import json
import os
import random
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.core.harness import Harness, program
from heddle_registry.core.identity import Identity, Probe
from heddle_registry.hookspecs import hookimpl
from heddle_registry.plugins import SWITCH, Plugins, installed, load_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMPORT = "from heddle_registry.hookspecs import hookimpl\n"
GOOD = """
from heddle_registry.core.harness import Harness, program
from heddle_registry.core.identity import Identity
from heddle_registry.hookspecs import hookimpl

@hookimpl
def heddle_harnesses():
    return [Harness(name="{name}", signals=[program("{name}")])]

@hookimpl
def heddle_probe(probe):
    return Identity(actor="{name}-actor")
"""


def install(site: Path, name: str, text: str | None = None, version: str = "1.0") -> None:
    """Lay a package out as an installer does."""
    module = f"heddle_test_{name}"
    (site / f"{module}.py").write_text(GOOD.format(name=name) if text is None else text)
    info = site / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[heddle_registry]\n{name} = {module}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [n for n in sys.modules if n.startswith("heddle_test_")]:
        del sys.modules[name]


def loaded(environ: dict[str, str] | None = None, **more: Any) -> Plugins:
    return load_plugins(environ or {}, **more)


def ours(plugins: Plugins) -> set[str]:
    # Other packages of this environment may be installed, too.
    return {name for name in plugins.names if name in {"one", "two", "bad"}}


def plugin(**hooks: Any) -> ModuleType:
    module = ModuleType("plugin")
    for name, function in hooks.items():
        function.__name__ = name
        setattr(module, name, hookimpl(function))
    return module


def wrapped(answer: Any) -> Any:
    def heddle_probe(probe: Probe) -> Any:
        return answer(probe)

    return heddle_probe


def acme(name: str = "acme") -> Any:
    return lambda: [Harness(name=name, signals=[program(name)])]


def test_the_switch_loads_exactly_what_it_names(site: Path) -> None:
    install(site, "one")
    install(site, "two")
    assert ours(loaded()) == {"one", "two"}
    assert loaded({SWITCH: "two"}).names == ("two",)
    assert loaded({SWITCH: ""}).names == ()
    assert loaded({SWITCH: ""}).faults == []
    missing = loaded({SWITCH: "one,three"})
    assert missing.names == ("one",)
    assert [fault.plugin for fault in missing.faults] == ["three"]


def test_a_pin_refuses_a_plugin_from_another_distribution_or_version(site: Path) -> None:
    install(site, "one", version="1.2")
    for pin, expected in (
        ("heddle_test_one", {"one"}),
        ("heddle_test_one==1.2", {"one"}),
        ("heddle_test_one==1.3", set()),
        ("stranger", set()),
    ):
        found = loaded({SWITCH: "one"}, pins={"one": pin})
        assert set(found.names) == expected
        assert bool(found.faults) is not bool(expected)


def test_the_cache_answers_until_a_package_comes_or_goes(site: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache" / "plugins.json")
    roots = [str(site)]
    install(site, "one")
    assert [row[0] for row in installed(cache, roots)] == ["one"]
    # It is the cache that answers: what it says, and not what a look would find.
    kept = json.loads((tmp_path / "cache" / "plugins.json").read_text())
    kept[0][1][0][0] = "from-cache"
    (tmp_path / "cache" / "plugins.json").write_text(json.dumps(kept))
    assert [row[0] for row in installed(cache, roots)] == ["from-cache"]
    install(site, "two")
    assert [row[0] for row in installed(cache, roots)] == ["one", "two"]
    for part in ("METADATA", "entry_points.txt"):
        (site / "heddle_test_one-1.0.dist-info" / part).unlink()
    (site / "heddle_test_one-1.0.dist-info").rmdir()
    assert [row[0] for row in installed(cache, roots)] == ["two"]


def test_environments_that_take_turns_do_not_look_again(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "one")
    cache, many = str(tmp_path / "plugins.json"), [str(tmp_path / f"p{n}") for n in range(20)]
    for _ in range(2):
        assert [row[0] for row in installed(cache, [str(site)])] == ["one"]
        assert installed(cache, many[:1]) == []
        monkeypatch.setattr("heddle_registry.plugins._scan", lambda _: pytest.fail("it is known"))
    monkeypatch.undo()
    for folder in many:
        installed(cache, [folder])
    install(site, "two")
    assert [row[0] for row in installed(cache, [str(site)])] == ["one", "two"]
    assert len(json.loads((tmp_path / "plugins.json").read_text())) == 8


@pytest.mark.parametrize(
    "damage", ["", "[]", "{", "[[1, []]]", '[[[2, "3", [[]]], []]]', "[1]", "[" * 200_000]
)
def test_a_damaged_or_unwritable_cache_is_no_cache(site: Path, tmp_path: Path, damage: str) -> None:
    install(site, "one")
    cache = tmp_path / "plugins.json"
    cache.write_text(damage)
    assert [row[0] for row in installed(str(cache), [str(site)])] == ["one"]
    assert [row[0] for row in installed("/proc/no/such/plugins.json", [str(site)])] == ["one"]


def test_nothing_is_imported_from_the_current_directory(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    install(here, "bad", "raise SystemExit('planted')")
    install(site, "one")
    monkeypatch.chdir(here)
    for entry in ("", str(here), "."):
        monkeypatch.syspath_prepend(entry)
        found = loaded()
        assert ours(found) == {"one"}
        assert not [fault for fault in found.faults if fault.plugin == "bad"]
    # Not even where an installed plugin imports a name that lies there.
    (here / "heddle_test_helper.py").write_text("raise SystemExit('planted')")
    install(site, "two", "import heddle_test_helper")
    assert ours(loaded()) == {"one"}
    assert sys.path[0] == "."


@pytest.mark.parametrize(
    ("text", "hook"),
    [
        ("raise RuntimeError('no')", "import"),
        ("import there_is_no_such_module", "import"),
        ("raise SystemExit(3)", "import"),
        ("def broken(:", "import"),
        (
            IMPORT + "@hookimpl\ndef heddle_prob(probe): pass",
            "heddle_prob",
        ),
        (
            IMPORT + "@hookimpl\ndef heddle_probe(wrong): pass",
            "registration",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_a_fault_and_the_others_go_on(
    site: Path, text: str, hook: str
) -> None:
    install(site, "bad", text)
    install(site, "one")
    found = loaded({SWITCH: "bad,one"})
    assert [(fault.plugin, fault.hook) for fault in found.faults] == [("bad", hook)]
    assert found.identity(Probe(harness="one")) == Identity(actor="one-actor")


def raising(probe: Probe) -> Identity:
    raise RuntimeError(probe.harness)


def leaving(probe: Probe) -> Identity:
    raise SystemExit(probe.harness)


@pytest.mark.parametrize("answer", [raising, leaving, lambda probe: "acme:1", lambda probe: [1]])
def test_a_plugin_that_raises_or_answers_the_wrong_type_loses_its_own_answer(answer: Any) -> None:
    bad = plugin(heddle_harnesses=acme(), heddle_probe=wrapped(answer))
    good = plugin(heddle_harnesses=acme(), heddle_probe=lambda probe: Identity(actor="x"))
    for order in ([("bad", bad), ("good", good)], [("good", good), ("bad", bad)]):
        plugins = Plugins(order)
        assert plugins.identity(Probe(harness="acme")) == Identity(actor="x")
        assert [(f.plugin, f.hook) for f in plugins.faults] == [("bad", "heddle_probe")]


@pytest.mark.parametrize("answer", [None, "acme", 7, ["acme"], [Harness]])
def test_a_plugin_that_answers_no_harnesses_speaks_for_none(answer: Any) -> None:
    plugins = Plugins([("bad", plugin(heddle_harnesses=lambda: answer))])
    assert "codex" in plugins.harnesses()
    assert [(f.plugin, f.hook) for f in plugins.faults] == [("bad", "heddle_harnesses")]


def test_only_who_speaks_for_a_harness_is_asked_about_it() -> None:
    asked = []

    def nosy(probe: Probe) -> Identity:
        asked.append(probe.harness)
        return Identity(actor="mine")

    plugins = Plugins([("nosy", plugin(heddle_harnesses=acme("other"), heddle_probe=nosy))])
    assert plugins.identity(Probe(harness="codex")) is None
    assert asked == []


def test_the_order_of_loading_changes_no_answer() -> None:
    modules = [
        (
            f"p{number}",
            plugin(
                heddle_harnesses=lambda n=number: [
                    Harness(name="acme", signals=[program(f"acme{n}")], events={f"e{n}": "opened"})
                ],
                heddle_probe=lambda probe, n=number: Identity(actor=f"a{n}"),
                heddle_attach_reason=lambda decision, n=number: f"because {n}",
            ),
        )
        for number in range(5)
    ]
    shuffle = random.Random(3)
    answers = set()
    for _ in range(10):
        shuffle.shuffle(modules)
        plugins = Plugins(modules)
        harness = plugins.harnesses()["acme"]
        answers.add(
            (
                tuple(s.name for s in harness.signals),
                tuple(harness.events),
                plugins.identity(Probe(harness="acme")).actor,
                plugins.attach_reason(None),
            )
        )
    assert answers == {(tuple(f"acme{n}" for n in range(5)), ("e0",), "a0", "because 0")}


def test_two_distributions_with_one_name_give_the_same_winner_every_time(site: Path) -> None:
    install(site, "one")
    twin = site / "zz_twin-1.0.dist-info"
    twin.mkdir()
    (twin / "METADATA").write_text("Metadata-Version: 2.1\nName: zz-twin\nVersion: 1.0\n")
    (twin / "entry_points.txt").write_text("[heddle_registry]\none = no.such.module\n")
    found = loaded({SWITCH: "one"})
    assert found.names == ("one",)
    assert ["zz-twin" in str(fault) for fault in found.faults] == [True]
    assert os.path.isdir(site)


def test_one_distribution_spelled_in_two_ways_is_installed_once(site: Path, tmp_path: Path) -> None:
    install(site, "one")
    other = tmp_path / "other"
    other.mkdir()
    install(other, "one")
    sys.path.append(str(other))
    try:
        metadata = other / "heddle_test_one-1.0.dist-info" / "METADATA"
        text = metadata.read_text()
        spelled = text.replace("heddle_test_one", "Heddle.Test-One")
        spelled = spelled.replace("heddle-test-one", "Heddle.Test-One")
        assert spelled != text
        metadata.write_text(spelled)
        plugins = loaded()
    finally:
        sys.path.remove(str(other))
    assert ours(plugins) == {"one"}
    assert plugins.faults == []
