"""Patterns of secrets: the redactor's RE2 expressions over the bytes of UTF-8.

Invariant: ``SUSPECT`` matches in every line in which another expression would redact something, even if the
text is written as JSON escapes.
"""

from functools import lru_cache
from typing import Any, Final

import re2
from tickertape.producers.shipper.redaction import card_numbers as cards
from tickertape.producers.shipper.sanitize import ESCAPED


def compile_bytes(pattern: bytes) -> Any:
    """Compile an RE2 expression over bytes."""
    options = re2.Options()
    # One character for each byte: UTF-8 need not be valid, and offsets are those of the bytes.
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    # RE2's default of 8 MiB bounds the program and its DFA; beyond it RE2 rejects the expression or falls
    # back to the slower NFA.
    options.max_mem = 64 * 1024 * 1024
    return re2.compile(pattern, options)


# 'tokens=12' is a count, but 'passwords' are passwords. The last four are password, passphrase, key and token
# in Chinese.
_WORDS: Final = (
    rb"(?:passw(?:or)?ds?|passwd|passphrases?|passcode|pwds?|[_-]pass|secrets?|token|credentials?|jwt|otp"
    rb"|(?:api|access|private|secret|encryption|signing|shared|account|auth|session|master|ssh|license)"
    rb"[ _-]?keys?"
    rb"|\xe5\xaf\x86\xe7\xa0\x81|\xe5\x8f\xa3\xe4\xbb\xa4|\xe5\xaf\x86\xe9\x92\xa5|\xe4\xbb\xa4\xe7\x89\x8c)"
    rb"(?:[_-]?(?:hash|value|text|base64|b64|plain|old|new|[0-9]{1,3}))?"
)
_MARK: Final = rb"(?:=>|[:=]+|\xef\xbc\x9a|%3[ad])"
_QUOTED: Final = (
    rb'[bur]?"(?:[^"\\]|\\.)*"|[bur]?\'(?:[^\'\\]|\\.)*\''
    # Escaped quotes: JSON within JSON.
    rb'|\\+"(?:[^"\\]|\\\\+.|\\[^"\\])*|\\+\'(?:[^\'\\]|\\\\+.|\\[^\'\\])*'
)

PAIR: Final = compile_bytes(
    rb"(?is)((?:%s\\*[\"']?[ \t]*%s|%s\\*[\"'][ \t]*,|\bpass\\*[\"']?=|\bpass\\*[\"'][ \t]*:)"
    rb"[ \t]*(?:\r?\n[ \t]+)?)"
    rb"(%s|\w*[\[{(][^\]})]*[\]})]?[^\s,;\"'&]*|\"[^\n]*|(?:(?:bearer|basic|token|digest)[ \t]+)?\S+)"
    % (_WORDS, _MARK, _WORDS, _QUOTED)
)
"""Groups: everything up to the value, and the value."""

_FIELD: Final = rb"[\w-]+=(?:\\*\"[^\"]*\"|[^\s,\"']+)"
AUTHORIZATION: Final = compile_bytes(
    rb"(?i)(authorization\\*[\"']?[ \t]*(?:%s|,)[ \t]*(?:\[?b?\\*[\"'])?(?:(?:bearer|basic|digest|token"
    rb"|negotiate|ntlm|apikey|hawk|dpop|signature|aws4-hmac-sha256)[ \t]+)?)"
    rb"((?:[a-z][\w-]*[ \t]+)?%s(?:,[ \t]*%s)+|(?:[a-z][\w-]*[ \t]+)?[^\s\"'\\,;]+)" % (_MARK, _FIELD, _FIELD)
)
COOKIE: Final = compile_bytes(
    rb"(?i)(\b(?:set-)?cookie\\*[\"']?[ \t]*%s[ \t]*\\*[\"']?)"
    rb"([^\s=;,\"']+=[^\s;\"']*(?:;[ \t]*[^\s=;\"']+(?:=[^\s;\"']*)?)*)" % _MARK
)
ELEMENT: Final = compile_bytes(rb"(?i)(<[\w:.-]*%s>)([^<]+)" % _WORDS)
OPTION: Final = compile_bytes(rb"(?i)(--?[\w-]*%s[ \t]+)(\"[^\"]*\"|'[^']*'|[^\s\"'-][^\s\"']*)" % _WORDS)
BEARER: Final = compile_bytes(rb"(?i)(\bbearer[ \t]+)([a-z0-9._~+/=-]{8,})")
BASIC: Final = compile_bytes(rb"(?i)(\bbasic[ \t]+)([a-z0-9+/]{6,}={0,2})")

_URL: Final = rb"[a-z][a-z0-9+.-]*:\\?/\\?/[^\s/?#:@\"'<>\[\]]*:"
URL: Final = compile_bytes(rb"(?i)(%s)([^\s/?#\"'<>]+)@" % _URL)
URL_SLASH: Final = compile_bytes(rb"(?i)(%s)([^\s/?#\"'<>@]*[/?#][^\s\"'<>@]*)@" % _URL)
"""URL with an unescaped slash in the password, which is invalid but occurs."""

PRIVATE_KEY: Final = compile_bytes(
    rb"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?"
    rb"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)"
)
KEY_BEGIN: Final = "-----BEGIN PRIVATE KEY-----\n"
"""Prefix that makes the redactor treat a text as the inside of a private key."""

TOKENS: Final = (
    ("jwt", rb"eyJ[\w-]{6,}\.[\w-]{4,}(?:\.[\w-]*){0,3}"),
    ("aws_key", rb"(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{16,}"),
    ("google_key", rb"AIza[\w-]{30,}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"),
    ("github_token", rb"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"),
    ("gitlab_token", rb"glpat-[\w-]{16,}"),
    (
        "slack_token",
        rb"xox[a-z](?:\.xox[a-z])?-[\w-]{8,}|xapp-[\w-]{10,}|hooks\.slack\.com/services/[\w/]{10,}",
    ),
    ("stripe_key", rb"[rs]k_(?:live|test)_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=]{16,}"),
    ("npm_token", rb"npm_[A-Za-z0-9]{30,}"),
    ("huggingface_token", rb"hf_[A-Za-z0-9]{30,}"),
    ("sendgrid_key", rb"SG\.[\w-]{16,}\.[\w-]{16,}"),
    ("aliyun_key", rb"LTAI[A-Za-z0-9]{12,}"),
)
"""Secrets with a recognizable form, by kind; no two have the same prefix."""

TOKEN: Final = compile_bytes(b"|".join(b"(%s)" % pattern for _, pattern in TOKENS))
SK_KEY: Final = compile_bytes(rb"((?:^|[^A-Za-z0-9_-]|\\[nrt])sk-)([A-Za-z0-9_-]{20,})")

_BETWEEN: Final = rb"(?:\\[tnr]|[\\\"' \t])*"
SUSPECT: Final = b"|".join(
    (
        ESCAPED,
        # The Chinese words as JSON escapes.
        rb"(?i:\\u(?:5bc6\\u(?:7801|94a5)|53e3\\u4ee4|4ee4\\u724c))",
        rb"(?i:%s%s(?:%s|[,>\"']))" % (_WORDS, _BETWEEN, _MARK),
        rb"(?i:(?:%s|cookie|authorization)[\"'\\])" % _WORDS,
        rb"(?i:-[\w-]*%s(?:[ \t]|\\t))" % _WORDS,
        rb"(?i:(?:name|key|field|header)[\"'\\=: \t]+[\w.-]*(?:%s|cookie))" % _WORDS,
        rb"(?i:pass[\\\"' \t]*[=:])",
        rb"(?i:authorization|cookie%s%s|bearer(?:[ \t]|\\t)|basic(?:[ \t]|\\t)+[a-z0-9+/]{6})"
        % (_BETWEEN, _MARK),
        rb":\\*/\\*/[^\s/?#:@\"'<>]*:[^\s\"'<>]*@",
        rb"PRIVATE KEY",
        *(b"(?:%s)" % pattern for _, pattern in TOKENS),
        rb"hooks\.slack\.com\\?/",
        rb"sk-[A-Za-z0-9_-]{20}",
        cards.SUSPECT,
    )
)
"""Expression for a line that may contain a secret: it must match rarely, and never miss one."""

_KEY_NAME: Final = compile_bytes(rb"(?i)(?:%s|authorization|cookie|(?:^|[_.-])pass)\z" % _WORDS)


def kind_of(name: bytes) -> str:
    """Return the kind of the secret that a name denotes."""
    lowered = name.lower()
    if b"authorization" in lowered or b"cookie" in lowered:
        return "cookie" if b"cookie" in lowered else "authorization"
    if (
        b"pass" in lowered
        or b"pwd" in lowered
        or b"\xe5\xaf\x86\xe7\xa0\x81" in lowered
        or b"\xe5\x8f\xa3" in lowered
    ):
        return "password"
    for kind in ("secret", "token", "credential"):
        if kind.encode() in lowered:
            return kind
    return (
        "token" if b"jwt" in lowered or b"otp" in lowered or b"\xe4\xbb\xa4\xe7\x89\x8c" in lowered else "key"
    )


@lru_cache(maxsize=4096)
def kind_of_key(key: str) -> str | None:
    """Return the kind of the secret in a field with this name, or None."""
    data = key.encode("utf-8", "replace")
    return kind_of(data) if _KEY_NAME.search(data) is not None else None


def opens_key(text: str) -> bool:
    """Return whether a text ends within a private key."""
    start = text.rfind("-----BEGIN ")
    return start >= 0 and "PRIVATE KEY" in text[start:] and "-----END " not in text[start:]


def is_in_key(text: str) -> bool:
    """Return whether a line can be part of a private key that started in an earlier line."""
    bare = text.strip(" \t|>\"'+,-\\)")
    if "-----END " in text or text.startswith(("Proc-Type:", "DEK-Info:", "Version:", "Comment:")):
        return True
    return (
        bare.replace("+", "").replace("/", "").replace("=", "").replace("\\n", "").isalnum()
        and bare.isascii()
    )
