from __future__ import annotations

from importlib.util import find_spec

import pytest

from heddle_registry.cli.arguments import verb_parser
from heddle_registry.cli.verbs import VERBS, exit_status, load_verb
from heddle_registry.errors import UsageError


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_in_the_table_has_a_module_with_a_parser_and_a_body(name: str) -> None:
    module, summary = VERBS[name]
    assert find_spec(module) is not None
    assert summary
    verb = load_verb(name)
    parser = verb_parser(name, summary)
    verb.configure(parser)
    assert callable(verb.run)
    assert all(action.help for action in parser._actions), "an option without help"


def test_a_verb_may_end_with_a_status_of_its_own_for_an_error() -> None:
    class Own:
        @staticmethod
        def exit_status(_: object) -> int:
            return 125

    error = UsageError("x")
    assert exit_status(Own(), error) == 125  # type: ignore[arg-type]
    assert exit_status(None, error) == 2
