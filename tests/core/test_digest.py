from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.core.digest import is_same, sha256_hex
from tests.process_helpers import ROOT


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_it_says_what_hashlib_and_hmac_say(one, other):
    assert sha256_hex(one) == hashlib.sha256(one).hexdigest()
    assert is_same(one, other) == hmac.compare_digest(one, other)
    assert is_same(one, bytes(one))


def test_it_loads_no_openssl():
    code = (
        "import sys; from heddle_registry.core.digest import sha256_hex; sha256_hex(b'');"
        "sys.exit('hashlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
