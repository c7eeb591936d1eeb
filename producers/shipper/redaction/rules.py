"""Rules of the redactor: an expression each, and the decision whether its matches are secrets.

Invariants:

1. A rule replaces only what ``[redacted:kind]`` has not replaced yet.
2. Rules for complete headers and keys come before the rule for pairs, which would replace only the first
   part of such a value.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tickertape.producers.shipper.redaction import (
    account_numbers,
    card_numbers,
    commands,
    fix_fields,
    inserted_rows,
    pairs,
    patterns,
    private_keys,
    tokens,
)
from tickertape.producers.shipper.redaction.expressions import REDACTED, compile_bytes, compile_set
from tickertape.producers.shipper.redaction.names import (
    begins_sentence,
    is_basic,
    is_mixed,
    is_secret,
    is_unlike_a_word,
    kind_of,
)
from tickertape.producers.shipper.redaction.pairs import Placeholder, Secret
from tickertape.producers.shipper.sanitize import ESCAPED

_WORDS_AND_NUMBERS: Final = re.compile(
    rb"(?:[a-z]+[0-9]{0,4}|[0-9]+)(?:[_-](?:[a-z]+[0-9]{0,2}|[0-9]+))*|[0-9]+[a-z]{1,3}|0x[0-9a-f]+"
    rb"|[0-9]{4}-[0-9]{2}.*",
    re.IGNORECASE,
)


MAX_QUOTED: Final = 200
"""Bytes of a secret in quotes after a command."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Rule that replaces secrets.

    Attributes:
        trigger: RE2 expression that matches in every text in which the rule replaces something, and in every
            line of JSON with such a text.
        replace: function that replaces the secrets in a text.
    """

    trigger: bytes
    replace: Callable[[bytes, Placeholder], bytes]


def _rule(trigger: bytes, pattern: bytes, find: Callable[[Any], Secret | None]) -> Rule:
    """Return a rule for the matches of an expression; ``find`` returns the secret in a match."""
    expression = compile_bytes(pattern)

    def replace(text: bytes, placeholder: Placeholder) -> bytes:
        parts = []
        position = 0
        for match in expression.finditer(text):
            found = find(match)
            if found is None:
                continue
            kind, start, end = found
            # A bracket before the value can be that of a placeholder.
            if start < position or REDACTED.match(text, max(0, start - 1)):
                continue
            parts += [text[position:start], placeholder(kind)]
            position = end
        return b"".join((*parts, text[position:])) if parts else text

    return Rule(trigger, replace)


def _group(match: Any, kind: str, group: int = 2) -> Secret | None:
    """Return a group of a match as a secret of a kind, unless it was redacted before."""
    return None if REDACTED.match(match.group(group)) else (kind, *match.span(group))


def _value(match: Any, kind: str) -> Secret | None:
    """Return the second group if it is a secret that a name denotes."""
    return _group(match, kind) if is_secret(match.group(2), kind) else None


def _named(match: Any) -> Secret | None:
    head = match.group(1)
    kind = kind_of(head)
    if REDACTED.match(match.group(2)) or not is_secret(match.group(2), kind, head):
        return None
    return (kind, *_without_quotes(match))


def _without_quotes(match: Any) -> tuple[int, int]:
    start, end = match.span(2)
    secret = match.group(2)
    quoted = end - start > 2 and secret[:1] in b"\"'" and secret[:1] == secret[-1:]
    return start + quoted, end - quoted


def _sentence(match: Any) -> Secret | None:
    secret = match.group(2).rstrip(b".,;:!?)")
    quoted = secret[:1] in b"\"'`"
    # Without quotes, a word with letters only continues the sentence.
    if not is_secret(secret, "password") or not (quoted or is_unlike_a_word(secret)):
        return None
    start = match.start(2)
    kind = kind_of(match.group(1))
    return None if REDACTED.match(secret) else (kind, start + quoted, start + len(secret) - quoted)


def _unnamed(match: Any) -> Secret | None:
    secret = match.group(2)
    # Names of users and files are words and numbers between dashes: 'token user-12' is about a user.
    if not is_mixed(secret) or _WORDS_AND_NUMBERS.fullmatch(secret) or not is_secret(secret, "password"):
        return None
    return _group(match, kind_of(match.group(1)))


def _authorization(match: Any) -> Secret | None:
    return None if begins_sentence(match.group(2)) else _value(match, "authorization")


def _url_slash(match: Any) -> Secret | None:
    secret = match.group(2)
    # 'host:80/a@b' has a port and a path.
    if re.split(rb"[/?#]", secret, maxsplit=1)[0].isdigit():
        return None
    return _group(match, "url_password")


def _bearer(match: Any) -> Secret | None:
    secret = match.group(2)
    # 'bearer' is also an ordinary word, and the word after it has no digits and is short.
    if len(secret) < 24 and not any(48 <= byte < 58 for byte in secret):
        return None
    return _group(match, "authorization")


def _basic(match: Any) -> Secret | None:
    # 'basic' is also an ordinary word; credentials are a user and a password.
    return _group(match, "authorization") if is_basic(match.group(2)) else None


def _token(match: Any) -> Secret:
    groups = match.groups()
    index = next(index for index, group in enumerate(groups) if group is not None)
    return (tokens.TOKENS[index][0], *match.span())


def _word(match: Any) -> Secret | None:
    index = next(index for index, group in enumerate(match.groups()[1:]) if group is not None)
    span = match.span(index + 2)
    # Every secret of this form has digits; names of classes and phrases have none.
    if not any(48 <= byte < 58 for byte in match.group(index + 2)):
        return None
    return (tokens.WORDS[index][0], *span)


def _sk_key(match: Any) -> Secret | None:
    return _group(match, "api_key") if any(48 <= byte < 58 for byte in match.group(2)) else None


def _command(match: Any) -> Secret | None:
    head, secret = match.group(1), match.group(2)
    if head[-1:] in b"\"'" and head[-2:-1] != b"\\":
        # The text in quotes, which can have spaces.
        end = match.string.find(head[-1:], match.start(2), match.start(2) + MAX_QUOTED)
        secret = match.string[match.start(2) : end] if end > match.end(2) else secret
    if (
        REDACTED.match(secret)
        or not is_secret(secret, "password")
        or not commands.is_command_secret(head, secret, match.group(3) is not None)
    ):
        return None
    # The name of a database follows Oracle's passwords.
    secret = secret.rpartition(b"@")[0] or secret if head.endswith(b"/") else secret.rstrip(b",;&")
    return "password", match.start(2), match.start(2) + len(secret)


def _of_kind(kind: str, replace: Callable[[bytes, Callable[[], bytes]], bytes]) -> Any:
    return lambda text, placeholder: replace(text, partial(placeholder, kind))


RULES: Final = (
    _rule(private_keys.SUSPECT, private_keys.PRIVATE_KEY, lambda match: ("private_key", *match.span())),
    Rule(fix_fields.SUSPECT, fix_fields.replace),
    _rule(patterns.AUTHORIZATION_TRIGGER, patterns.AUTHORIZATION, _authorization),
    _rule(patterns.COOKIE_TRIGGER, patterns.COOKIE, lambda match: _group(match, "cookie")),
    _rule(patterns.MNEMONIC_TRIGGER, patterns.MNEMONIC, lambda match: _group(match, "mnemonic")),
    _rule(commands.SUSPECT, commands.COMMAND, _command),
    Rule(patterns.PAIR_TRIGGER, pairs.replace),
    Rule(inserted_rows.TRIGGER, inserted_rows.replace),
    _rule(patterns.NAMED_VALUE_TRIGGER, patterns.NAMED_VALUE, _named),
    _rule(patterns.ELEMENT_TRIGGER, patterns.ELEMENT, _named),
    _rule(patterns.OPTION_TRIGGER, patterns.OPTION, _named),
    _rule(patterns.SENTENCE_TRIGGER, patterns.SENTENCE, _sentence),
    _rule(patterns.UNNAMED_TRIGGER, patterns.UNNAMED, _unnamed),
    _rule(patterns.CODE_TRIGGER, patterns.CODE, lambda match: _group(match, "otp")),
    _rule(patterns.CALLBACK_TRIGGER, patterns.CALLBACK, lambda match: _group(match, "auth_code")),
    _rule(patterns.URL_TRIGGER, patterns.URL, lambda match: _value(match, "url_password")),
    _rule(patterns.URL_TRIGGER, patterns.URL_SLASH, _url_slash),
    _rule(patterns.BEARER_TRIGGER, patterns.BEARER, _bearer),
    _rule(patterns.BASIC_TRIGGER, patterns.BASIC, _basic),
    _rule(patterns.TOKEN_TRIGGER, patterns.TOKEN, _token),
    _rule(patterns.WORD_TRIGGER, patterns.WORD, _word),
    _rule(patterns.SK_KEY_TRIGGER, patterns.SK_KEY, _sk_key),
    Rule(card_numbers.SUSPECT, _of_kind("card", card_numbers.replace)),
    Rule(account_numbers.SUSPECT, _of_kind("iban", account_numbers.replace)),
)
"""Rules in the order in which they are applied."""

SUSPECT: Final = b"|".join((ESCAPED, patterns.FIELD_TRIGGER, *(b"(?:%s)" % rule.trigger for rule in RULES)))
"""Expression for a line that may contain a secret: it must match rarely, and never miss one."""

_TRIGGERS: Final = compile_set([rule.trigger for rule in RULES])


def apply_rules(text: bytes, placeholder: Placeholder) -> bytes:
    """Replace every secret in a text.

    Args:
        text: UTF-8.
        placeholder: called with the kind of each secret; returns its replacement.
    """
    # One pass finds the rules that can match, which are none or few.
    for index in sorted(_TRIGGERS.Match(text) or ()):
        text = RULES[index].replace(text, placeholder)
    return text
