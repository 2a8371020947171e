from __future__ import annotations

import itertools
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.core import timestamp
from heddle_registry.core.timestamp import Instant, Timestamp

UTC_TIMES = st.datetimes(timezones=st.just(UTC))


@pytest.mark.parametrize(
    "text",
    [
        "2026-07-01T12:00:00Z",
        "2026-07-01t12:00:00z",
        "2026-07-01 12:00:00Z",
        "2026-07-01T12:00:00.123456700Z",
        "2026-07-01T12:00:00.12345678901234Z",
        "2026-07-01T12:00:00+02:30",
        "2026-07-01T12:00:00-0500",
        "1969-12-31T23:59:59.500Z",
        "2016-12-31T23:59:60.500Z",
        "0000-01-01T00:00:00Z",
        "-0001-01-01T00:00:00Z",
        "+12345-01-01T00:00:00Z",
        "2024-02-29T00:00:00Z",
    ],
)
def test_whatever_the_original_writes_or_reads_keeps_its_digits(text: str) -> None:
    assert str(Timestamp(text)) == text
    quickly = Timestamp.read(text)
    assert (quickly.text, quickly.sort_key) == (text, Timestamp(text).sort_key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-07-01",
        "2026-07-01T12:00:00",
        "2026-13-01T12:00:00Z",
        "2026-02-29T12:00:00Z",
        "2026-07-01T24:00:00Z",
        "2026-07-01T12:60:00Z",
        "2026-07-01T12:00:61Z",
        "2026-07-01T12:00:00.Z",
        "2026-07-01T12:00:00Z\n",
        "26-07-01T12:00:00Z",
        "2026-W27-3T12:00:00Z",
        "2026-07-01x12:00:00Z",
        "2026-07-01T120000.0Z",
        "2026-07-01T12-00-00Z",
        "2026-07-01T12:00:00x",
        "2026-07-01T12:00:00,5Z",
        "2026-07-01T12:00:00.5.5Z",
        "2026-07-01T12:00:00x5Z",
        "2026-07-01T12:00:00.\u0663Z",
        "2026-07-01T12:00:00.+5Z",
        "２０２６-07-01T12:00:00Z",  # noqa: RUF001 - full-width digits are no digits here
        pytest.param("x" * 100_000, id="long"),
        None,
        1_782_907_200,
        datetime(2026, 7, 1, tzinfo=UTC),
    ],
)
def test_what_is_no_timestamp_is_refused_with_a_value_error(text: object) -> None:
    with pytest.raises(ValueError, match="no"):
        Timestamp(text)  # type: ignore[arg-type]
    if isinstance(text, str):
        with pytest.raises(ValueError, match="no"):
            Timestamp.read(text)


def test_timestamps_sort_by_instant_whatever_their_digits_year_or_offset() -> None:
    in_order = [
        "-0001-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
        "0999-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00Z",
        "2016-12-31T23:59:59.999999999Z",
        "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:60.500Z",
        "2017-01-01T00:00:00Z",
        "2026-07-01T12:00:00+02:30",
        "2026-07-01T12:00:00.100Z",
        "2026-07-01T12:00:00.12Z",
        "2026-07-01T12:00:00-00:01",
        "+12345-01-01T00:00:00Z",
    ]
    stamps = [Timestamp(text) for text in in_order]
    assert all(earlier < later and later > earlier for earlier, later in itertools.pairwise(stamps))


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2026-07-01T12:00:00+02:30", "2026-07-01T09:30:00Z"),
        ("2026-07-01T12:00:00-0545", "2026-07-01T17:45:00Z"),
        ("2026-07-01T12:00:00.123456789999Z", "2026-07-01T12:00:00.123456789Z"),
        ("2026-07-01t12:00:00.123456789999z", "2026-07-01T12:00:00.123456789Z"),
        ("2026-07-01T12:00:00.5Z", "2026-07-01T12:00:00.500000Z"),
        ("2026-07-01 23:59:59.5z", "2026-07-01T23:59:59.500Z"),
        ("2016-12-31T23:59:60.5z", "2016-12-31T23:59:60.500Z"),
    ],
)
def test_two_spellings_of_one_instant_have_one_place_in_time(text: str, same_as: str) -> None:
    assert Timestamp(text).sort_key == Timestamp(same_as).sort_key


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("1970-01-01T00:00:00Z", 0, 0),
        ("1970-01-02T01:02:03.000000004Z", 90_123, 4),
        ("1969-12-31t23:59:59.5z", -1, 500_000_000),
        ("2016-12-31T23:59:60.5Z", 1_483_228_799, 1_500_000_000),
        ("0000-01-01T00:00:00Z", -62_167_219_200, 0),
        ("-0001-01-01T00:00:00Z", -62_198_755_200, 0),
        ("+12345-01-01T00:00:00Z", 327_403_382_400, 0),
    ],
)
def test_an_instant_is_seconds_and_nanoseconds_since_1970(
    text: str, seconds: int, nanos: int
) -> None:
    stamp = Timestamp(text)
    assert stamp.sort_key == (seconds, nanos)
    assert stamp.unix_ns == seconds * 10**9 + nanos


@pytest.mark.parametrize(
    ("unix_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_000_000, "1970-01-01T00:00:00.001Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_999_999_999, "1970-01-01T00:00:01.999999999Z"),
        (1_999_999_000, "1970-01-01T00:00:01.999999Z"),
        (1_999_000_000, "1970-01-01T00:00:01.999Z"),
    ],
)
def test_an_instant_is_written_as_the_original_writes_it(unix_ns: int, text: str) -> None:
    stamp = Timestamp.from_unix_ns(unix_ns)
    assert stamp.text == text
    assert stamp.sort_key == Timestamp(text).sort_key


def test_one_instant_in_two_spellings_is_neither_earlier_nor_equal() -> None:
    one, other = Timestamp("2026-07-01T12:00:00Z"), Timestamp("2026-07-01T14:00:00.0+02:00")
    assert one <= other
    assert other <= one
    assert not one < other
    assert not one > other
    assert one >= other
    assert one != other, "a rewrite that changes digits must be visible"


@given(UTC_TIMES)
def test_every_datetime_survives_the_way_there_and_back(instant: datetime) -> None:
    stamp = Timestamp.from_datetime(instant)
    assert stamp.datetime == instant
    assert Timestamp.from_unix_ns(stamp.unix_ns) == stamp


@given(UTC_TIMES)
def test_the_usual_spelling_means_the_same_as_an_unusual_one(instant: datetime) -> None:
    # The usual one is read along a shorter way.
    usual = Timestamp.from_datetime(instant)
    for unusual in (usual.text.replace("Z", "z"), usual.text.replace("Z", "+00:00")):
        assert Timestamp(unusual).sort_key == usual.sort_key


@given(UTC_TIMES, UTC_TIMES)
def test_timestamps_sort_as_their_datetimes_do(one: datetime, other: datetime) -> None:
    assert (Timestamp.from_datetime(one) < Timestamp.from_datetime(other)) == (one < other)


@given(st.integers(-(2**61), 2**61))
def test_nanoseconds_are_kept_in_the_shortest_of_0_3_6_or_9_digits(unix_ns: int) -> None:
    stamp = Timestamp.from_unix_ns(unix_ns)
    assert stamp.unix_ns == unix_ns
    fraction = stamp.text.removesuffix("Z").partition(".")[2]
    assert len(fraction) in (0, 3, 6, 9)
    assert not fraction.endswith("000")


def test_an_aware_datetime_of_any_zone_becomes_utc_and_a_naive_one_is_refused() -> None:
    zone = timezone(timedelta(hours=2, minutes=30))
    stamp = Timestamp.from_datetime(datetime(2026, 7, 1, 14, 30, tzinfo=zone))
    assert stamp.text == "2026-07-01T12:00:00Z"
    with pytest.raises(ValueError, match="time zone"):
        Timestamp.from_datetime(datetime(2026, 7, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    "text", ["2016-12-31T23:59:60Z", "-0001-01-01T00:00:00Z", "+12345-01-01T00:00:00Z"]
)
def test_what_datetime_cannot_say_is_none_there(text: str) -> None:
    assert Timestamp(text).datetime is None


def instant(wall_s: int, awake_s: int, boot: str = "boot", time_ns: str = "T") -> Instant:
    return Instant(
        at=Timestamp.from_unix_ns(wall_s * 10**9),
        awake_ns=awake_s * 10**9,
        boot_id=boot,
        time_ns=time_ns,
    )


@pytest.mark.parametrize("wall_step_s", [0, 3_600, -3_600])
def test_neither_sleep_nor_a_stepped_wall_clock_moves_the_awake_clock(wall_step_s: int) -> None:
    earlier, now = instant(1_000, 50), instant(1_010 + wall_step_s, 60)
    assert now.seconds_since(earlier) == (10.0, False)


@pytest.mark.parametrize(
    "earlier",
    [
        instant(1_000, 9_999, boot="another"),
        instant(1_000, 9_999, time_ns="another"),
    ],
)
def test_after_a_reboot_or_from_another_time_namespace_the_wall_clock_tells(
    earlier: Instant,
) -> None:
    assert instant(1_010, 60).seconds_since(earlier) == (10.0, True)


def test_two_unknown_boots_are_not_taken_for_one() -> None:
    assert instant(1_010, 60, boot="").seconds_since(instant(1_000, 0, boot="")) == (10.0, True)


def test_a_trusted_text_is_looked_at_only_when_it_is_compared():
    read, trusted = Timestamp("2026-07-01T12:00:00.5Z"), Timestamp.trusted("2026-07-01T12:00:00.5Z")
    assert trusted == read
    assert hash(trusted) == hash(read)
    assert not trusted < read
    assert (trusted.sort_key, trusted.unix_ns) == (read.sort_key, read.unix_ns)
    assert pickle.loads(pickle.dumps(Timestamp.trusted(read.text))).sort_key == read.sort_key
    with pytest.raises(AttributeError):
        _ = trusted.nothing


@pytest.mark.parametrize(
    "text",
    ["2026-07-01T12:00:00Z", "2026-07-01T12:00:00.5Z", "1999-12-31T23:59:59.123456789Z"],
)
def test_the_usual_spelling_is_read_without_the_pattern_that_reads_all_others(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reading a thousand entries is mostly reading their instants.
    slow = Timestamp(text.replace("Z", "+00:00")).sort_key
    monkeypatch.setattr(timestamp, "_form", None)
    assert Timestamp(text).sort_key == slow


def test_a_key_that_was_vouched_for_is_not_worked_out_and_a_trusted_one_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Timestamp.vouched("whatever it says", (1, 2)).sort_key == (1, 2)
    trusted = Timestamp.trusted("2026-07-01T12:00:00Z")
    key = trusted.sort_key
    monkeypatch.setattr(timestamp, "_sort_key", None)
    assert trusted.sort_key == key
