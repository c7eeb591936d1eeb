"""The grammar of subjects and of the patterns that select them.

Invariants:

1. A token is 1 to 128 characters of ``A-Z a-z 0-9 _ -`` and the escape ``=XX``.
2. An id has exactly one written form: ``escape(unescape(token)) == token`` for every legal token.
3. ``covers(wide, narrow)`` holds exactly when every subject that ``narrow`` matches, ``wide`` matches too.
4. ``intersection(one, other)`` matches exactly what both match.

A pattern is NATS': ``*`` stands for one token, a last ``>`` for one or more.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from tickertape.errors import TickertapeError

MAX_TOKEN_LENGTH: Final = 128
"""Characters of one token as it stands in the subject, after escaping."""

MAX_PATTERN_LENGTH: Final = 280
"""Characters of one pattern; the longest subject of the contract has 274."""

MAX_SUBJECT_LENGTH: Final = 1024
"""Characters of a subject that the relay takes in; other services may use longer ones than the contract."""

LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")
"""Levels of a log event, least first."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPED_BYTE = re.compile(r"=([0-9A-F]{2})")
_LEGAL_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")
_PATTERN_TOKEN = re.compile(r"[^\s.*>\x00-\x1f\x7f]+")
_ILLEGAL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]|(?:^|\.)(?:[*>]?)(?:\.|$)")
_PLAIN_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class SubjectError(TickertapeError, ValueError):
    """A subject, token or pattern is not legal.

    Args:
        what: the offending text.
        why: what is wrong with it, as the end of a sentence.
    """

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why

    def __str__(self) -> str:
        shown = self.what if len(self.what) <= 80 else self.what[:77] + "..."
        return f"{shown!r} {self.why}"


class IllegalSubject(SubjectError):
    """A subject that no event may be on, of whatever type; a NATS server stores it all the same."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a subject of the contract says.

    Attributes:
        event_type: the type of event that belongs on it.
        fields: unescaped tokens by the name of the body's field that must equal them.
    """

    event_type: str
    fields: dict[str, str]


def escape(text: str) -> str:
    """Write an id as one token: bytes outside ``A-Za-z0-9_-`` become ``=XX``.

    Raises:
        SubjectError: the id is empty, is not valid Unicode, or its token is over 128 characters.
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
        raise SubjectError(text, f"makes a token of {len(token)} characters; at most {MAX_TOKEN_LENGTH}")
    return token


def unescape(token: str) -> str:
    """Read a token back into the id that it was made from.

    Raises:
        SubjectError: the token is not the canonical form of any id.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        raise SubjectError(token, f"has {len(token)} characters; a token has at most {MAX_TOKEN_LENGTH}")
    if _PLAIN.fullmatch(token):
        return token
    if not _LEGAL_TOKEN.fullmatch(token):
        raise SubjectError(token, "is not a token: letters, digits, '_', '-' and '=XX' in upper-case hex")
    data = _ESCAPED_BYTE.sub(lambda found: chr(int(found[1], 16)), token).encode("latin-1")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise SubjectError(token, "does not unescape to UTF-8") from None
    if escape(text) != token:
        raise SubjectError(token, f"is not canonical; write {escape(text)!r}")
    return text


class EventSubject:
    """The subjects of one event type, by the fields of the body that they name.

    Args:
        template: tokens, such as ``gateway.status.{gateway_type}.{gateway_id}``; a last ``[.{instance}]``
            may be left out.
        words: the values of a field that has only these; they stand in the subject in lower case.
        about: each field in words, for the documents.

    Attributes:
        addresses: the template without, then with what may be left out.
        optional: the field that may be left out.
        prefix: the tokens before the first field.
    """

    def __init__(
        self, template: str, *, words: Mapping[str, tuple[str, ...]] = MappingProxyType({}), **about: str
    ) -> None:
        short, _, last = template.removesuffix("]").partition("[.")
        self.addresses = (short, f"{short}.{last}") if last else (short,)
        self.optional = last.strip("{}") or None
        self.prefix = template.partition(".{")[0]
        self.words = words
        self.about = about
        # Each token with the name of its field; a plain token has none.
        self._tokens = [
            (token, token[1:-1] if token[0] == "{" else None) for token in self.addresses[-1].split(".")
        ]

    def write(self, fields: Mapping[str, Any]) -> str:
        """Write the subject of an event with these fields.

        Raises:
            SubjectError: a field cannot stand in a subject.
        """
        known = self._tokens
        if self.optional and fields.get(self.optional) is None:
            known = known[:-1]
        return ".".join([self._written(field, fields[field]) if field else token for token, field in known])

    def _written(self, field: str, value: str) -> str:
        words = self.words.get(field)
        if words is None:
            return escape(value)
        if value.upper() not in words:
            raise SubjectError(value, f"is not a {field}; one of {', '.join(words)}")
        return value.lower()

    def read(self, subject: str) -> dict[str, str] | None:
        """Read the fields that a subject names; None for a subject of another type.

        Raises:
            SubjectError: it is one of this type, but for a token that is not legal.
        """
        tokens = subject.split(".")
        missing = len(self._tokens) - len(tokens)
        if missing and not (missing == 1 and self.optional):
            return None
        known = list(zip(self._tokens, tokens, strict=False))
        if any(field is None and token != plain for (plain, field), token in known):
            return None
        return {field: self._value(subject, field, token) for (_, field), token in known if field}

    def _value(self, subject: str, field: str, token: str) -> str:
        words = self.words.get(field)
        if words is None:
            return unescape(token)
        if token.upper() not in words or not token.islower():
            raise SubjectError(subject, f"names no {field}; one of {', '.join(words).lower()}")
        return token.upper()


def checkpoint_subject(host: str, file: str) -> str:
    """Subject of a shipper's checkpoint: ``checkpoint.<host>.<file>``; never shown to clients."""
    return f"checkpoint.{escape(host)}.{escape(file)}"


def level_of(subject: str) -> str | None:
    """Level that a subject names (``log.<level>.*``), or None when it names none."""
    head, _, rest = subject.partition(".")
    if head != "log":
        return None
    level = rest.partition(".")[0]
    return level.upper() if level.islower() and level.upper() in LEVELS else None


def find_subject_error(subject: str) -> str | None:
    """Tell why a subject is illegal, as the end of a sentence; None for a legal one.

    A NATS server stores all subjects without spaces, tabs and line ends. Legal is what a pattern can name:
    UTF-8, without white space and control characters, no token empty or a wildcard.

    Args:
        subject: as the client has it, with bytes that are not UTF-8 as lone surrogates.
    """
    try:
        subject.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if _ILLEGAL.search(subject):
        return "has white space, a control character, a wildcard or an empty token"
    return None


def escape_subject(subject: str) -> str:
    """Write any subject as a legal one.

    Bytes outside ``A-Za-z0-9_-`` and ``.`` become ``=XX``, and an empty token a single ``=``.
    """
    tokens = subject.encode(errors="surrogateescape").split(b".")
    return ".".join(
        "".join(chr(byte) if byte in _PLAIN_BYTES else f"={byte:02X}" for byte in token) or "="
        for token in tokens
    )


def check_pattern(pattern: str) -> str:
    """Return a legal pattern as it is.

    Raises:
        SubjectError: empty, too long, an empty token, ``>`` before the end, or a wildcard within a token.
    """
    if not pattern:
        raise SubjectError(pattern, "is empty; a pattern such as 'log.error.>' is needed")
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise SubjectError(pattern, f"has {len(pattern)} characters; at most {MAX_PATTERN_LENGTH}")
    tokens = pattern.split(".")
    for place, token in enumerate(tokens):
        if token == "*" or _PATTERN_TOKEN.fullmatch(token):
            continue
        if token == ">":
            if place != len(tokens) - 1:
                raise SubjectError(pattern, "has '>' before its end; only the last token can be '>'")
        elif not token:
            raise SubjectError(pattern, "has an empty token")
        else:
            raise SubjectError(pattern, f"has an illegal token {token!r}; a wildcard stands alone")
    return pattern


def matches(pattern: str, subject: str) -> bool:
    """Tell whether a legal pattern selects a subject."""
    wanted = pattern.split(".")
    given = subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    elif len(wanted) != len(given):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, given, strict=True))


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every subject that ``narrow`` matches is matched by ``wide`` too."""
    outer = wide.split(".")
    inner = narrow.split(".")
    open_ended = outer[-1] == ">"
    if open_ended:
        outer.pop()
        # 'a.>' needs one token more; 'a.*' and 'a.>' both bring at least one.
        if len(inner) <= len(outer):
            return False
    elif inner[-1] == ">" or len(inner) != len(outer):
        return False
    return all(want in ("*", inside) for want, inside in zip(outer, inner, strict=False))


def intersect(one: str, other: str) -> str | None:
    """The pattern that matches exactly what two legal patterns both match; None when nothing does."""
    first, second = one.split("."), other.split(".")
    both: list[str] = []
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a == ">":
            return ".".join(both + second[place:])
        if b == ">":
            return ".".join(both + first[place:])
        if a != b and "*" not in (a, b):
            return None
        both.append(b if a == "*" else a)
    return ".".join(both) if len(first) == len(second) else None
