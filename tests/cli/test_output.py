from __future__ import annotations

import json
import sys

import pytest

from heddle_registry.cli import output
from heddle_registry.errors import ClaimLost


def test_an_answer_without_a_stdout_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with pytest.raises(OSError, match="standard output"):
            output.print_answer("x")


def test_errors_of_ours_and_of_others_have_one_shape(capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in ((ClaimLost("main"), "claim_lost"), (ValueError("\udcff"), "internal")):
        output.print_error(error)
        answer = json.loads(capsys.readouterr().out)
        assert answer["schema"] == "heddle-registry/1"
        assert set(answer["error"]) == {"code", "message", "hint"}
        assert answer["error"]["code"] == code
