"""Conditions of the probe ``http`` on coded content and on repeated headers."""

import asyncio
import gzip
import zlib
from typing import Any

import pytest

from tests.support.probing import answering, outcome_and_error, probe_once, serving


def probe_response(content: bytes, head: bytes, **settings: Any) -> str:
    """Probe a server that sends a response; return the error."""

    async def main() -> str:
        async with serving(answering(content, head)) as port:
            url = f"http://127.0.0.1:{port}/"
            return outcome_and_error(await probe_once(kind="http", url=url, **settings))[1]

    return asyncio.run(main())


STATE = '{"state": "正常"}'
PACKED = gzip.compress(STATE.encode())
DEFLATED = zlib.compress(STATE.encode())
INVALID = {
    "br": "content coding is 'br', expected gzip, deflate or none",
    "cut": "response ends within the content coding gzip",
    "parts": "response has more than 1000 parts in the content coding gzip",
}


@pytest.mark.parametrize(
    ("body", "field", "error"),
    [
        (PACKED, "Content-Encoding: gzip", None),
        (gzip.compress(b"") + PACKED, "Content-Encoding: X-GZIP", None),
        (PACKED + b"\0" * 9, "Content-Encoding: gzip", None),
        (DEFLATED, "Content-Encoding: deflate", None),
        (DEFLATED[2:-4], "Content-Encoding: deflate", None),
        (zlib.compress(PACKED), "Content-Encoding: gzip, deflate", None),
        (STATE.encode(), "Content-Encoding: identity", None),
        (STATE.encode("utf-8-sig"), "Content-Type: application/json", None),
        (STATE.encode("gbk"), "Content-Type: application/json; charset=GBK", None),
        (STATE.encode("utf-16"), 'Content-Type: application/json;charset="utf-16"', None),
        (STATE.encode(), "Content-Type: application/json; charset=punycode", None),
        (STATE.encode(), "Content-Type: application/json; charset=none", None),
        (b"plain", "Content-Encoding: gzip", "response is not valid in the content coding gzip"),
        (PACKED[:-9], "Content-Encoding: gzip", INVALID["cut"]),
        (b"x", "Content-Encoding: br", INVALID["br"]),
        (gzip.compress(b"") * 1001, "Content-Encoding: gzip", INVALID["parts"]),
        (gzip.compress(b"x" * 9_000_000), "Content-Encoding: gzip", "response does not contain '正常'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_content_is_decompressed_and_decoded(body: bytes, field: str, error: str | None) -> None:
    """Conditions see the content, in whatever coding and character set it is sent, up to a size."""
    settings = {"body": "正常", "body_matches": "^.{11}正常", "json": {"state": "正常"}}
    assert probe_response(body, f"HTTP/1.1 200 OK\r\n{field}\r\n".encode(), **settings) == str(error)


def test_a_coded_response_does_not_hide_a_word() -> None:
    """A condition that a word is absent fails for content that cannot be read, or is too large."""
    for coding, body, error in (
        ("br", b"x", INVALID["br"]),
        ("gzip", gzip.compress(b"an error"), "response matches 'error': 'an error'"),
        ("gzip", gzip.compress(b"x" * 2_000_000 + b"error"), "response is larger than 1048576 bytes, "
         "expected less for these conditions"),
    ):  # fmt: skip
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n".encode()
        assert probe_response(body, head, body_not_matches="error") == error
        assert probe_response(body, head) == "None"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"header_matches": {"Set-Cookie": "^sid="}}, None),
        ({"header_matches": {"Set-Cookie": "^lang="}}, None),
        ({"header_matches": {"Set-Cookie": "^x="}}, "header Set-Cookie is 'sid=1, lang=de', expected '^x='"),
        ({"header_not_matches": {"Set-Cookie": "^sid="}},
         "header Set-Cookie is 'sid=1, lang=de', expected not '^sid='"),
        ({"header_not_matches": {"Set-Cookie": "^x="}}, None),
    ],
)  # fmt: skip
def test_one_of_repeated_headers_matches(settings: dict[str, Any], error: str | None) -> None:
    """One value of a repeated header must match, and none may match."""
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=1\r\nSet-Cookie: lang=de\r\n"
    assert probe_response(b"", head, **settings) == str(error)
