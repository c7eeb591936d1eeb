"""Secrets in text and in values give way to ``[redacted:kind]``.

Invariants:

1. The time is linear in the text: text of others meets only RE2, or what RE2 found of it.
2. What was redacted once is not redacted again, nor counted again.
3. The name of a secret stays; its value goes.
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
_DONE: Final = re.compile(rb"\[redacted:[\w-]+\]")
_KIND: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_OPENING: Final = re.compile(rb"[bBuUrR]?\\*[\"']")
_BRACKET: Final = re.compile(rb"\w*[\[{(]")
# Where an unquoted value ends: a quote, or a separator with the next pair behind it.
_VALUE_END: Final = re.compile(
    rb"\"|'(?![A-Za-z0-9])|[,;&|](?=\\*[\"']?[A-Za-z_][\w.-]*\\*[\"']?(?:[=:]|%3[aAdD]))"
)
_NO_SECRET: Final = frozenset(
    (b"", b"none", b"null", b"nil", b"true", b"false", b"undefined", b"(null)", b"-")
)


class Redactor:
    """Takes secrets out.

    Args:
        counts: counts what was redacted by its kind; may be shared.
        extra: more kinds, each with an expression of RE2: what it finds is redacted, or only what its first
            group finds, if it has one.

    Raises:
        ValueError: a kind or an expression is not legal.
    """

    def __init__(self, counts: Counter[str], extra: Iterable[tuple[str, str]] = ()) -> None:
        self._counts = counts
        self._extra = [(kind, _checked(kind, pattern)) for kind, pattern in extra]

    @property
    def checks_all_lines(self) -> bool:
        """True when there are kinds that ``secret_patterns.SUSPECT`` does not know."""
        return bool(self._extra)

    def redact_text(self, text: str) -> str:
        """Clean a text and take the secrets out."""
        text = clean(text)
        if len(text) >= 4:
            data = text.encode()
            if _SUSPECT.search(data) is not None:
                text = self._built_in(data).decode("utf-8", "replace")
        for kind, pattern in self._extra:
            text = pattern.sub(lambda found, kind=kind: self._found(found, kind), text)
        return text

    def redact_value(self, value: Any, kind: str | None = None) -> Any:
        """Clean a JSON value and take the secrets out, also by the names of fields.

        Args:
            value: nested at most as deep as an event may be.
            kind: the value is a secret of this kind.
        """
        if isinstance(value, str):
            return self.redact_text(value) if kind is None else self._whole(clean(value), kind)
        if isinstance(value, dict):
            return self._fields(value, kind)
        if isinstance(value, list):
            if kind is None and len(value) == 2 and isinstance(value[0], str):
                # A header, as some write it.
                kind_of_second = kind_of_key(clean(value[0]))
                return [self.redact_text(value[0]), self.redact_value(value[1], kind_of_second)]
            return [self.redact_value(item, kind) for item in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if kind is not None:
                return self._mark(kind)
            if value >= 10**12 and value == int(value) and cards.is_card(b"%d" % int(value)):
                return self._mark("card")
        return value

    def _fields(self, fields: dict[str, Any], kind: str | None) -> dict[str, Any]:
        named = None
        for name in ("name", "key", "field", "header", "Name", "Key"):
            label = fields.get(name)
            if isinstance(label, str):
                named = named or kind_of_key(clean(label))
        result: dict[str, Any] = {}
        for key, item in fields.items():
            shown = clean(key)
            own = kind or kind_of_key(shown)
            if own is None and named is not None and shown.lower() in ("value", "val", "data"):
                own = named
            result[self.redact_text(key)] = self.redact_value(item, own)
        return result

    def _whole(self, text: str, kind: str) -> str:
        data = text.strip().encode()
        if data.lower() in _NO_SECRET or _DONE.fullmatch(data):
            return text
        return self._mark(kind)

    def _mark(self, kind: str) -> str:
        self._counts[kind] += 1
        return f"[redacted:{kind}]"

    def _bytes(self, kind: str) -> bytes:
        return self._mark(kind).encode()

    def _found(self, found: Any, kind: str) -> str:
        whole: str = found.group()
        group = 1 if found.re.groups and found.group(1) is not None else 0
        secret = found.group(group)
        if not secret or _DONE.fullmatch(secret.encode()):
            return whole
        begin = found.start(group) - found.start()
        return whole[:begin] + self._mark(kind) + whole[begin + len(secret) :]

    def _built_in(self, data: bytes) -> bytes:
        low = data.lower()
        if b"PRIVATE KEY" in data:
            data = patterns.PRIVATE_KEY.sub(lambda _: self._bytes("private_key"), data)
        if b"authorization" in low:
            data = patterns.AUTHORIZATION.sub(self._behind("authorization"), data)
        if b"cookie" in low:
            data = patterns.COOKIE.sub(self._behind("cookie"), data)
        data = patterns.PAIR.sub(self._pair, data)
        if b"<" in data:
            data = patterns.ELEMENT.sub(self._named, data)
        if b"-" in data:
            data = patterns.OPTION.sub(self._named, data)
        if b"@" in data:
            data = patterns.URL.sub(self._behind("url_password", b"@"), data)
            data = patterns.URL_SLASH.sub(self._url_slash, data)
        if b"bearer" in low:
            data = patterns.BEARER.sub(self._bearer, data)
        if b"basic" in low:
            data = patterns.BASIC.sub(self._basic, data)
        data = patterns.TOKEN.sub(self._token, data)
        if b"sk-" in data:
            data = patterns.SK_KEY.sub(self._sk_key, data)
        return cards.replace(data, lambda: self._bytes("card"))

    def _behind(self, kind: str, end: bytes = b"") -> Callable[[Any], bytes]:
        def replace(found: Any) -> bytes:
            head, secret = found.group(1), found.group(2)
            if _DONE.match(secret):
                return bytes(found.group())
            return bytes(head + self._bytes(kind) + end)

        return replace

    def _named(self, found: Any) -> bytes:
        head, secret = found.group(1), found.group(2)
        if secret.strip(b" \t\r\n\"'").lower() in _NO_SECRET or _DONE.match(secret):
            return bytes(found.group())
        return bytes(head + self._bytes(kind_of(head)))

    def _pair(self, found: Any) -> bytes:
        head, value = found.group(1), found.group(2)
        opening = _OPENING.match(value)
        if opening is not None:
            begin = opening[0]
            quote = begin.lstrip(b"bBuUrR")
            inner = value[len(begin) :]
            closing = quote if inner.endswith(quote) else b""
            secret, rest = inner.removesuffix(closing), closing
        else:
            begin = b""
            secret = value
            if _BRACKET.match(value) is None:
                end = _VALUE_END.search(value)
                secret = value[: end.start()] if end is not None else value
                secret = secret.rstrip(b",;.)]}>\\'`")
            rest = value[len(secret) :]
        if secret.lower() in _NO_SECRET or _DONE.fullmatch(secret.rstrip(b",;.")):
            return bytes(found.group())
        return bytes(head + begin + self._bytes(kind_of(head)) + rest)

    def _url_slash(self, found: Any) -> bytes:
        secret = found.group(2)
        # 'host:80/a@b' is a port and a path.
        if re.split(rb"[/?#]", secret, maxsplit=1)[0].isdigit() or _DONE.match(secret):
            return bytes(found.group())
        return bytes(found.group(1) + self._bytes("url_password") + b"@")

    def _bearer(self, found: Any) -> bytes:
        secret = found.group(2)
        if len(secret) < 24 and not any(48 <= byte < 58 for byte in secret):
            return bytes(found.group())
        return bytes(found.group(1) + self._bytes("authorization"))

    def _basic(self, found: Any) -> bytes:
        secret = found.group(2)
        try:
            shown = b64decode(secret + b"=" * (-len(secret) % 4))
        except (Error, ValueError):
            return bytes(found.group())
        if b":" not in shown:
            return bytes(found.group())
        return bytes(found.group(1) + self._bytes("authorization"))

    def _token(self, found: Any) -> bytes:
        index = next(index for index, group in enumerate(found.groups()) if group is not None)
        return self._bytes(patterns.TOKENS[index][0])

    def _sk_key(self, found: Any) -> bytes:
        secret = found.group(2)
        if not any(48 <= byte < 58 for byte in secret):
            return bytes(found.group())
        return bytes(found.group(1) + self._bytes("api_key"))


def _checked(kind: str, pattern: str) -> Any:
    if not _KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} is no kind of secret: 1 to 32 letters, digits, '_' and '-'")
    return compile_pattern(pattern, f"the pattern {pattern!r} of {kind}")
