"""Redactor that replaces secrets in text and JSON values with ``[redacted:kind]``.

Invariants:

1. Time is linear in the size of the text: only RE2 matches untrusted text; other expressions are applied to
   RE2's matches.
2. Redacted text is not redacted or counted again.
3. The name of a secret is kept; its value is replaced.
4. Text is cleaned first, since control characters within a word would hide it.
"""

import re
from base64 import b64decode
from binascii import Error
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from tickertape.producers.shipper.redaction import card_numbers as cards
from tickertape.producers.shipper.redaction import patterns
from tickertape.producers.shipper.redaction.patterns import kind_of, kind_of_key
from tickertape.producers.shipper.sanitize import clean
from tickertape.producers.shipper.user_regex import compile_pattern

_SUSPECT: Final = patterns.compile_bytes(patterns.SUSPECT)
_REDACTED: Final = re.compile(rb"\[redacted:[\w-]+\]")
_CUT_ESCAPE: Final = re.compile(r"(?:\x1b[\[ -/]?|\x9b)[0-?]*[ -/]*(?=\[redacted:)")
"""Terminal escape whose last character was part of a secret."""

_KIND: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_OPENING: Final = re.compile(rb"[bBuUrR]?\\*[\"']")
_BRACKET: Final = re.compile(rb"\w*[\[{(]")
# End of an unquoted value: a quote, or a separator before the next pair.
_VALUE_END: Final = re.compile(
    rb"\"|'(?![A-Za-z0-9])|[,;&|](?=\\*[\"']?[A-Za-z_][\w.-]*\\*[\"']?(?:[=:]|%3[aAdD]))"
)
_NO_SECRET: Final = frozenset(
    (b"", b"none", b"null", b"nil", b"true", b"false", b"undefined", b"(null)", b"-")
)


class Redactor:
    """Redactor of built-in and additional kinds of secrets.

    Args:
        counts: counter of redacted secrets by kind, which redactors may share.
        extra: additional kinds with an RE2 expression each; its first group is redacted, or the match if it
            has no group.

    Raises:
        ValueError: a kind or an expression is not valid.
    """

    def __init__(self, counts: Counter[str], extra: Iterable[tuple[str, str]] = ()) -> None:
        self._counts = counts
        self._extra = [(kind, _compile_extra(kind, pattern)) for kind, pattern in extra]

    @property
    def checks_all_lines(self) -> bool:
        """Whether there are kinds that ``patterns.SUSPECT`` does not cover."""
        return bool(self._extra)

    def redact_text(self, text: str) -> str:
        """Clean a text and redact its secrets."""
        return self._redact(self.clean(text))

    def clean(self, text: str) -> str:
        """Clean a text; secrets directly behind a terminal escape are redacted before it is removed.

        Removing an incomplete escape also removes the letter after it, without which the rest of a secret
        would not be recognized.
        """
        if "\x1b" in text or "\x9b" in text:
            text = _CUT_ESCAPE.sub("", self._redact(text))
        return clean(text)

    def _redact(self, text: str) -> str:
        if len(text) >= 4:
            data = text.encode()
            if _SUSPECT.search(data) is not None:
                text = self._redact_built_in(data).decode("utf-8", "replace")
        for kind, pattern in self._extra:
            text = pattern.sub(lambda match, kind=kind: self._redact_match(match, kind), text)
        return text

    def redact_value(self, value: Any, kind: str | None = None) -> Any:
        """Clean a JSON value and redact its secrets, including those that field names denote.

        Args:
            value: value that is nested no deeper than an event may be.
            kind: redact the value as a secret of this kind.
        """
        if isinstance(value, str):
            return self.redact_text(value) if kind is None else self._redact_secret(self.clean(value), kind)
        if isinstance(value, dict):
            return self._redact_fields(value, kind)
        if isinstance(value, list):
            if kind is None and len(value) == 2 and isinstance(value[0], str):
                # A pair such as a header and its value.
                value_kind = kind_of_key(clean(value[0]))
                return [self.redact_text(value[0]), self.redact_value(value[1], value_kind)]
            return [self.redact_value(item, kind) for item in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if kind is not None:
                return self._placeholder(kind)
            # A card number has at least 13 digits.
            if value >= 10**12 and value == int(value) and cards.is_card(b"%d" % int(value)):
                return self._placeholder("card")
        return value

    def _redact_fields(self, fields: dict[str, Any], kind: str | None) -> dict[str, Any]:
        named_kind = None
        for name in ("name", "key", "field", "header", "Name", "Key"):
            label = fields.get(name)
            if isinstance(label, str):
                named_kind = named_kind or kind_of_key(clean(label))
        result: dict[str, Any] = {}
        for key, item in fields.items():
            clean_key = clean(key)
            item_kind = kind or kind_of_key(clean_key)
            if item_kind is None and named_kind is not None and clean_key.lower() in ("value", "val", "data"):
                item_kind = named_kind
            result[self.redact_text(key)] = self.redact_value(item, item_kind)
        return result

    def _redact_secret(self, text: str, kind: str) -> str:
        data = text.strip().encode()
        if data.lower() in _NO_SECRET or _REDACTED.fullmatch(data):
            return text
        return self._placeholder(kind)

    def _placeholder(self, kind: str) -> str:
        self._counts[kind] += 1
        return f"[redacted:{kind}]"

    def _placeholder_bytes(self, kind: str) -> bytes:
        return self._placeholder(kind).encode()

    def _redact_match(self, match: Any, kind: str) -> str:
        text: str = match.group()
        group = 1 if match.re.groups and match.group(1) is not None else 0
        secret = match.group(group)
        if not secret or _REDACTED.fullmatch(secret.encode()):
            return text
        start = match.start(group) - match.start()
        return text[:start] + self._placeholder(kind) + text[start + len(secret) :]

    def _redact_built_in(self, data: bytes) -> bytes:
        lowered = data.lower()
        # Keys and headers come before pairs, whose expression would replace only the first part of such a
        # value. The searches for literals spare most lines the expressions.
        if b"PRIVATE KEY" in data:
            data = patterns.PRIVATE_KEY.sub(lambda _: self._placeholder_bytes("private_key"), data)
        if b"authorization" in lowered:
            data = patterns.AUTHORIZATION.sub(self._replace_value("authorization"), data)
        if b"cookie" in lowered:
            data = patterns.COOKIE.sub(self._replace_value("cookie"), data)
        data = patterns.PAIR.sub(self._replace_pair, data)
        if b"<" in data:
            data = patterns.ELEMENT.sub(self._replace_named, data)
        if b"-" in data:
            data = patterns.OPTION.sub(self._replace_named, data)
        if b"@" in data:
            data = patterns.URL.sub(self._replace_value("url_password", b"@"), data)
            data = patterns.URL_SLASH.sub(self._replace_url_slash, data)
        if b"bearer" in lowered:
            data = patterns.BEARER.sub(self._replace_bearer, data)
        if b"basic" in lowered:
            data = patterns.BASIC.sub(self._replace_basic, data)
        data = patterns.TOKEN.sub(self._replace_token, data)
        if b"sk-" in data:
            data = patterns.SK_KEY.sub(self._replace_sk_key, data)
        return cards.replace(data, lambda: self._placeholder_bytes("card"))

    def _replace_value(self, kind: str, end: bytes = b"") -> Callable[[Any], bytes]:
        def replace(match: Any) -> bytes:
            head, secret = match.group(1), match.group(2)
            if _REDACTED.match(secret):
                return bytes(match.group())
            return bytes(head + self._placeholder_bytes(kind) + end)

        return replace

    def _replace_named(self, match: Any) -> bytes:
        head, secret = match.group(1), match.group(2)
        if secret.strip(b" \t\r\n\"'").lower() in _NO_SECRET or _REDACTED.match(secret):
            return bytes(match.group())
        return bytes(head + self._placeholder_bytes(kind_of(head)))

    def _replace_pair(self, match: Any) -> bytes:
        head, value = match.group(1), match.group(2)
        opening = _OPENING.match(value)
        if opening is not None:
            opener = opening[0]
            quote = opener.lstrip(b"bBuUrR")
            inner = value[len(opener) :]
            closing = quote if inner.endswith(quote) else b""
            secret, rest = inner.removesuffix(closing), closing
        else:
            opener = b""
            secret = value
            if _BRACKET.match(value) is None:
                end = _VALUE_END.search(value)
                secret = value[: end.start()] if end is not None else value
                secret = secret.rstrip(b",;.)]}>\\'`")
            rest = value[len(secret) :]
        if secret.lower() in _NO_SECRET or _REDACTED.fullmatch(secret.rstrip(b",;.")):
            return bytes(match.group())
        return bytes(head + opener + self._placeholder_bytes(kind_of(head)) + rest)

    def _replace_url_slash(self, match: Any) -> bytes:
        secret = match.group(2)
        # 'host:80/a@b' has a port and a path.
        if re.split(rb"[/?#]", secret, maxsplit=1)[0].isdigit() or _REDACTED.match(secret):
            return bytes(match.group())
        return bytes(match.group(1) + self._placeholder_bytes("url_password") + b"@")

    def _replace_bearer(self, match: Any) -> bytes:
        secret = match.group(2)
        # 'bearer' is also an ordinary word, and the word after it has no digits and is short.
        if len(secret) < 24 and not any(48 <= byte < 58 for byte in secret):
            return bytes(match.group())
        return bytes(match.group(1) + self._placeholder_bytes("authorization"))

    def _replace_basic(self, match: Any) -> bytes:
        secret = match.group(2)
        try:
            credentials = b64decode(secret + b"=" * (-len(secret) % 4))
        except (Error, ValueError):
            return bytes(match.group())
        # 'basic' is also an ordinary word; credentials are a user and a password.
        if b":" not in credentials:
            return bytes(match.group())
        return bytes(match.group(1) + self._placeholder_bytes("authorization"))

    def _replace_token(self, match: Any) -> bytes:
        index = next(index for index, group in enumerate(match.groups()) if group is not None)
        return self._placeholder_bytes(patterns.TOKENS[index][0])

    def _replace_sk_key(self, match: Any) -> bytes:
        secret = match.group(2)
        # Without a digit this is a hyphenated phrase.
        if not any(48 <= byte < 58 for byte in secret):
            return bytes(match.group())
        return bytes(match.group(1) + self._placeholder_bytes("api_key"))


def _compile_extra(kind: str, pattern: str) -> Any:
    if not _KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} is not a valid kind of secret; use 1 to 32 letters, digits, '_' and '-'")
    return compile_pattern(pattern, f"pattern {pattern!r} of {kind}")
