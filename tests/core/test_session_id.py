from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.core.limits import is_session_id
from heddle_registry.core.session_id import RANDOM_BYTES, encode_session_id


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_every_generated_id_is_one_the_original_would_accept(random_bytes: bytes) -> None:
    generated = encode_session_id(random_bytes)
    assert generated.startswith("agent-")
    assert len(generated) == len("agent-") + 20
    assert is_session_id(generated)


def test_the_spelling_is_rfc_4648_base32_in_lower_case_without_padding() -> None:
    # The RFC's own vectors: "fooba" is MZXW6YTB, "fo" is MZXQ====.
    assert encode_session_id(b"foobafoobafo") == "agent-mzxw6ytbmzxw6ytbmzxq"
    assert encode_session_id(bytes(12)) == "agent-" + "a" * 20
    assert encode_session_id(b"\xff" * 12) == "agent-" + "7" * 19 + "q"


@given(st.binary(min_size=12, max_size=12), st.binary(min_size=12, max_size=12))
def test_different_bytes_give_different_ids(one: bytes, other: bytes) -> None:
    assert (encode_session_id(one) == encode_session_id(other)) == (one == other)


@pytest.mark.parametrize("random_bytes", [b"", b"x" * 11, b"x" * 13])
def test_too_few_random_bytes_never_make_an_id(random_bytes: bytes) -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        encode_session_id(random_bytes)
