"""Whatever a signature looks like, nothing of it is left."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platforms.azure.redaction import redacted


@given(st.binary(min_size=32, max_size=32))
def test_no_signature_is_left(secret: bytes) -> None:
    signature = quote(base64.b64encode(secret).decode(), safe="")
    url = f"https://md-1.blob.example/abc/abcd?snapshot=1&sr=bs&si=policy&sig={signature}"
    for text in (url, f"GET {url} HTTP/1.1", f"at {quote(url, safe='')} and on", f"('{url}')"):
        assert signature not in redacted(text)
        assert quote(signature, safe="") not in redacted(text)
        assert "policy" not in redacted(text)


@pytest.mark.parametrize(
    "text", ["nothing to hide", "GET /x?comp=pagelist&maxresults=5", "a&b?c sig is a word"]
)
def test_the_rest_is_left_alone(text: str) -> None:
    assert redacted(text) == text
