"""From transcripts to totals per actor: positions, joins, faults."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from heddle_registry.adapters.garbage import collecting_seldom
from heddle_registry.adapters.position import (
    Position,
    absolute,
    continues,
    digest_of_stamps,
    is_all_told,
    look,
    position_of,
    stamp_of,
)
from heddle_registry.adapters.transcripts import (
    BLOCK_BYTES,
    NotAFileError,
    SourceFault,
    TranscriptSource,
)
from heddle_registry.adapters.usage_names import SourceActors
from heddle_registry.adapters.usage_report import UsageReport, rows_of
from heddle_registry.adapters.usage_row import DOCUMENT
from heddle_registry.core.readings import UsageReadings, readings_delta
from heddle_registry.core.usage import (
    UsageCounter,
    UsageRecord,
    counter_delta,
    instant_s,
    sum_totals,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from heddle_registry.adapters.usage_report import Prices
    from heddle_registry.adapters.usage_row import SourceRows
    from heddle_registry.adapters.usage_state import KnownSource, UsageState

    Records = Callable[[TranscriptSource], Iterable[UsageRecord | UsageCounter] | None]
    Source = tuple[str, str, str | None]
    Named = tuple[str, str]
    """Harness and path."""
    Window = tuple[float | None, float | None]
    """From when until when, in seconds since the epoch."""

WAITING_RECORDS: Final = 500
"""So many are made rows at once: one by one, between the lines, each costs twice as much."""
FLUSH_RECORDS: Final = 20_000
"""Records held in memory before they are joined with the stored ones (about 10 MB)."""
SMALL_BYTES: Final = 1 << 14
"""Enough for what was appended; a whole block takes a tenth of such a read's time to make."""
MANY_SOURCES: Final = 10
"""Of fewer, neither to put the collector off nor to keep the answer is worth its cost."""


def read_usage(
    sources: Sequence[Source],
    readers: Mapping[str, Records],
    state_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    since_s: float | None = None,
    until_s: float | None = None,
    prices: Prices | None = None,
) -> UsageReport:
    """Read what is new in each source and return the totals of every actor they hold.

    ``sources`` are ``(harness, path, actor key or None)``; the key names the actor of a transcript
    that names none itself. ``readers`` maps a harness to its plugin's ``heddle_usage``. With a
    ``state_dir`` the next read goes on where this one ended; where it cannot be written, or None,
    everything is read each time. ``progress`` is called with bytes read and bytes to read (an
    upper bound). ``since_s`` counts only records at or after that instant, ``until_s`` only those
    before it; a record without a time is before all others.

    Nothing raises because of a transcript or a plugin: that is a `SourceFault`. A source that is
    gone keeps the totals it had. Blocks for the time of the reading, and for another reader of
    the same state; both then find the same totals.
    """
    import sqlite3

    from heddle_registry.adapters.usage_state import STATE_FILE, remove_state

    if state_dir is not None:
        path = os.path.join(os.fspath(state_dir), STATE_FILE)
        for attempt in range(2):
            try:
                return _run(path, sources, readers, progress, (since_s, until_s), prices)
            except sqlite3.OperationalError:  # no permission, no folder, no space, no lock
                break
            except sqlite3.DatabaseError:
                if not attempt:
                    remove_state(path)
    return _run(None, sources, readers, progress, (since_s, until_s), prices)


def _run(
    path: str | None,
    sources: Sequence[Source],
    readers: Mapping[str, Records],
    progress: Callable[[int, int], None] | None,
    window: Window,
    prices: Prices | None,
) -> UsageReport:
    from heddle_registry.adapters.usage_state import UsageState

    state = UsageState(path)
    try:
        with collecting_seldom() if len(sources) >= MANY_SOURCES else nullcontext():
            return _Reading(state, readers, progress).run(sources, window, prices)
    finally:
        state.close()


def _why_unseen(path: str, *, is_known: bool) -> tuple[str, str]:
    """Return the code and the detail of a file that cannot be looked at."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        return "unreadable", getattr(error, "strerror", None) or str(error)
    if is_known:
        return "missing", "it is gone; its totals are those of the last read"
    return "missing", "there is no such file"


class _StateBroken(Exception):
    """The state, not the source, is at fault."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Reading:
    def __init__(
        self,
        state: UsageState,
        readers: Mapping[str, Records],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._state = state
        self._readers = readers
        self._progress = progress
        self._buffer = bytearray(SMALL_BYTES)
        self._done = self._whole = 0
        self._faults: list[SourceFault] = []
        self._is_kept = True
        """All faults are kept with their sources: the next read would find them again."""
        import sqlite3

        self._broken = sqlite3.Error

    def run(self, sources: Sequence[Source], window: Window, prices: Prices | None) -> UsageReport:
        state = self._state
        state.begin()
        keys = {(harness, absolute(path)): key for harness, path, key in sources}
        stamps = {named: stamp_of(named[1]) for named in keys}
        is_worth_it = window == (None, None) and len(keys) >= MANY_SOURCES
        asked = digest_of_stamps(stamps) if is_worth_it else b""
        answer = state.answer(asked)
        if answer is None:
            numbers = self._bring_up_to_date(keys, stamps)
            found = state.records.groups(numbers, *window)
            state.commit(asked if self._is_kept else b"", numbers, found, self._faults)
        else:
            numbers = dict(zip(answer.sources, (path for _, path in keys), strict=True))
            found, self._faults = answer.found, answer.faults
            state.commit()
        rows = rows_of(found, numbers, prices)
        return UsageReport(
            rows=rows,
            faults=tuple(dict.fromkeys(self._faults)),
            totals=sum_totals(row.totals for row in rows),
        )

    def _bring_up_to_date(
        self, keys: Mapping[Named, str | None], stamps: Mapping[Named, bytes]
    ) -> dict[int, str]:
        """Read what is new, and return the paths by the numbers of the sources that are known."""
        state, before, numbers = self._state, self._state.stamps(keys), dict.fromkeys(keys, 0)
        touched: dict[Named, Position | None] = {}
        for named, stamp in stamps.items():
            numbers[named], known_stamp = before.get(named, (0, b""))
            if stamp != known_stamp or not is_all_told(stamp):
                touched[named] = position_of(stamp) if stamp else None
        self._whole = sum(now.size for now in touched.values() if now is not None)
        again: list[Named] = []
        for named, now in touched.items():
            known = state.source(*named) if numbers[named] else None
            numbers[named] = self._read(*named, keys[named], now, known, again)
        while again:  # sources that share records with one that was rewritten
            harness, path = again.pop()
            known = state.source(harness, path)
            if known is None or known.position is not None:
                continue
            faults = len(self._faults)
            self._read(harness, path, keys.get((harness, path)), look(path), known, again)
            if (harness, path) not in keys:
                del self._faults[faults:]
        return {number: path for (_, path), number in numbers.items() if number}

    def _read(
        self,
        harness: str,
        path: str,
        key: str | None,
        now: Position | None,
        known: KnownSource | None,
        again: list[Named],
    ) -> int:
        """Bring one source up to date and return its number; 0 if nothing is known of it."""
        reader = self._readers.get(harness)
        if now is None or reader is None:
            code, detail = "no_reader", f"no plugin reads the transcripts of {harness!r}"
            if now is None:
                code, detail = _why_unseen(path, is_known=known is not None)
            self._passing_fault(path, code, detail)
            return known.source if known else 0
        if known is not None and known.position is not None:
            held = known.position
            if held.stamp == now.stamp and not now.is_folder:
                self._faults += known.faults
                return known.source
            if continues(held, now, path):
                now = now._replace(offset=held.offset, check=held.check, skipping=held.skipping)
            else:
                again += self._state.forget(known)
        try:
            known = known or self._state.add_source(now.mtime_ns)
            self._fold(reader, harness, path, key, known, now)
        except _StateBroken as error:
            raise error.cause from error
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
            # The position stays where it was: the next read tries again.
            self._state.rollback()
            code, detail = "plugin", f"{type(error).__name__}: {error}"
            if isinstance(error, OSError):
                code = "not_a_file" if isinstance(error, NotAFileError) else "unreadable"
                detail = error.strerror or "it is no regular file"
                if os.path.isdir(path):
                    detail = f"there is no transcript of {harness} in that folder"
            self._passing_fault(path, code, detail)
            found = self._state.source(harness, path)
            return found.source if found else 0
        self._state.release()
        return known.source

    def _passing_fault(self, path: str, code: str, detail: str) -> None:
        """Note a fault that the state does not keep with its source."""
        self._faults.append(SourceFault(path=path, code=code, detail=detail))
        self._is_kept = False

    def _fold(
        self,
        reader: Records,
        harness: str,
        path: str,
        key: str | None,
        known: KnownSource,
        now: Position,
    ) -> None:
        if now.size - now.offset > len(self._buffer):
            self._buffer = bytearray(BLOCK_BYTES)
        source = TranscriptSource(
            harness,
            path,
            position=now,
            memory=known.memory,
            progress=self._advance if self._progress is not None else None,
            buffer=self._buffer,
        )
        source.faults = [fault for fault in known.faults if now.offset]
        series: dict[str, list[int]] = source.memory.setdefault("_series", {})
        records, own = self._state.records, key or f"{harness}:path:{path}"
        actors = SourceActors(records.names, harness, known.source, own)
        part = records.of(harness, known.source, actors)
        waiting: list[UsageRecord] = []
        began, declared = known.began, None
        for answer in reader(source) or ():
            try:
                if source.actor is not declared:
                    self._add(part, waiting, source)
                    declared = source.actor
                    actors.declare(declared)
                if type(answer) is UsageRecord:
                    record: UsageRecord | None = answer
                elif isinstance(answer, UsageReadings):
                    deltas, series[answer.series] = readings_delta(
                        answer, series.get(answer.series)
                    )
                    ats = (instant_s(delta[1]) for delta in deltas)
                    known.began = began = began or next(filter(None, ats), 0.0)
                    _note_kind(part, source)
                    part.add_deltas(deltas, answer.actor, answer.model)
                    record = None
                elif isinstance(answer, UsageCounter):
                    record, series[answer.series] = counter_delta(answer, series.get(answer.series))
                else:
                    raise TypeError(
                        f"heddle_usage answered {type(answer).__name__}, "
                        "not UsageRecord, UsageCounter or UsageReadings"
                    )
                if record is not None:
                    waiting.append(record)
                    if not began and record.at is not None:
                        known.began = began = instant_s(record.at)
                    if len(waiting) >= WAITING_RECORDS:
                        self._add(part, waiting, source)
                if len(part.rows) >= FLUSH_RECORDS:
                    self._flush(source, known, part)
            except self._broken as error:
                raise _StateBroken(error) from error
        if not series:
            del source.memory["_series"]
        self._add(part, waiting, source)
        named = [source.actor] if source.actor is not None else []
        for name in (*named, *source.parents):  # an actor without usage yet is an answer too
            records.names.actor(harness, f"{harness}:{name}", known.source, told=True)
        self._flush(source, known, part)
        for child, parent in source.parents.items():
            records.names.link(f"{harness}:{child}", f"{harness}:{parent}")
        known.position, known.memory, known.faults = source.position, source.memory, source.faults
        self._faults += source.faults
        self._state.save_source(harness, path, known)

    def _add(self, part: SourceRows, waiting: list[UsageRecord], source: TranscriptSource) -> None:
        if waiting:
            _note_kind(part, source)
            part.add(waiting)
            waiting.clear()

    def _flush(self, source: TranscriptSource, known: KnownSource, part: SourceRows) -> None:
        rows, part.rows = part.rows, {}
        try:
            self._state.records.join(known.source, known.rank(source.path), rows)
        except self._broken as error:
            raise _StateBroken(error) from error

    def _advance(self, size: int) -> None:
        self._done += size
        assert self._progress is not None  # noqa: S101 - else it is not handed out
        self._progress(self._done, max(self._whole, self._done))


def _note_kind(part: SourceRows, source: TranscriptSource) -> None:
    if source.position is not None and source.position.whole:
        part.kind = DOCUMENT
