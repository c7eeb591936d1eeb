"""Names of encodings: those that ``--encoding`` accepts, and the codec of each."""

import codecs
import re
from typing import Final

AUTO: Final = "auto"
"""Name for the encoding that is detected for each file."""

UTF_8: Final = "utf-8"
UTF_16: Final = "utf-16"
UTF_16_LE: Final = "utf-16-le"
UTF_16_BE: Final = "utf-16-be"
LATIN_1: Final = "latin-1"

WIDE: Final = (UTF_16_LE, UTF_16_BE)
"""Encodings with two bytes in a line break."""

CODECS: Final = {"gb18030": "gb18030", "shift_jis": "cp932", "euc-jp": "euc_jp", "big5": "cp950"}
"""Codecs of names that stand for a superset, as in browsers: what Windows writes is read as well."""

_ALIASES: Final = {
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "shift_jis", "cp932": "shift_jis", "euc_jp": "euc-jp",
    "big5": "big5", "cp950": "big5", "iso8859-1": LATIN_1, "utf-8-sig": UTF_8, UTF_8: UTF_8,
    UTF_16: UTF_16, UTF_16_LE: UTF_16_LE, UTF_16_BE: UTF_16_BE,
}  # fmt: skip

_ASCII: Final = bytes(range(128))
_ESCAPE: Final = b"\\u0041"
# In Western Windows, some of the control characters that latin-1 has here are typographic characters.
_HAS_WINDOWS: Final = re.compile(rb"[\x80-\x9f]").search
_WINDOWS: Final = {byte: bytes((byte,)).decode("cp1252", "ignore") or byte for byte in range(0x80, 0xA0)}


def parse_encoding(text: str) -> str:
    """Return the canonical name of an encoding.

    Raises:
        ValueError: it is unknown, or its line breaks are not those of ASCII.
    """
    if text.lower() == AUTO:
        return AUTO
    try:
        name = codecs.lookup(text).name
    except (LookupError, ValueError):
        raise ValueError(
            f"{text!r} is not an encoding; use auto, utf-8, utf-16, latin-1, gb18030, shift_jis or another"
        ) from None
    if name in _ALIASES or name in CODECS:
        return _ALIASES.get(name, name)
    try:
        if name != "idna" and all(one.decode(name) == one.decode("ascii") for one in (_ESCAPE, _ASCII)):
            return name
    except (LookupError, UnicodeError):
        pass
    raise ValueError(f"{text!r} does not extend ASCII, so no lines can be found in it; use another encoding")


def decode_as(line: bytes, name: str, *, truncated: bool = False) -> str | None:
    """Decode a line; return None if it has bytes that are not valid in the encoding.

    Args:
        line: any bytes.
        name: canonical name of an encoding that extends ASCII.
        truncated: the line is truncated; an incomplete character at its end is dropped.
    """
    if name == LATIN_1:
        return _decode_latin_1(line)
    codec = CODECS.get(name, name)
    try:
        return line.decode(codec)
    except UnicodeDecodeError as error:
        if truncated and error.end == len(line) and len(line) - error.start < 4:
            return line[: error.start].decode(codec)
    return None


def replace_as(line: bytes, name: str) -> str:
    """Decode a line with U+FFFD for what is not valid in the encoding."""
    if name == LATIN_1:
        return _decode_latin_1(line)
    return line.decode(CODECS.get(name, name), "replace")


def _decode_latin_1(line: bytes) -> str:
    text = line.decode(LATIN_1)
    return text.translate(_WINDOWS) if _HAS_WINDOWS(line) else text
