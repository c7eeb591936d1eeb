"""Content of HTTP responses: decompressed, and decoded with the character set that the server declares.

Invariant: whatever a peer sends, the content has at most the given size, and the time is proportional to it.
"""

import codecs
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from tickertape.producers.monitor.probes.options.patterns import show

from tickertape.errors import TickertapeError

_ENCODINGS: Final = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""Window sizes of zlib for each coding; 16 stands for the header of gzip."""

MAX_MEMBERS: Final = 1_000
"""Parts of a response with ``gzip`` that are decompressed, because they may be empty."""

_CHARSET: Final = re.compile(r"""charset\s*=\s*["']?([\w.:+-]+)""", re.IGNORECASE)
_TEXT_CODECS: Final = re.compile(
    r"utf|ascii|iso8859|iso2022|iso_8859|cp\d|gb|big5|shift|euc|koi8|johab|hz|mac_"
)
"""Beginnings of the names of character sets; Python has other codecs, some of which take quadratic time."""


class ContentError(TickertapeError, ValueError):
    """Error of a response whose content cannot be read."""


@dataclass(frozen=True, slots=True)
class Content:
    """Content of a response.

    Attributes:
        text: decoded text, in which invalid bytes are replaced.
        body: bytes before that.
        codec: codec of the text.
        truncated: whether the response has more.
    """

    text: str
    body: bytes
    codec: str
    truncated: bool

    def parse_json(self) -> Any:
        """Parse the content as JSON.

        Raises:
            ContentError: it is not JSON.
        """
        try:
            return orjson.loads(self.body if self.codec == "utf-8" else self.text)
        except orjson.JSONDecodeError:
            raise ContentError("response is not JSON") from None


def read_content(body: bytes, truncated: bool, headers: Mapping[str, str], limit: int) -> Content:
    """Decompress and decode the body of a response.

    Args:
        body: bytes of the body.
        truncated: whether the response has more.
        headers: headers by name in lower case.
        limit: maximum bytes of the content.

    Raises:
        ContentError: the coding is not known, or the body is not valid in it.
    """
    codings = [coding.strip().lower() for coding in headers.get("content-encoding", "").split(",")]
    for coding in reversed(codings):
        if coding in ("", "identity") or not body:
            continue
        if coding not in _ENCODINGS:
            raise ContentError(f"content coding is {show(coding, {})}, expected gzip, deflate or none")
        body, truncated = _decompress(body, truncated, coding, limit)
    body = body.removeprefix(codecs.BOM_UTF8)
    found = _CHARSET.search(headers.get("content-type", ""))
    codec = _codec(found[1] if found else "utf-8")
    return Content(body.decode(codec, errors="replace"), body, codec, truncated)


def _codec(name: str) -> str:
    """Return the codec of a character set; UTF-8 for an unknown one."""
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        return "utf-8"
    return codec if _TEXT_CODECS.match(codec) else "utf-8"


def _decompress(body: bytes, truncated: bool, coding: str, limit: int) -> tuple[bytes, bool]:
    content = bytearray()
    window = _ENCODINGS[coding]
    if coding == "deflate" and not _has_zlib_header(body):
        window = -zlib.MAX_WBITS  # as some servers send it
    for _ in range(MAX_MEMBERS):
        decompressor = zlib.decompressobj(window)
        try:
            content += decompressor.decompress(body, limit + 1 - len(content))
        except zlib.error:
            raise ContentError(f"response is not valid in the content coding {coding}") from None
        if len(content) > limit:
            return bytes(content[:limit]), True
        if not decompressor.eof:
            if truncated:
                return bytes(content), True
            raise ContentError(f"response ends within the content coding {coding}")
        body = decompressor.unused_data
        if not body:
            return bytes(content), truncated
        if coding == "deflate" or not body.startswith(b"\x1f\x8b"):
            return bytes(content), truncated  # padding, which decoders ignore
    raise ContentError(f"response has more than {MAX_MEMBERS} parts in the content coding {coding}")


def _has_zlib_header(body: bytes) -> bool:
    return len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
