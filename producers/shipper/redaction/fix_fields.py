"""Secrets and separators in FIX messages.

Invariants:

1. SOH, which separates the fields, is shown as ``|``; any other control character is left to sanitizing.
2. A secret ends at the next field, or where the length field before it says; it may contain separators.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

KINDS: Final = {
    b"554": "password",  # Password
    b"925": "password",  # NewPassword
    b"1402": "password",  # EncryptedPassword
    b"1404": "password",  # EncryptedNewPassword
    b"96": "raw_data",  # RawData, in which a log-on carries credentials
    b"89": "signature",  # Signature
    b"91": "secure_data",  # SecureData
}
"""Kinds of secrets by tag."""

SOH: Final = b"\x01"
SHOWN: Final = b"|"
"""What SOH is shown as, as FIX engines and their users do."""

_TAGS: Final = b"|".join(KINDS)
_WRITTEN: Final = rb"[\x01\x02|;^~, ]|\^A|\xe2\x90\x81|[<\[{(]SOH[>\])}]|\\+(?:x01|u0001|001|1)|\xc2\xa6"
"""Separators: SOH, and how programs and people write it."""

SUSPECT: Final = rb"(?:%s)(?:%s)=" % (_WRITTEN, _TAGS)
"""Expression for a FIX field that may be secret."""

_BEGIN: Final = re.compile(rb"8=FIXT?\.\d\.\d(?:SP\d)?(.{1,8}?)(?:9|35|49)=", re.DOTALL)
# Without the beginning of a message, fewer separators are certain.
_HEADER: Final = re.compile(
    rb"(?:^|[^0-9])(?:35|49|56|553)=[\w.:/ -]{1,64}?(\x01|\||\^A|<SOH>|\xe2\x90\x81)(?:\d{1,5}=|\s*$)"
)
_FIELD: Final = re.compile(rb"(?:^|[^0-9])[0-9]{1,5}=")
_LENGTH: Final = re.compile(rb"[0-9]{2,4}=([0-9]{1,6})\Z")


def separator_of(text: bytes) -> bytes | None:
    """Return the separator of the fields of the first FIX message in a text, or None if there is none."""
    begin = _BEGIN.search(text) or _HEADER.search(text)
    return begin[1] if begin is not None else None


def show_separators(text: bytes) -> bytes:
    """Replace every SOH after a field by ``|``."""
    shown = []
    parts = text.split(SOH)
    for part in parts[:-1]:
        shown += [part, SHOWN if _FIELD.search(part) else b""]
    return b"".join((*shown, parts[-1]))


def replace(text: bytes, replacement: Callable[[str], bytes], separator: bytes | None = None) -> bytes:
    """Replace the secrets in FIX messages.

    Args:
        text: UTF-8.
        replacement: called with the kind of each secret; returns its replacement.
        separator: separator of the fields; None means that of the first message in the text.
    """
    separator = separator or separator_of(text)
    if separator is None:
        return text
    secret, following = _expressions(separator)
    parts: list[bytes] = []
    position = 0
    while (match := secret.search(text, position)) is not None:
        start = match.end()
        end = _end_of(text, start, separator, following, text[max(0, match.start() - 16) : match.start()])
        parts.append(text[position:start])
        value = text[start:end]
        is_redacted = not value.strip() or value.startswith(b"[redacted:")
        parts.append(value if is_redacted else replacement(KINDS[match[1]]))
        # The separator after the secret begins the next field.
        position = end
    parts.append(text[position:])
    return b"".join(parts)


@lru_cache(maxsize=64)
def _expressions(separator: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return expressions for the tag of a secret, and for a separator with the next tag."""
    mark = re.escape(separator)
    return re.compile(rb"(?:^|%s)[ \t]*(%s)=" % (mark, _TAGS)), re.compile(rb"%s[ \t]*[0-9]{1,5}=" % mark)


def _end_of(text: bytes, start: int, separator: bytes, following: re.Pattern[bytes], before: bytes) -> int:
    """Return the end of the value that begins at an offset; ``before`` ends with the field before it."""
    length = _LENGTH.search(before)
    if length is not None:
        end = start + int(length[1])
        if end <= len(text) and text[end : end + len(separator)] == separator:
            return end
    match = following.search(text, start)
    if match is not None:
        return match.start()
    # The last field of a message that is cut: only white space or a quote can end it, beside a separator.
    for index in range(start, len(text)):
        if text[index : index + len(separator)] == separator or text[index : index + 1] in b"\"'\r\n":
            return index
    return len(text)
