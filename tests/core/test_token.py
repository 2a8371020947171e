from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.core.token import TokenHash, hash_token, token_matches

SALT = b"saltsalt"
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT, ANY_TEXT)
def test_exactly_the_token_that_was_kept_matches(token: str, guess: str) -> None:
    kept = hash_token(token, SALT)
    assert token_matches(token, kept)
    assert token_matches(guess, kept) == (guess == token)


def test_the_token_itself_is_not_kept_and_equal_tokens_do_not_show() -> None:
    kept, again = hash_token("secret-token", SALT), hash_token("secret-token", b"pepper!!")
    assert "secret-token" not in repr(kept)
    assert kept.digest != again.digest
    assert token_matches("secret-token", again)


def test_no_token_matches_nothing_and_nothing_matches_no_token() -> None:
    assert not token_matches(None, hash_token("", SALT))
    assert not token_matches("", None)
    assert not token_matches(None, None)


@pytest.mark.parametrize(
    "damaged",
    [
        TokenHash(salt="not hex", digest="00"),
        TokenHash(salt="", digest=""),
        TokenHash(salt="é", digest="é"),
        attrs.evolve(hash_token("t", SALT), digest="\udcff"),
        attrs.evolve(hash_token("t", SALT), salt=""),
    ],
)
def test_a_damaged_hash_refuses_every_token_without_an_error(damaged: TokenHash) -> None:
    assert not token_matches("t", damaged)
    assert not token_matches("", damaged)
