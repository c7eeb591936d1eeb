"""Grammar of subjects, and of the patterns that match them.

Invariants:

1. A token has 1 to 128 characters: ``A-Z a-z 0-9 _ -`` and the escape ``=XX``.
2. An id has exactly one encoding: ``escape(unescape(token)) == token`` for every legal token.
3. ``covers(wide, narrow)`` holds if and only if ``wide`` matches every subject that ``narrow`` matches.
4. ``intersect(first, second)`` matches exactly the subjects that both match.

Patterns are those of NATS: ``*`` matches one token, a trailing ``>`` one or more.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from tickertape.errors import TickertapeError

MAX_TOKEN_LENGTH: Final = 128
"""Characters of a token in a subject, after escaping."""

MAX_PATTERN_LENGTH: Final = 280
"""Characters of a pattern; the longest subject of the contract has 274."""

MAX_SUBJECT_LENGTH: Final = 1024
"""Characters of a subject that the relay ingests; other services may use longer ones than the contract."""

LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")
"""Levels of a log event, from lowest to highest."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPED_BYTE = re.compile(r"=([0-9A-F]{2})")
_LEGAL_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")
# Wider than a token of the contract, because other services may use other subjects.
_PATTERN_TOKEN = re.compile(r"[^\s.*>\x00-\x1f\x7f]+")
# White space, a control character, or a token that is empty or only a wildcard.
_ILLEGAL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]|(?:^|\.)(?:[*>]?)(?:\.|$)")
_PLAIN_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class SubjectError(TickertapeError, ValueError):
    """Illegal subject, token or pattern.

    Args:
        text: the illegal subject, token or pattern.
        problem: what is wrong with it; completes a sentence that starts with the text.
    """

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(text, problem)
        self.text = text
        self.problem = problem

    def __str__(self) -> str:
        shortened = self.text if len(self.text) <= 80 else self.text[:77] + "..."
        return f"{shortened!r} {self.problem}"


class IllegalSubject(SubjectError):
    """Subject on which no event of any type is allowed, although a NATS server stores it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Parsed subject of the contract.

    Attributes:
        event_type: type of the events on this subject.
        fields: unescaped tokens, keyed by the name of the event's field that must equal them.
    """

    event_type: str
    fields: dict[str, str]


def escape(text: str) -> str:
    """Encode an id as one token: bytes outside ``A-Za-z0-9_-`` become ``=XX``.

    Raises:
        SubjectError: the id is empty, is not valid Unicode, or its token has more than 128 characters.
    """
    if _PLAIN.fullmatch(text):
        token = text
    else:
        if not text:
            raise SubjectError(text, "is empty; an id needs at least one character")
        try:
            data = text.encode()
        except UnicodeEncodeError:
            raise SubjectError(text, "is not valid Unicode") from None
        token = "".join(chr(byte) if byte in _PLAIN_BYTES else f"={byte:02X}" for byte in data)
    if len(token) > MAX_TOKEN_LENGTH:
        raise SubjectError(
            text, f"encodes to a token of {len(token)} characters; the limit is {MAX_TOKEN_LENGTH}"
        )
    return token


def unescape(token: str) -> str:
    """Decode a token into the id that it encodes.

    Raises:
        SubjectError: the token is not the canonical encoding of an id.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        raise SubjectError(token, f"has {len(token)} characters; the limit is {MAX_TOKEN_LENGTH}")
    if _PLAIN.fullmatch(token):
        return token
    if not _LEGAL_TOKEN.fullmatch(token):
        raise SubjectError(token, "is not a token; use letters, digits, '_', '-' and '=XX' (upper-case hex)")
    # Latin-1 maps the characters 0 to 255 to the bytes of the same numbers.
    data = _ESCAPED_BYTE.sub(lambda match: chr(int(match[1], 16)), token).encode("latin-1")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise SubjectError(token, "does not unescape to UTF-8") from None
    # Otherwise, two subjects could stand for the same id: ``=41`` is another spelling of ``A``.
    if escape(text) != token:
        raise SubjectError(token, f"is not canonical; use {escape(text)!r}")
    return text


class EventSubject:
    """Subjects of one event type, whose tokens are fields of the event.

    Args:
        template: tokens, such as ``gateway.status.{gateway_type}.{gateway_id}``; a trailing ``[.{instance}]``
            is optional.
        choices: allowed values of the fields that have a fixed set; lower case in the subject.
        descriptions: description of each field, for the generated documents.

    Attributes:
        templates: the template without the optional token, then with it.
        optional: name of the optional field; None if there is none.
        prefix: tokens before the first field.
    """

    def __init__(
        self,
        template: str,
        *,
        choices: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
        **descriptions: str,
    ) -> None:
        short, _, last = template.removesuffix("]").partition("[.")
        self.templates = (short, f"{short}.{last}") if last else (short,)
        self.optional = last.strip("{}") or None
        self.prefix = template.partition(".{")[0]
        self.choices = choices
        self.descriptions = descriptions
        # Each token with the name of its field; None for a literal token.
        self._tokens = [
            (token, token[1:-1] if token[0] == "{" else None) for token in self.templates[-1].split(".")
        ]

    def build(self, fields: Mapping[str, Any]) -> str:
        """Return the subject of an event with these fields.

        Raises:
            SubjectError: the value of a field cannot be encoded as a token.
        """
        template = self._tokens
        if self.optional and fields.get(self.optional) is None:
            template = template[:-1]
        return ".".join([self._encode(field, fields[field]) if field else token for token, field in template])

    def _encode(self, field: str, value: str) -> str:
        choices = self.choices.get(field)
        if choices is None:
            return escape(value)
        if value.upper() not in choices:
            raise SubjectError(value, f"is not a {field}; use one of {', '.join(choices)}")
        return value.lower()

    def parse(self, subject: str) -> dict[str, str] | None:
        """Return the fields in a subject; None if it belongs to another event type.

        Raises:
            SubjectError: it belongs to this event type, but has an illegal token.
        """
        tokens = subject.split(".")
        missing = len(self._tokens) - len(tokens)
        # A negative number means too many tokens.
        if missing and not (missing == 1 and self.optional):
            return None
        pairs = list(zip(self._tokens, tokens, strict=False))
        if any(field is None and token != literal for (literal, field), token in pairs):
            return None
        return {field: self._decode(subject, field, token) for (_, field), token in pairs if field}

    def _decode(self, subject: str, field: str, token: str) -> str:
        choices = self.choices.get(field)
        if choices is None:
            return unescape(token)
        if token.upper() not in choices or not token.islower():
            raise SubjectError(subject, f"has no valid {field}; use one of {', '.join(choices).lower()}")
        return token.upper()


def checkpoint_subject(host: str, file: str) -> str:
    """Return the subject of a shipper's checkpoint: ``checkpoint.<host>.<file>``, never sent to clients."""
    return f"checkpoint.{escape(host)}.{escape(file)}"


def level_of(subject: str) -> str | None:
    """Return the level in a subject (``log.<level>.*``); None if it has none."""
    head, _, rest = subject.partition(".")
    if head != "log":
        return None
    level = rest.partition(".")[0]
    return level.upper() if level.islower() and level.upper() in LEVELS else None


def find_subject_error(subject: str) -> str | None:
    """Return what makes a subject illegal, to complete a sentence; None if it is legal.

    A NATS server stores any subject without spaces, tabs and line breaks. A legal subject is one that a
    pattern can name: UTF-8 without white space and control characters, and no token that is empty or a
    wildcard.

    Args:
        subject: subject from the NATS client, where bytes that are not UTF-8 are lone surrogates.
    """
    try:
        subject.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if _ILLEGAL.search(subject):
        return "has white space, a control character, a wildcard or an empty token"
    return None


def escape_subject(subject: str) -> str:
    """Convert any subject into a legal one.

    Bytes outside ``A-Za-z0-9_-`` and ``.`` become ``=XX``, and an empty token a single ``=``.
    """
    tokens = subject.encode(errors="surrogateescape").split(b".")
    return ".".join(
        "".join(chr(byte) if byte in _PLAIN_BYTES else f"={byte:02X}" for byte in token) or "="
        for token in tokens
    )


def check_pattern(pattern: str) -> str:
    """Return the pattern unchanged if it is legal.

    Raises:
        SubjectError: it is empty or too long, or has an empty token, a ``>`` before the end, or a wildcard
            within a token.
    """
    if not pattern:
        raise SubjectError(pattern, "is empty; use a pattern such as 'log.error.>'")
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise SubjectError(pattern, f"has {len(pattern)} characters; the limit is {MAX_PATTERN_LENGTH}")
    tokens = pattern.split(".")
    for position, token in enumerate(tokens):
        if token == "*" or _PATTERN_TOKEN.fullmatch(token):
            continue
        if token == ">":
            if position != len(tokens) - 1:
                raise SubjectError(pattern, "has '>' before its end; only the last token may be '>'")
        elif not token:
            raise SubjectError(pattern, "has an empty token")
        else:
            raise SubjectError(
                pattern, f"has an illegal token {token!r}; a wildcard must be a complete token"
            )
    return pattern


def matches(pattern: str, subject: str) -> bool:
    """Return whether a legal pattern matches a subject."""
    pattern_tokens = pattern.split(".")
    tokens = subject.split(".")
    if pattern_tokens[-1] == ">":
        pattern_tokens.pop()
        if len(tokens) <= len(pattern_tokens):
            return False
        tokens = tokens[: len(pattern_tokens)]
    elif len(pattern_tokens) != len(tokens):
        return False
    return all(expected in ("*", token) for expected, token in zip(pattern_tokens, tokens, strict=True))


def covers(wide: str, narrow: str) -> bool:
    """Return whether ``wide`` matches every subject that ``narrow`` matches."""
    outer = wide.split(".")
    inner = narrow.split(".")
    open_ended = outer[-1] == ">"
    if open_ended:
        outer.pop()
        # 'a.>' requires one more token, which both 'a.*' and 'a.>' guarantee.
        if len(inner) <= len(outer):
            return False
    elif inner[-1] == ">" or len(inner) != len(outer):
        return False
    # If ``narrow`` ends with ``>``, it is longer than ``outer`` here, so its
    # ``>`` is not compared with a token.
    return all(expected in ("*", token) for expected, token in zip(outer, inner, strict=False))


def intersect(first: str, second: str) -> str | None:
    """Return the pattern that matches exactly what two legal patterns both match; None if there is none."""
    first_tokens, second_tokens = first.split("."), second.split(".")
    common: list[str] = []
    for position, (a, b) in enumerate(zip(first_tokens, second_tokens, strict=False)):
        # The other pattern has at least one more token here, as ``>`` requires.
        if a == ">":
            return ".".join(common + second_tokens[position:])
        if b == ">":
            return ".".join(common + first_tokens[position:])
        if a != b and "*" not in (a, b):
            return None
        common.append(b if a == "*" else a)
    return ".".join(common) if len(first_tokens) == len(second_tokens) else None
