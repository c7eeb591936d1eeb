"""Names of secrets, as in ``password=...``, and the values of such names that are not secret.

Invariant: a value is kept only if it cannot be a secret: it says that there is a secret or none
(``password: YES``, ``token expired``), where the secret is (a path, a variable), or what replaced it.
"""

import re
from base64 import b64decode
from binascii import Error
from functools import lru_cache
from typing import Final

from tickertape.producers.shipper.redaction.expressions import compile_bytes

# Passwords in Chinese (two words), Japanese, Korean and Russian; key, token, and three words for a code.
_FOREIGN_PASSWORDS: Final = ("密码", "口令", "パスワード", "비밀번호", "пароль", "Пароль")
_FOREIGN_KEYS: Final = ("密钥", "私钥")
_FOREIGN_TOKENS: Final = ("令牌",)
_FOREIGN_CODES: Final = ("授权码", "认证码", "验证码")
_FOREIGN: Final = (*_FOREIGN_PASSWORDS, *_FOREIGN_KEYS, *_FOREIGN_TOKENS, *_FOREIGN_CODES)

_PASSWORD: Final = (
    rb"passw(?:or)?[dt]s?|passwd|pass[ _-]?phrases?|passcode|pwds?|[_-]pass"
    rb"|(?:user|db|my|admin|root|mail|smtp|ftp|ldap|key|store|trust)pass|requirepass|masterauth"
    rb"|kennw(?:o|\xc3\xb6)rt|contrase(?:n|\xc3\xb1)a|mot[ _]de[ _]passe|senha|wachtwoord"
)
_KEY: Final = (
    rb"(?:api|app|application|access|private|secret|encryption|decryption|signing|shared|account|auth|session"
    rb"|master|ssh|license|licence|hmac|subscription|listen|functions|deploy|webhook"
    rb"|symmetric)[ _-]?keys?|\bpsk"
)
_CODE: Final = (
    rb"\bauth(?:entication|orization)?[ _-]?code|verification[ _-]?code|\b(?:sms|2fa|mfa)[ _-]?code"
)
_OTHER: Final = rb"\b(?:cvv2?|cvc2?|pin(?:[ _-]?code)?)|(?:\b|_)sig|signature|(?:\b|_)sign|\b_?auth"
_SESSION: Final = (
    rb"\b(?:jsessionid|phpsessid|asp\.net_sessionid|aspsessionid[a-z]*|connect\.sid|laravel_session)"
)

# 'tokens=12' is a count, but 'passwords' are passwords.
WORDS: Final = (
    rb"(?:%s|secrets?|token|credentials?|jwt|samlresponse|otp|%s|%s|%s|%s|%s)"
    rb"(?:[_-]?(?:hash|value|text|base64|base|b64|plain|old|new|[0-9]{1,3}))?"
    % (_PASSWORD, _KEY, _CODE, _OTHER, _SESSION, "|".join(_FOREIGN).encode())
)
"""Expression for the name of a secret, or for its end."""

ESCAPED_WORDS: Final = "|".join(
    "".join(rf"\\u{ord(letter):04x}" for letter in word) for word in _FOREIGN
).encode()
"""Expression for the names that are not ASCII, as JSON escapes."""

_KEY_NAME: Final = compile_bytes(rb"(?i)(?:%s|authorization|cookie|(?:^|[_.-])pass)\z" % WORDS)
_CARD_NAME: Final = compile_bytes(
    rb"(?i)(?:(?:^|[^a-z])(?:pan|ccn?)|cards?|karten?|tarjeta|primary[ _-]?account)"
    rb"[ _-]?(?:num(?:ber)?|nummer|no|nr|pan|value)?\z|\xe5\x8d\xa1\xe5\x8f\xb7"
)

_KIND_WORDS: Final[tuple[tuple[str, tuple[bytes, ...]], ...]] = (
    ("cookie", (b"cookie", b"sess", b".sid")),
    ("auth_code", (b"code", *(word.encode() for word in _FOREIGN_CODES))),
    (
        "password",
        (b"pass", b"pwd", b"kennw", b"contrase", b"senha", b"wachtwoord", b"masterauth", b"psk",
         *(word.encode().lower() for word in _FOREIGN_PASSWORDS)),
    ),
    ("secret", (b"secret",)),
    ("token", (b"token", b"jwt", b"saml", *(word.encode() for word in _FOREIGN_TOKENS))),
    ("credential", (b"credential",)),
    ("otp", (b"otp",)),
    ("key", (b"key", *(word.encode() for word in _FOREIGN_KEYS))),
    ("authorization", (b"authorization",)),
    ("card_code", (b"cvv", b"cvc")),
    ("pin", (b"pin",)),
    ("signature", (b"sig",)),
    ("authorization", (b"auth",)),
)  # fmt: skip
"""Kinds by the words in a name; the first that occurs decides."""


@lru_cache(maxsize=4096)
def kind_of(name: bytes) -> str:
    """Return the kind of the secret that a name denotes."""
    lowered = name.lower()
    if b"session" in lowered and b"key" in lowered:
        return "key"
    if lowered.startswith(b"pin"):
        return "pin"
    for kind, words in _KIND_WORDS:
        if any(word in lowered for word in words):
            return kind
    return "secret"


@lru_cache(maxsize=4096)
def kind_of_key(key: str) -> str | None:
    """Return the kind of the secret in a field with this name, or None; ``card`` is for card numbers only."""
    data = key.encode("utf-8", "replace")
    match = _KEY_NAME.search(data)
    if match is not None and not is_filter(data[: match.start()], match.group()):
        return kind_of(data)
    return "card" if _CARD_NAME.search(data) is not None else None


_FILTER: Final = re.compile(
    rb"(?:^|[^a-z])(?:high|low|band|first|second|two|multi|single|one|render|last|by|all)\Z", re.IGNORECASE
)


def is_filter(before: bytes, name: bytes) -> bool:
    """Return whether a name that begins with 'pass' is a pass of something, as in ``high_pass``.

    Args:
        before: text before the name.
        name: the name with the character before 'pass'.
    """
    return name[:1] in (b"_", b"-") and _FILTER.search(before) is not None


_NOT_SECRET: Final = frozenset(
    (
        b"an the this that it is are was were be been has have had do does did not no yes on off true false"
        b" none null nil undefined unknown unset set empty blank missing absent present available unavailable"
        b" provided required optional needed default valid invalid incorrect correct wrong bad ok okay"
        b" good fail"
        b" failed fails failure success successful accepted rejected denied refused expired expires expiring"
        b" changed updated reset rotated revoked renewed refreshed generated created issued received loaded"
        b" found verified verify mismatch mismatched matched matches check checked checking checks must"
        b" should"
        b" shall will would could can cannot can't may might too for from to in at of by with without and"
        b" or but"
        b" if when while after before because must_change length policy strength hint prompt prompted entered"
        b" enter stored saved sent hidden masked redacted filtered removed omitted suppressed protected"
        b" encrypted hashed enabled disabled error errors warning exception string str bytes byte text"
        b" varchar char"
        b" object int integer number bool boolean array list dict map any optional[str] option<string>"
        b" string?"
        b" bearer basic digest negotiate ntlm jwt oauth oauth2 password passwd pwd token secret credential"
        b" credentials key apikey api_key authentication authorization login user username"
        b" x-www-form-urlencoded"
        b" expected unexpected end field input value await identifier ident n/a na tbd todo ... (none)"
        b" (null) (nil) (empty) (hidden) (unset)"
        b" (redacted) <nil> <none> <null>"
        b" ed25519 rsa ecdsa dsa ssh-rsa ssh-ed25519 aes-256-gcm sha256 hmac-sha256 session refresh access id"
    ).split()
)
"""Words that say something about a secret."""

_PROSE: Final = frozenset(
    b"a an the this that is are was were be been has have had does did not no must should shall will"
    b" would could"
    b" can cannot can't may too for from to in at of by with without and or if after before required invalid"
    b" incorrect wrong missing expired changed failed mismatch found match least most characters".split()
)

_PLACEHOLDER: Final = re.compile(
    rb"<[^<>]*>?|\$\{[^}]*\}?|\$\w+|![a-z]+|\$\([^)]*\)?|\{\{.*\}\}|\{\w*\}|%\(?\w*\)?[sdv@]|%\w+%"
    rb"|x{3,}|@\w+@|:\w+"
    rb"|[\[({]*(?:filtered|redacted|hidden|masked|removed|omitted|suppressed|protected|secret|none|null"
    rb"|nil|unset"
    rb"|not set|empty|not shown|sanitized|private|encrypted|unknown)[\])}]*(?:\s.*)?",
    re.IGNORECASE | re.DOTALL,
)
_PATH: Final = re.compile(
    rb"(?:file:/{0,2})?(?:~|\.{1,2})?/(?:(?:etc|var|run|home|root|usr|opt|tmp|mnt|srv|data|app|apps|users"
    rb"|private|proc"
    rb"|dev|secrets?|config|vault|keys?|certs?|bin|sbin|lib|export|nfs|workspace|builds?|code|src"
    rb"|work)(?:/[^\s]*)?"
    rb"|(?:[^\s/]+/)*[\w.-]+\.[a-z][a-z0-9]{1,6})|[a-z]:\\[\w .\\-]+|~/[^\s]*|/",
    re.IGNORECASE,
)
_WORKING_FOLDER: Final = re.compile(rb"(?:^|[^a-z])(?:old)?pwd\W*\Z", re.IGNORECASE)
_PASSES: Final = re.compile(rb"(?:^|[_-])pass\W*\Z", re.IGNORECASE)
_FOLDER: Final = re.compile(rb"~?/|~$|[a-z]:\\", re.IGNORECASE)
_URL: Final = re.compile(rb"(?:https?|wss?|nats|tls|grpc|arn|urn|vault|ssm):[^\s?@]+", re.IGNORECASE)
_REFERENCE: Final = re.compile(
    rb"(?:self|this|os|process|config|settings|args|opts|options|request|req|cfg|conf|env|environ|ctx"
    rb"|context|params"
    rb"|kwargs|user|data|form|payload|credentials|secrets|vars|var|local|getpass|cls|props)(?:\.[a-z_]\w*"
    rb"|\[[^\]]*\]?)+"
    rb"(?:\([^)]*\)?)?|[a-z_][\w.]*\([^'\"0-9]*\)?",
    re.IGNORECASE,
)
_IDENTITY: Final = re.compile(
    rb"[a-z_][\w.$]*@[0-9a-f]{4,8}|[a-z_][\w.$/]*\{.*|(?:com|org|net|io|android"
    rb"|java)(?:\.[\w$-]+){2,}[\w/:;,.-]*|[\w.-]+\.(?:io|com|org|net)/[\w./-]+|0x[0-9a-f]{1,16}",
    re.IGNORECASE | re.DOTALL,
)
"""Objects that Java and Android print after ``token=``, which is an ordinary word there."""

_LETTER: Final = re.compile(rb"[A-Za-z]")
_DIGIT: Final = re.compile(rb"[0-9]")
_SYMBOL: Final = re.compile(rb"[^\w.,:;)'\"!?-]")
"""What distinguishes a secret from a word of a sentence."""

_SIGNATURE: Final = re.compile(rb"[A-Za-z0-9+/_%=.:-]{16,}")
_DIGITS: Final = {"card_code": (3, 4), "pin": (4, 8)}


def is_working_folder(name: str, value: object) -> bool:
    """Return whether a field is the working folder of a process, which has the name of a password."""
    return (
        name.lower() in ("pwd", "oldpwd")
        and isinstance(value, str)
        and _FOLDER.match(value.encode()) is not None
    )


def is_mixed(text: bytes) -> bool:
    """Return whether a text has letters and digits."""
    # One expression for both would take quadratic time.
    return _LETTER.search(text) is not None and _DIGIT.search(text) is not None


def is_unlike_a_word(text: bytes) -> bool:
    """Return whether a text has letters and digits, or a symbol that no sentence has next to a word."""
    return is_mixed(text) or _SYMBOL.search(text) is not None


def is_secret(value: bytes, kind: str, name: bytes = b"") -> bool:
    """Return whether the value of a name that denotes a secret is one.

    Args:
        value: the value, with or without quotes.
        kind: kind of secret that the name denotes.
        name: the name and the mark after it.
    """
    bare = value.strip(b" \t\r\n\"'`\\")
    digits = bare.isdigit()
    if kind in _DIGITS:
        least, most = _DIGITS[kind]
        return digits and least <= len(bare) <= most
    if kind == "signature":
        return _SIGNATURE.fullmatch(bare) is not None and any(48 <= byte < 58 for byte in bare)
    if kind == "authorization" and name and b"authorization" not in name.lower():
        return is_basic(bare)
    if kind == "cookie" and name and b"cookie" not in name.lower():
        return len(bare) >= 8
    lowered = bare.lower()
    if (
        lowered in _NOT_SECRET
        or lowered.strip(b"()[]{}<>") in _NOT_SECRET
        or lowered.rstrip(b".,;:!?)]>}") in _NOT_SECRET
    ):
        return False
    # Switches, and numbers of passes.
    if digits and kind == "password" and (len(bare) < 2 or (len(bare) < 4 and _PASSES.search(name))):
        return False
    # Counts, and masks such as '****' and bullets.
    if (digits and kind not in ("password", "otp", "auth_code") and len(bare) < 6) or not _has_content(
        lowered
    ):
        return False
    if len(bare) > 512:
        return True
    if (
        _PLACEHOLDER.fullmatch(bare)
        or _PATH.fullmatch(bare)
        or _URL.fullmatch(bare)
        or _REFERENCE.fullmatch(bare)
    ):
        return False
    if kind == "password" and _FOLDER.match(bare) and _WORKING_FOLDER.search(name.rstrip(b" \t\"'=:")):
        return False
    if kind in ("token", "credential", "secret") and _IDENTITY.fullmatch(bare):
        return False
    # Parsers print the types of tokens in upper case.
    if kind == "token" and len(bare) <= 12 and bare.isalpha() and bare.isupper():
        return False
    return not _is_prose(lowered)


def is_basic(secret: bytes) -> bool:
    """Return whether a text is the Base64 of a user and a password, as in an Authorization header."""
    try:
        credentials = b64decode(secret + b"=" * (-len(secret) % 4), validate=True)
    except (Error, ValueError):
        return False
    return b":" in credentials and all(byte >= 32 for byte in credentials)


def _has_content(lowered: bytes) -> bool:
    if b"***" in lowered or b"\xe2\x80\xa2\xe2\x80\xa2" in lowered:
        return False
    return any(48 <= byte < 58 or 97 <= byte < 123 or byte >= 128 for byte in lowered)


def begins_sentence(text: bytes) -> bool:
    """Return whether a text begins with a word that no secret and no scheme of authorization begins with."""
    first = text.split(maxsplit=1)[0].lower() if text.strip() else b""
    return first in _PROSE or first in (b"user", b"request", b"access", b"client", b"role")


def _is_prose(lowered: bytes) -> bool:
    words = [word.strip(b".,;:!?'\"()[]{}") for word in lowered.split()]
    if len(words) < 2 or not any(word in _PROSE for word in words):
        return False
    # Numbers occur in long sentences only: 'minimum is 8 characters'.
    return all(
        word.replace(b"'", b"").replace(b"-", b"").isalpha() or (word.isdigit() and len(words) > 3)
        for word in words
    )
