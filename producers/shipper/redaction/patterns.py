"""Patterns of secrets: the redactor's RE2 expressions over the bytes of UTF-8.

Invariant: the trigger of an expression matches in every line in which it would redact something, even if the
text is written as JSON escapes.
"""

from typing import Final

from tickertape.producers.shipper.redaction import tokens
from tickertape.producers.shipper.redaction.expressions import BETWEEN, BOUNDARY, MARK
from tickertape.producers.shipper.redaction.names import ESCAPED_WORDS, WORDS

_QUOTED: Final = (
    rb'[bur]?"(?:[^"\\]|\\.)*"|[bur]?\'(?:[^\'\\]|\\.)*\''
    # Escaped quotes: JSON within JSON.
    rb'|\\+"(?:[^"\\]|\\\\+.|\\[^"\\])*|\\+\'(?:[^\'\\]|\\\\+.|\\[^\'\\])*'
)

PAIR: Final = (
    rb"(?is)((?:%s(?:\\*[\"']|%%22)?[ \t]*%s(?:%%22)?|[\"'][\w-]*%s\\*[\"'][ \t]*,"
    rb"|\bpass\\*[\"']?(?:=|[ \t]*:))"
    rb"[ \t]*(?:\r?\n[ \t]+)?)"
    rb"(%s|\w*[\[{(][^\]})]*[\]})]?[^\s,;\"'&]*|\"[^\n]*|(?:(?:bearer|basic|token|digest)[ \t]+)?\S+)"
    % (WORDS, MARK, WORDS, _QUOTED)
)
"""Groups: everything up to the value, and the value."""

NAMED_VALUE: Final = (
    rb"(?i)(\b(?:name|key|field|header)(?:\\*[\"'])?[ \t]*[:=][ \t]*\\*[\"'][\w.-]*%s\\*[\"'][ \t]*,?[ \t]*"
    rb"(?:\\*[\"'])?(?:value|val|data)(?:\\*[\"'])?[ \t]*[:=][ \t]*\\*[\"'])((?:[^\"'\\]|\\+[^\"'])+)" % WORDS
)
"""Field of JSON, or attribute of XML, whose name is the value of another one."""

_FIELD: Final = rb"[\w-]+=(?:\\*\"[^\"]*\"|[^\s,\"']+)"
AUTHORIZATION: Final = (
    rb"(?i)(authorization\\*[\"']?[ \t]*(?:%s|,)[ \t]*(?:\[?[bfru]?\\*[\"']|\[)?(?:(?:bearer|basic"
    rb"|digest|token|negotiate|ntlm|apikey|hawk|dpop|signature|splunk|ssws|aws4-hmac-sha256)[ \t]+)?)"
    rb"((?:[a-z][a-z-]*[ \t]+)?%s(?:,[ \t]*%s)+|(?:[a-z][a-z-]*[ \t]+)?[^\s\"'\\,;]+)"
    % (MARK, _FIELD, _FIELD)
)
COOKIE: Final = (
    rb"(?i)(\b(?:set-)?cookie\\*[\"']?[ \t]*%s[ \t]*\\*[\"']?)"
    rb"([^\s=;,\"']+=[^\s;\"']*(?:;[ \t]*[^\s=;\"']+(?:=[^\s;\"']*)?)*)" % MARK
)
ELEMENT: Final = rb"(?i)(<[\w:.-]*%s>)([^<]+)<\\*/" % WORDS
OPTION: Final = (
    rb"(?i)((?:^|[\s\"'\[(,=]|\\[nrt])--?[\w.-]*%s[ \t]+)(\"[^\"]*\"|'[^']*'|[^\s\"'-][^\s\"']*)" % WORDS
)
SENTENCE: Final = (
    rb"(?i)(\b(?:password|passwd|passphrase|passcode|api key|secret key|access token)"
    rb"(?:[ \t]+(?:for|of)(?:[ \t]+(?:user|account|login|role))?[ \t]+[^\s:]{1,64})?(?:[ \t]+"
    rb"(?:(?:was |has been |is )?(?:(?:re)?set|changed) to|is generated for [^\s:]+:|is now|is|was)[: \t]+"
    rb"|[ \t]*(?:->|\xe2\x86\x92)[ \t]*|[ \t]*\[))"
    rb"(\"[^\"]+\"|'[^']+'|`[^`]+`|[^\s\]]+)"
)
UNNAMED: Final = (
    rb"(?i)(\b(?:password|passwd|passphrase|token|api key|secret key)[ \t]+(?:[057][ \t]+)?)"
    rb"([A-Za-z0-9!@#$%^&*_~+-]{8,})(?:[\s.,;:)\]]|$)"
)
"""Word directly after the name of a secret; only letters and digits together make it one."""

CODE: Final = (
    rb"(?i)(\b(?:one-time|verification|security|login|confirmation|authentication|2fa|otp|sms|mfa)"
    rb"[ _-]?(?:code|password|pin)"
    rb"(?: is:?|:| for [^\s:]{1,64}(?: is|:))[ \t]*)([0-9]{4,8})\b"
)
MNEMONIC: Final = (
    rb"(?i)((?:mnemonic|(?:seed|recovery|backup)[ _-]?(?:phrase|words))[^a-z\n]{1,6}(?:is[: ]+)?[\"']?)"
    rb"([a-z]{3,8}(?:[ ,]+[a-z]{3,8}){11,23})"
)
BEARER: Final = rb"(?i)(\bbearer[ \t]+)([a-z0-9._~+/-]{8,}=*)([^a-z0-9=]|$)"
BASIC: Final = rb"(?i)(\bbasic[ \t]+)([a-z0-9+/]{6,}={0,2})"
CALLBACK: Final = rb"([?&]code=)([^&\s\"'<>\\]{16,})"
"""Authorization code in the redirect of OAuth."""

_URL: Final = rb"[a-z][a-z0-9+.-]*:\\?/\\?/[^\s/?#:@\"'<>\[\]]*:"
URL: Final = rb"(?i)(%s)([^\s/?#\"'<>]+)@" % _URL
URL_SLASH: Final = rb"(?i)(%s)([^\s/?#\"'<>@]*[/?#][^\s\"'<>@]*)@" % _URL
"""URL with an unescaped slash in the password, which is invalid but occurs."""

TOKEN: Final = b"|".join(b"(%s)" % pattern for _, pattern in tokens.TOKENS)
WORD: Final = rb"(%s)(?:%s)(?:\b|$)" % (
    BOUNDARY, b"|".join(b"(%s)" % pattern for _, pattern in tokens.WORDS),
)  # fmt: skip
SK_KEY: Final = rb"(%s)(%s)" % (BOUNDARY, tokens.SK_KEY)

# Triggers are found in one pass over a text, together: they are shorter than the expressions above, and also
# match in text that is written as JSON escapes.
AUTHORIZATION_TRIGGER: Final = rb"(?i:authorization)"
COOKIE_TRIGGER: Final = rb"(?i:cookie%s%s)" % (BETWEEN, MARK)
PAIR_TRIGGER: Final = rb"(?i:%s(?:%s|%%22)(?:%s|,)|pass[\\\"' \t]*[=:]|%s)" % (
    WORDS,
    BETWEEN,
    MARK,
    ESCAPED_WORDS,
)
NAMED_VALUE_TRIGGER: Final = (
    rb"(?i:(?:name|key|field|header)[\"'\\]*[ \t]*[:=][ \t]*[\"'\\]+[\w.-]*(?:%s|cookie)[\"'\\])" % WORDS
)
ELEMENT_TRIGGER: Final = rb"(?i:<[\w:.-]*%s>)" % WORDS
OPTION_TRIGGER: Final = rb"(?i:-[\w-]*%s(?:[ \t]|\\t))" % WORDS
SENTENCE_TRIGGER: Final = (
    rb"(?i:(?:password|passwd|passphrase|passcode|api key|secret key|access token)(?:[ \t]|\\t)*"
    rb"(?:(?:for|of|is|was|has|(?:re)?set|changed)(?:[: \t]|\\t)|->|\xe2\x86\x92|\\u2192|\[))"
)
UNNAMED_TRIGGER: Final = (
    rb"(?i:(?:password|passwd|passphrase|token|api key|secret key)(?:[ \t]|\\t)+(?:[057](?:[ \t]|\\t)+)?"
    rb"[A-Za-z0-9!@#$%^&*_~+-]{8})"
)
CODE_TRIGGER: Final = (
    rb"(?i:(?:code|password|pin)(?: is:?|:| for [^\s:]{1,64}(?: is|:))(?:[ \t]|\\t)*[0-9]{4})"
)
MNEMONIC_TRIGGER: Final = rb"(?i:mnemonic|(?:seed|recovery|backup)[ _-]?(?:phrase|words))"
CALLBACK_TRIGGER: Final = rb"[?&]code="
URL_TRIGGER: Final = rb":\\*/\\*/[^\s/?#:@\"'<>]*:[^\s\"'<>]*@"
BEARER_TRIGGER: Final = rb"(?i:bearer(?:[ \t]|\\t))"
BASIC_TRIGGER: Final = rb"(?i:basic(?:[ \t]|\\t)+[a-z0-9+/]{6})"
TOKEN_TRIGGER: Final = b"|".join(pattern for _, pattern in tokens.TOKENS)
WORD_TRIGGER: Final = rb"%s(?:%s)" % (BOUNDARY, b"|".join(pattern for _, pattern in tokens.WORDS))
SK_KEY_TRIGGER: Final = BOUNDARY + tokens.SK_KEY

FIELD_TRIGGER: Final = rb"(?i:(?:%s|cookie|authorization)[\"'\\])" % WORDS
"""Expression for a JSON object with a field that is named like a secret."""
