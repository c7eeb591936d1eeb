"""Redactor that replaces secrets in text and JSON values with ``[redacted:kind]``.

Invariants:

1. Time is linear in the size of the text: only RE2 matches untrusted text; other expressions are applied to
   RE2's matches, or are simple.
2. Redacted text is not redacted or counted again.
3. The name of a secret is kept; its value is replaced.
4. Text is cleaned first, since control characters within a word would hide it.
5. A text without a secret costs one search; of the rules only those are applied that one pass has found.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from tickertape.producers.shipper.redaction import card_numbers, fix_fields
from tickertape.producers.shipper.redaction.names import is_secret, is_working_folder, kind_of_key
from tickertape.producers.shipper.redaction.rules import apply_rules
from tickertape.producers.shipper.sanitize import clean

from tickertape.user_regex import compile_pattern

_REDACTED: Final = re.compile(rb"\[redacted:[\w-]+\]")
_CUT_ESCAPE: Final = re.compile(r"(?:\x1b[\[ -/]?|\x9b)[0-?]*[ -/]*(?=\[redacted:)")
"""Terminal escape whose last character was part of a secret."""

_KIND: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


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
        """Whether there are kinds that ``rules.SUSPECT`` does not cover."""
        return bool(self._extra)

    def redact_text(self, text: str) -> str:
        """Clean a text and redact its secrets."""
        return self._redact(self.clean(text))

    def clean(self, text: str) -> str:
        """Clean a text; secrets directly behind a terminal escape are redacted before it is removed.

        Removing an incomplete escape also removes the letter after it, without which the rest of a secret
        would not be recognized. The separators of FIX messages are shown, after their secrets are redacted:
        a secret may contain the character that shows them.
        """
        if "\x01" in text:
            data = fix_fields.replace(text.encode(), self._placeholder_bytes, fix_fields.SOH)
            text = fix_fields.show_separators(data).decode("utf-8", "replace")
        if "\x1b" in text or "\x9b" in text:
            text = _CUT_ESCAPE.sub("", self._redact(text))
        return clean(text)

    def _redact(self, text: str) -> str:
        if len(text) >= 4:
            data = text.encode()
            redacted = apply_rules(data, self._placeholder_bytes)
            if redacted is not data:
                text = redacted.decode("utf-8", "replace")
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
        if kind is not None and isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._redact_number(value, kind)
        return value

    def redact_uncounted(self, value: Any, kind: str | None = None) -> Any:
        """Redact a part of a text whose secrets are counted already; see ``redact_value``."""
        counts, self._counts = self._counts, Counter()
        try:
            return self.redact_value(value, kind)
        finally:
            self._counts = counts

    def _redact_fields(self, fields: dict[str, Any], kind: str | None) -> dict[str, Any]:
        named_kind = None
        for name in ("name", "key", "field", "header", "Name", "Key"):
            label = fields.get(name)
            if isinstance(label, str):
                named_kind = named_kind or kind_of_key(clean(label))
        result: dict[str, Any] = {}
        for key, item in fields.items():
            clean_key = clean(key)
            item_kind = kind or (None if is_working_folder(clean_key, item) else kind_of_key(clean_key))
            if item_kind is None and named_kind is not None and clean_key.lower() in ("value", "val", "data"):
                item_kind = named_kind
            result[self.redact_text(key)] = self.redact_value(item, item_kind)
        return result

    def _redact_secret(self, text: str, kind: str) -> str:
        data = text.strip().encode()
        if kind == "card":
            return self._placeholder(kind) if card_numbers.is_card_text(text) else self._redact(text)
        if _REDACTED.fullmatch(data) or not is_secret(data, kind):
            return self._redact(text)
        return self._placeholder(kind)

    def _redact_number(self, value: float, kind: str) -> Any:
        text = b"%d" % value if value == value // 1 else b"%r" % value
        secret = card_numbers.is_card(text) if kind == "card" else is_secret(text, kind)
        return self._placeholder(kind) if secret else value

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


def _compile_extra(kind: str, pattern: str) -> Any:
    if not _KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} is not a valid kind of secret; use 1 to 32 letters, digits, '_' and '-'")
    return compile_pattern(pattern, f"pattern {pattern!r} of {kind}")
