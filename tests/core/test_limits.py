from __future__ import annotations

import math

import pytest

from heddle_registry.core.limits import (
    DEFAULT_TTL_S,
    MAX_ENTRY_BYTES,
    MAX_KEPT_QUERIES,
    MAX_SWEEP,
    MAX_THREAD_BYTES,
    MAX_TTL_S,
    check_session_id,
    check_thread,
    check_ttl,
    is_session_id,
)
from heddle_registry.errors import UsageError


def test_the_limits_are_those_that_the_reference_tells() -> None:
    assert (MAX_THREAD_BYTES, MAX_ENTRY_BYTES, MAX_KEPT_QUERIES) == (1_024, 1_048_576, 100)
    assert (DEFAULT_TTL_S, MAX_TTL_S, MAX_SWEEP) == (300.0, 2_592_000.0, 16)


@pytest.mark.parametrize("text", ["a", "agent-2b7", "-", "0" * 200])
def test_session_ids_of_the_alphabet_are_taken_up_to_200_characters(text: str) -> None:
    assert is_session_id(text)
    assert check_session_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 201,
        "..",
        "../../etc/passwd",
        "a/b",
        "a\\b",
        "A",
        "a_b",
        "a.toml",
        "a b",
        "a\n",
        "a\0b",
        "é",
        "\udcff",
        pytest.param("a" * 1_000_000, id="a megabyte"),
        None,
        7,
        b"a",
    ],
)
def test_anything_else_is_no_session_id_and_the_message_stays_short(text: object) -> None:
    with pytest.raises(UsageError) as refused:
        check_session_id(text)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 200
    str(refused.value).encode()


@pytest.mark.parametrize(
    "thread", ["main", "feature/login", "a b", "ветка", "🧵", "x" * 1_024, "é" * 512, ".."]
)
def test_branch_names_may_be_any_text_of_1_to_1024_bytes(thread: str) -> None:
    assert check_thread(thread) == thread


@pytest.mark.parametrize(
    "thread",
    [
        "",
        "x" * 1_025,
        "é" * 513,
        "a\nb",
        "a\0b",
        "\x1b[31m",
        "a\x7fb",
        "a\x9bb",
        "\udcff",
        None,
        7,
        b"main",
    ],
)
def test_empty_long_and_unprintable_branch_names_are_refused(thread: object) -> None:
    with pytest.raises(UsageError) as refused:
        check_thread(thread)  # type: ignore[arg-type]
    shown = str(refused.value)
    assert shown.isprintable(), "a control character must not reach the terminal"
    assert len(shown) < 200


@pytest.mark.parametrize("ttl_s", [1, 1.0, 300, 0.1 + 0.9, 30 * 86_400])
def test_a_ttl_from_1_second_to_30_days_is_taken_as_a_float(ttl_s: float) -> None:
    taken = check_ttl(ttl_s)
    assert taken == ttl_s
    assert isinstance(taken, float)


@pytest.mark.parametrize(
    "ttl_s",
    [
        0,
        -1,
        0.999,
        30 * 86_400 + 1,
        math.inf,
        -math.inf,
        math.nan,
        pytest.param(10**400, id="more than a float holds"),
        pytest.param(-(10**5_000), id="more digits than Python prints"),
        True,
        None,
        "300",
    ],
)
def test_any_other_ttl_is_refused_with_what_would_be_allowed(ttl_s: object) -> None:
    with pytest.raises(UsageError, match="30 days") as refused:
        check_ttl(ttl_s)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 200


def test_what_is_refused_is_shown_as_far_as_it_helps() -> None:
    for text, shown in (("A" * 78, "A" * 78), ("A" * 79, "A" * 76 + "...")):
        with pytest.raises(UsageError, match="no session id") as refused:
            check_session_id(text)
        assert refused.value.message.startswith(f"'{shown}")
    with pytest.raises(UsageError, match=r"0\.5 s is not allowed"):
        check_ttl(0.5)
    with pytest.raises(UsageError, match=r"2\.6e\+06 s is not allowed"):
        check_ttl(2_600_000)
    with pytest.raises(UsageError, match="that many seconds"):
        check_ttl(1e300)
    with pytest.raises(UsageError, match="has 2000 bytes"):
        check_thread("x" * 2_000)


@pytest.mark.parametrize("char", ["\x1f", "\x7f", "\x80", "\x9f"])
def test_every_control_character_is_one(char: str) -> None:
    with pytest.raises(UsageError, match="control character"):
        check_thread(f"a{char}b")


@pytest.mark.parametrize("char", [" ", "~", "\xa0"])
def test_their_neighbours_are_none(char: str) -> None:
    assert check_thread(f"a{char}b") == f"a{char}b"
