from __future__ import annotations

import json
from typing import Any

import attrs
import tomli

from heddle_registry.cli.answers import entry_json
from heddle_registry.codec import entry_from_toml
from heddle_registry.core.entry import AgentEntry
from tests.process_helpers import ROOT

GOLDEN = ROOT / "tests" / "data" / "golden"
OURS = {"extension", "unknown"}


def test_an_entry_has_the_originals_names_in_its_order_and_its_very_values() -> None:
    names = [field.name for field in attrs.fields(AgentEntry) if field.name not in OURS]
    assert len(names) == 34
    for path in sorted(GOLDEN.glob("*.toml")):
        data = path.read_bytes()
        answer = json.loads(json.dumps(entry_json(entry_from_toml(data, path.name))))
        assert list(answer) == [*names, "extension"]
        assert answer.pop("extension") is None
        assert answer.pop("reservation_token") is None
        stored: dict[str, Any] = tomli.loads(data.decode())
        stored.pop("reservation_token", None)
        for name, value in answer.items():
            expected = stored.get(name)
            if name == "usage_summary":
                assert {k: v for k, v in value.items() if v is not None} == expected
            elif name == "context_queries":
                assert [{k: v for k, v in q.items() if v is not None} for q in value] == expected
            else:
                assert value == expected, (path.name, name)


def test_numbers_that_json_cannot_say_are_null() -> None:
    data = (GOLDEN / "golden-full.toml").read_bytes()
    entry = attrs.evolve(entry_from_toml(data, "x"), probe_confidence=float("inf"))
    assert entry_json(entry)["probe_confidence"] is None
