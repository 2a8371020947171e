"""Checks that any usage plugin must pass, for the plugin's own repository.

One line does it, with a transcript of the real program and what is right for it:

    import heddle_registry_acme
    from heddle_registry.testing.usage_kit import Transcript, usage_contract

    TestAcmeUsage = usage_contract(heddle_registry_acme, [
        Transcript("acme", "s1.jsonl", open("s1.jsonl", "rb").read(),
                   {"acme:session:s1": {"input_tokens": 120, "output_tokens": 7}}),
    ])

Each transcript is read whole, in pieces, again, beside a copy of itself, cut off and damaged.
"""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.adapters.usage_reader import read_usage
from heddle_registry.plugins import Plugins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from heddle_registry.adapters.usage_report import UsageReport
    from heddle_registry.core.usage import UsageTotals

_CUTS: Final = 24
_NOISE: Final = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"output_tokens"',
    b'{"usage":7}',
    b"\xff\xfe",
    b"{}{}",
)


@attrs.frozen
class Transcript:
    """A transcript and what is right for it.

    ``expected`` maps an actor's key to fields of `heddle_registry.core.usage.UsageTotals`; those
    that are not named are not looked at. ``by_line`` False: the harness writes the file as a
    whole, so that no part of it can be read alone.
    """

    harness: str
    name: str
    content: bytes = attrs.field(repr=False)
    expected: Mapping[str, Mapping[str, int | None]]
    by_line: bool = True


def check_usage(plugin: object, transcripts: Iterable[Transcript], *, name: str = "plugin") -> None:
    """Run every check; raise an `AssertionError` that lists everything that is wrong.

    :param plugin: the plugin's module
    :param name: what it is registered as
    """
    problems: list[str] = []
    for transcript in transcripts:
        for check in _CHECKS:
            try:
                check(_Kit(plugin, name, transcript))
            except AssertionError as failure:
                title = check.__name__.removeprefix("check_")
                problems.append(f"{transcript.name}, {title}: {failure}")
    if problems:
        raise AssertionError("\n".join(["the usage does not pass:", *problems]))


def usage_contract(
    plugin: object, transcripts: Iterable[Transcript], *, name: str = "plugin"
) -> type:
    """Return a class for pytest with one test a check."""
    given = tuple(transcripts)

    def test(check: Callable[[_Kit], None]) -> Callable[[object], None]:
        def run(_self: object) -> None:
            for transcript in given:
                check(_Kit(plugin, name, transcript))

        run.__doc__ = check.__doc__
        return run

    body = {"test_" + c.__name__.removeprefix("check_"): test(c) for c in _CHECKS}
    return type("TestUsageContract", (), body)


@attrs.frozen
class _Kit:
    plugin: object
    plugin_name: str
    transcript: Transcript

    def read(self, *paths: str, state_dir: str | None = None) -> UsageReport:
        plugins = Plugins([(self.plugin_name, self.plugin)])
        readers = plugins.usage_readers()
        _require(not plugins.faults, "; ".join(map(str, plugins.faults)))
        harness = self.transcript.harness
        _require(harness in readers, f"no heddle_usage for the harness {harness!r}")
        return read_usage([(harness, path, None) for path in paths], readers, state_dir)

    def file(self, folder: str, content: bytes | None = None, below: str = "") -> str:
        path = os.path.join(folder, below, self.transcript.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(self.transcript.content if content is None else content)
        return path

    def whole(self) -> UsageReport:
        with TemporaryDirectory() as folder:
            return self.read(self.file(folder))


def check_counts_what_is_right(kit: _Kit) -> None:
    """Every actor that is named has the totals that are named, and nothing is a fault."""
    report = kit.whole()
    _require(not report.faults, f"faults: {report.faults}")
    rows = {row.actor: row.totals for row in report.rows}
    for actor, expected in kit.transcript.expected.items():
        _require(actor in rows, f"there is no actor {actor}; there are {sorted(rows)}")
        found = {field: getattr(rows[actor], field) for field in expected}
        _require(found == dict(expected), f"{actor} has {found}, expected {dict(expected)}")


def check_counts_the_same_in_pieces(kit: _Kit) -> None:
    """Growing by any pieces, each read at once, gives the totals of the whole."""
    content = kit.transcript.content
    if not kit.transcript.by_line:
        return
    wanted = _numbers(kit.whole())
    for pieces in (2, 3, 11):
        with TemporaryDirectory() as folder:
            path = kit.file(folder, b"")
            step = len(content) // pieces + 1
            for start in range(0, len(content), step):
                with open(path, "ab") as file:
                    file.write(content[start : start + step])
                report = kit.read(path, state_dir=folder)
            _require(_numbers(report) == wanted, f"in {pieces} pieces it has other totals")


def check_counts_once(kit: _Kit) -> None:
    """Neither a second read nor a copy under another folder adds anything to an actor with ids."""
    with TemporaryDirectory() as folder:
        path = kit.file(folder)
        first = kit.read(path, state_dir=folder)
        _require(_numbers(kit.read(path, state_dir=folder)) == _numbers(first), "read again")
        both = _numbers(kit.read(path, kit.file(folder, below="copy"), state_dir=folder))
        for actor, totals in _numbers(first).items():
            if ":" in actor:  # else it has no ids, and a copy of its file is another actor
                _require(both.get(actor) == totals, f"{actor} has other totals beside a copy")


def check_survives_any_end(kit: _Kit) -> None:
    """Wherever the file is cut off, the plugin raises nothing."""
    content = kit.transcript.content
    step = len(content) // _CUTS + 1
    with TemporaryDirectory() as folder:
        for end in range(0, len(content), step):
            report = kit.read(kit.file(folder, content[:end]))
            raised = [fault.detail for fault in report.faults if fault.code == "plugin"]
            _require(not raised, f"cut off after {end} bytes: {raised}")


def check_survives_noise(kit: _Kit) -> None:
    """Lines that are not the harness's cost themselves alone."""
    if not kit.transcript.by_line:
        return
    lines = kit.transcript.content.split(b"\n")
    noisy = b"\n".join(
        line + b"\n" + _NOISE[place % len(_NOISE)] for place, line in enumerate(lines)
    )
    with TemporaryDirectory() as folder:
        report = kit.read(kit.file(folder, noisy))
    raised = [fault.detail for fault in report.faults if fault.code == "plugin"]
    _require(not raised, f"it raised: {raised}")
    _require(_tokens(report) == _tokens(kit.whole()), "it has other totals")


_CHECKS: Final = (
    check_counts_what_is_right,
    check_counts_the_same_in_pieces,
    check_counts_once,
    check_survives_any_end,
    check_survives_noise,
)


def _numbers(report: UsageReport) -> dict[str, UsageTotals]:
    # An actor that only its path names is the same one in another folder.
    return {row.actor.partition(":path:")[0]: row.totals for row in report.rows}


def _tokens(report: UsageReport) -> tuple[int, int, int]:
    totals = report.totals
    return totals.total_tokens, totals.requests, totals.tool_calls


def _require(holds: object, otherwise: str) -> None:
    # A statement would be gone under python -O, and every plugin would pass.
    if not holds:
        raise AssertionError(otherwise)
