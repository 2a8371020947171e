"""Modules that are imported when they are used, in the process of one command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from heddle_registry.deferred import NEVER_USED
from tests.process_helpers import ROOT


def in_a_process(code: str) -> str:
    """What a new interpreter prints that runs ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", NEVER_USED)
def test_a_deferred_module_is_loaded_by_its_first_use_and_answers_as_it_always_did(name):
    said = in_a_process(f"""
import importlib
from heddle_registry.deferred import StandIn, defer
sys.modules.pop({name!r}, None)  # importlib imports one of them
defer({name!r})
early = importlib.import_module({name!r})
assert isinstance(early, StandIn)
assert early.__doc__ is None, "nothing was loaded by importing it"
assert early.__file__.endswith((".py", ".so"))
late = sys.modules[{name!r}]
assert not isinstance(late, StandIn)
names = [word for word in dir(late) if not word.startswith("__")]
print(len(names) > 1 and all(getattr(early, word) is getattr(late, word) for word in names))
""")
    assert said == "True"


def test_a_module_that_is_there_stays_and_a_missing_one_is_told_of_when_it_is_used():
    said = in_a_process("""
import json
from heddle_registry.deferred import defer
defer("json")
defer("no_such_module")
assert sys.modules["json"] is json
import no_such_module
try:
    no_such_module.anything
except ModuleNotFoundError as error:
    print(error)
""")
    assert said == "No module named 'no_such_module'"


def test_a_module_lacks_what_it_always_lacked():
    said = in_a_process("""
from heddle_registry.deferred import defer
defer("tokenize")
import tokenize
try:
    tokenize.no_such_name
except AttributeError as error:
    print(error)
try:
    from tokenize import no_such_name
except ImportError as error:
    print(str(error).partition(" (")[0])
""")
    assert said.splitlines() == [
        "module 'tokenize' has no attribute 'no_such_name'",
        "cannot import name 'no_such_name' from 'tokenize'",
    ]


def test_whoever_runs_a_command_line_in_his_own_process_keeps_his_modules():
    said = in_a_process("""
from heddle_registry.__main__ import main
main(["--version"])
from heddle_registry.core.entry import AgentEntry
print([name for name, module in sys.modules.items() if type(module).__name__ == "StandIn"])
""")
    assert said.splitlines()[-1] == "[]"


def test_argparse_speaks_english_and_gettext_still_translates_for_whoever_asks_it_to():
    said = in_a_process("""
import os
os.environ["LANGUAGE"] = "de"
from heddle_registry.deferred import StandIn, defer_what_short_commands_never_use
defer_what_short_commands_never_use()
import argparse, platform
assert isinstance(sys.modules["gettext"], StandIn)
parser = argparse.ArgumentParser(prog="tried")
parser.add_argument("word")
print(parser.format_usage().strip())
from gettext import NullTranslations
print(NullTranslations().gettext("as it was"))
print(platform.python_implementation() == __import__("platform").python_implementation())
print(bool(platform.machine()))
""")
    assert said.splitlines() == ["usage: tried [-h] word", "as it was", "True", "True"]


def test_what_a_stand_in_knows_is_what_its_module_has():
    said = in_a_process("""
from heddle_registry.deferred import StandIn, defer_what_short_commands_never_use
names = ["datetime", "threading", "weakref"]
for name in names:
    sys.modules.pop(name, None)
defer_what_short_commands_never_use()
import datetime, threading, weakref
from datetime import UTC, date, datetime as moment, timedelta, timezone
stand_ins = [sys.modules[name] for name in names]
assert all(isinstance(module, StandIn) for module in stand_ins)
print(moment.fromisoformat("2026-07-01T12:00:00+00:00") - moment(2026, 7, 1, tzinfo=UTC))
for early in stand_ins:
    known = {key: value for key, value in vars(early).items() if key[0] != "_"}
    getattr(early, "there is no such name", None)
    late = sys.modules[early.__name__]
    print(type(late).__name__, len(known) > 0, all(vars(late)[key] is known[key] for key in known))
print(threading.current_thread() is threading.main_thread())
thread = threading.Thread(target=print, args=["ran"])
thread.start()
thread.join()
""")
    assert said.splitlines() == ["12:00:00", *["module True True"] * 3, "True", "ran"]


@pytest.mark.parametrize("name", ["ast", "attr.filters", "copy"])
def test_all_that_a_deferred_module_has_can_be_imported_at_once(name):
    said = in_a_process(f"""
from heddle_registry.deferred import defer
defer({name!r})
from {name} import *
found = {{word for word in globals() if not word.startswith("_")}} - {{"defer"}}
import importlib
module = importlib.import_module({name!r})
own = getattr(module, "__all__", None) or [w for w in vars(module) if not w.startswith("_")]
print(set(own) <= found | {{"defer"}})
""")
    assert said == "True"


def test_threads_that_use_a_deferred_module_first_at_once_all_find_it():
    said = in_a_process("""
import threading
from heddle_registry.deferred import StandIn, defer
sys.setswitchinterval(1e-6)
wrong = []
for _ in range(100):
    sys.modules.pop("tokenize", None)
    defer("tokenize")
    early = sys.modules["tokenize"]
    def use():
        try:
            early.tokenize
        except BaseException as error:
            wrong.append(repr(error))
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    if isinstance(sys.modules.get("tokenize"), (StandIn, type(None))): wrong.append("stayed")
print(wrong)
""")
    assert said == "[]"


def test_what_pluggy_asks_of_inspect_is_answered_as_inspect_does():
    said = in_a_process("""
import functools
from heddle_registry.deferred import StandIn, defer_what_short_commands_never_use
defer_what_short_commands_never_use()
import inspect as early
class Thing:
    def method(self): pass
    @classmethod
    def of(cls): pass
    @staticmethod
    def plain(): pass
    @property
    def value(self): pass
    def __call__(self): pass
def function(): pass
@functools.wraps(function)
def wrapped(): pass
plain = [function, Thing, sys, Thing().method, Thing.of, Thing.plain, lambda: 1, 7, "text", None]
asked = "isclass isfunction ismethod ismodule".split()
said = [[getattr(early, name)(value) for value in plain] for name in asked]
said.append([early.isroutine(function), early.unwrap(function) is function])
assert isinstance(sys.modules["inspect"], StandIn), "none of this has loaded it"
others = [wrapped, Thing(), len, [].append, str.join, Thing.value, functools.partial(len)]
routine = [early.isroutine(value) for value in plain + others]
unwrapped = [early.unwrap(value) for value in plain + others]
stopped = early.unwrap(wrapped, stop=lambda f: f is wrapped) is wrapped
import inspect
assert not isinstance(inspect, StandIn)
right = [[getattr(inspect, name)(value) for value in plain] for name in asked]
right.append([True, True])
print(
    said == right,
    routine == [inspect.isroutine(value) for value in plain + others],
    unwrapped == [inspect.unwrap(value) for value in plain + others],
    stopped,
)
""")
    assert said == "True True True True"
