"""Redaction: no secret is shipped, and harmless text is unchanged."""

import json
import time
from collections import Counter
from collections.abc import Callable

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Rejection
from tickertape.producers.shipper.parsing.formats import FORMATS
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings
from tickertape.producers.shipper.redaction.expressions import compile_bytes
from tickertape.producers.shipper.redaction.redactor import Redactor
from tickertape.producers.shipper.redaction.rules import SUSPECT, apply_rules

NOW = 1_750_000_000.0

PEM = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"

SECRETS = [
    # text, the secret in it, kind of the secret
    ("Authorization: Bearer abc.DEF-123", "abc.DEF-123", "authorization"),
    ("authorization: Basic dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIy", "authorization"),
    ("Proxy-Authorization: Custom s3cr3tvalue", "s3cr3tvalue", "authorization"),
    ("authorization=s3cr3tvalue status=200", "s3cr3tvalue", "authorization"),
    ('Authorization: Digest username="bob", response="6629fae4939"', "6629fae4939", "authorization"),
    ("curl -H 'Authorization: token s3cr3tvalue' https://x", "s3cr3tvalue", "authorization"),
    ("sent Bearer mF_9.B5f-4.1JqM to api", "mF_9.B5f-4.1JqM", "authorization"),
    ("sent Basic dXNlcjpodW50ZXIy to api", "dXNlcjpodW50ZXIy", "authorization"),
    ("Cookie: sid=s3cr3tvalue; theme=dark", "s3cr3tvalue", "cookie"),
    ("postgres://bob:hunter2@db:5432/x", "hunter2", "url_password"),
    ("redis://:hunter2@cache/0", "hunter2", "url_password"),
    ("amqp://a:b@one,amqp://bob:hunter2@two", "hunter2", "url_password"),
    ("https://bob:hun@ter2@host/a", "ter2", "url_password"),
    ("https://bob:hun/ter2@host/a", "ter2", "url_password"),
    ("password=hunter2", "hunter2", "password"),
    ("password: hunter2", "hunter2", "password"),
    ("DB_PASSWORD = hunter2, user = bob", "hunter2", "password"),
    ("userPassword=>hunter2", "hunter2", "password"),
    ("passwd='hunter2 and more'", "and more", "password"),
    ('pwd="a\\"hunter2"', "hunter2", "password"),
    ("password=SecretStr('hunter2')", "hunter2", "password"),
    ('password=Secret("hunter2")', "hunter2", "password"),
    ("password=b'hunter2'", "hunter2", "password"),
    ("password=['hunter2', 'hunter3']", "hunter3", "password"),
    ("{'password': 'hunter2', 'user': 'bob'}", "hunter2", "password"),
    ('{"password": "hunter2", "user": broken', "hunter2", "password"),
    ('body "{\\"password\\": \\"hunter2\\"}"', "hunter2", "password"),
    ("password=[redacted:x]hunter2", "hunter2", "password"),
    ("GET /login?user=bob&password=hunter2&x=1", "hunter2", "password"),
    ("password%3Dhunter2", "hunter2", "password"),
    ("<db:password>hunter2</db:password>", "hunter2", "password"),
    ("mysql --password hunter2 -u bob", "hunter2", "password"),
    ("登录 密码：hunter2", "hunter2", "password"),
    ("secret=s3cr3tvalue", "s3cr3tvalue", "secret"),
    ("client_secret: s3cr3tvalue", "s3cr3tvalue", "secret"),
    ("token=s3cr3tvalue;", "s3cr3tvalue", "token"),
    ("token: Bearer s3cr3tvalue", "s3cr3tvalue", "token"),
    ("X-Auth-Token: s3cr3tvalue", "s3cr3tvalue", "token"),
    ("('x-api-key', 's3cr3tvalue')", "s3cr3tvalue", "key"),
    ("api_key=s3cr3tvalue", "s3cr3tvalue", "key"),
    ("apiKey: s3cr3tvalue", "s3cr3tvalue", "key"),
    ("access-key=s3cr3tvalue", "s3cr3tvalue", "key"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI", "key"),
    ("credential=s3cr3tvalue", "s3cr3tvalue", "credential"),
    (f"got {JWT} back", "eyJzdWIi", "jwt"),
    ("id AKIAIOSFODNN7EXAMPLE ok", "AKIAIOSFODNN7EXAMPLE", "aws_key"),
    ("key AIzaSyA1234567890abcdefghijklmnopqrstuv", "AIzaSyA1234567890", "google_key"),
    ("push ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdef", "github_token"),
    ("push github_pat_11ABCDEFG0abcdefghijkl_xyz", "11ABCDEFG0", "github_token"),
    ("hook xoxb-123456789012-abcdefghijkl", "123456789012-abc", "slack_token"),
    ("pay sk_live_abcdefgh12345678", "abcdefgh12345678", "stripe_key"),
    ("push glpat-abcdefghij1234567890", "abcdefghij1234567890", "gitlab_token"),
    ("publish npm_abcdefghijklmnopqrstuvwxyz0123456789", "npm_abcdefghij", "npm_token"),
    ("load hf_abcdefghijklmnopqrstuvwxyz0123456789", "hf_abcdefghij", "huggingface_token"),
    ("mail SG.abcdefghijklmnop.qrstuvwxyz012345", "abcdefghijklmnop", "sendgrid_key"),
    ("id LTAIabcdefghij1234 ok", "LTAIabcdefghij1234", "aliyun_key"),
    ("ask sk-abcdefghijklmnop1234567890", "abcdefghijklmnop", "api_key"),
    (f"-----BEGIN RSA PRIVATE KEY-----{PEM}-----END RSA PRIVATE KEY----- end", PEM, "private_key"),
    (f"-----BEGIN PRIVATE KEY-----{PEM}", PEM, "private_key"),
    ("card 4111111111111111 charged", "4111111111111111", "card"),
    ("card 4111 1111 1111 1111 charged", "1111 1111", "card"),
    ("card 5500-0000-0000-0004.", "5500-0000", "card"),
    ("3 4111-1111-1111-1111 and card 378282246310005", "378282246310005", "card"),
    ("卡号4111111111111111", "4111111111111111", "card"),
]  # fmt: skip

HARMLESS = [
    "token bucket is full, 12 tokens left",
    "order 1234567890123 filled",
    "order 4111111111111112 of 5500000000000005",
    "max_tokens=4096 tokens: 12",
    "at 1750000000123 and 1750000000123456789",
    "uuid 550e8400-e29b-41d4-a716-446655440000",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "id4111111111111111 and 4111111111111111x and a_4111111111111111",
    "ratio 0.4111111111111111 and 4111111111111111.5",
    "run 41111111111111111111111111",
    "2025-06-24 10:30:45.123456 +0800",
    "http://host:8080/path?mail=a@b.c",
    "https://user@host/x and mailto:bob@example.com",
    "password: null, token=None, secret=",
    "the password was changed; secrets are kept",
    "Basic authentication and bearer of news",
    "keyboard=us monkey=1 author=bob authority: none key=value",
    "passed: 12 failed: 3, bypass=on compass: n",
    "task-force-one-two-three-four risk-based-approach-to-all",
    "primary_key=12 foreign key: x partition_key=a",
    "10.0.0.1 - - [24/Jun/2025:10:30:45 +0800] 200 1234",
    "authorization failed for bob",
    "-----BEGIN CERTIFICATE----- MIIB -----END CERTIFICATE-----",
]  # fmt: skip


def _json(text: str) -> str:
    return json.dumps({"level": "info", "msg": text, "deep": {"list": [text]}})


def _structured(text: str) -> str:
    value = text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
    return f'<13>1 2025-06-24T10:30:45Z host app 1 - [a@1 k="{value}"] m'


def _hidden(text: str) -> str:
    return '{"msg":"' + "".join(f"\\u{ord(letter):04x}" for letter in text) + '"}'


WRAPPERS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "timed": lambda text: f"2025-06-24 10:30:45.123 ERROR {text}",
    "python": lambda text: f"2025-06-24 10:30:45,123 INFO app.x: {text}",
    "dashed": lambda text: f"2025-06-24 10:30:45,123 - app - INFO - {text}",
    "basic": lambda text: f"INFO:app:{text}",
    "basic, no name": lambda text: f"INFO:{text}",
    "loguru": lambda text: f"2025-06-24 10:30:45.123 | INFO     | app.x:run:12 - {text}",
    "glog": lambda text: f"I0624 10:30:45.123456   12345 file.go:123] {text}",
    "syslog": lambda text: f"<13>Jun 24 10:30:45 host app[1]: {text}",
    "syslog, no tag": lambda text: f"<13>Jun 24 10:30:45 host {text}",
    "syslog 5424": lambda text: f"<13>1 2025-06-24T10:30:45Z host app 1 - - {text}",
    "structured": _structured,
    "logfmt": lambda text: f"level=info msg={json.dumps(text, ensure_ascii=False)} x=1",
    "json": _json,
    "escaped": _hidden,
    "named source": lambda text: json.dumps({"msg": "m", "logger": text, text: 1}),
    "ansi": lambda text: "\x1b[31m".join(text),
    "escape of a space": lambda text: f"by \x1b {text}",
    "incomplete escape": lambda text: f"by \x1b[{text}",
    "incomplete C1 escape": lambda text: f"by \x9b {text}",
    "incomplete escape in JSON": lambda text: json.dumps({"msg": f"\x1b[{text}", f"\x1b({text}": text}),
    "controls": lambda text: "\x00\u202e".join(text),
}  # fmt: skip


def parse_batch(
    line: bytes | list[bytes], counts: ParserCounts | None = None, **settings: object
) -> list[ParsedEvent]:
    """Parse lines fed in one batch."""
    lines = [line] if isinstance(line, bytes) else line
    ends = [sum(len(item) + 1 for item in lines[: index + 1]) for index in range(len(lines))]
    parser = Parser(ParseSettings(**settings), "app", counts or ParserCounts())  # type: ignore[arg-type]
    return [*parser.feed(lines, ends, NOW), *parser.flush(NOW)]


def test_every_format_has_a_sample() -> None:
    """Every format is covered by ``WRAPPERS``."""
    assert set(FORMATS) - {"auto"} <= set(WRAPPERS)


@pytest.mark.parametrize(
    ("text", "secret"), [("4111 1111 1111 1111", "4111"), *((text, secret) for text, secret, _ in SECRETS)]
)
def test_a_secret_after_a_suspect_line_is_found(text: str, secret: str) -> None:
    """A secret that begins its line is redacted, whatever the line before it contains."""
    for before in ("password=hunter2", "\x1b[31mred"):
        events = parse_batch([before.encode(), text.encode(), b"end"], multiline="off")
        assert secret not in published_text(events[1:]), before


def published_text(events: list[ParsedEvent]) -> str:
    """Return all text that is published for the events, encoded and decoded."""
    texts = []
    for event in events:
        payload = event.encode()
        assert not isinstance(decode(event.subject, payload), Rejection)
        texts += [event.subject, payload.decode(), json.dumps(orjson.loads(payload), ensure_ascii=False)]
    return "\n".join(texts)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(("text", "secret", "kind"), SECRETS)
def test_no_secret_is_shipped_in_any_format(text: str, secret: str, kind: str, wrapper: str) -> None:
    """A secret anywhere in a line appears neither in the payload nor in the subject, and is counted."""
    counts = ParserCounts()
    encoding = "utf-8" if text.isascii() else "gb18030"
    line = WRAPPERS[wrapper](text)
    for data in (line.encode(), line.encode(encoding)):
        out = published_text(parse_batch(data, counts))
        assert secret not in out
        assert "[redacted:" in out
    assert counts.redacted


@pytest.mark.parametrize(("text", "secret", "kind"), SECRETS)
def test_secrets_are_replaced_by_their_kind_and_counted(text: str, secret: str, kind: str) -> None:
    """A secret is replaced by its kind and counted; redacting the result again changes nothing."""
    counts: Counter[str] = Counter()
    redactor = Redactor(counts)
    redacted = redactor.redact_text(text)
    assert f"[redacted:{kind}]" in redacted
    before = counts.copy()
    assert before[kind] >= 1
    assert redactor.redact_text(redacted) == redacted
    assert counts == before


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_unchanged(text: str) -> None:
    """Text and values that only resemble a secret are unchanged."""
    counts = ParserCounts()
    assert parse_batch(text.encode(), counts, format="plain")[0].message in (text, text[27:].lstrip())
    assert Redactor(counts.redacted).redact_text(text) == text
    assert parse_batch(_json(text).encode(), counts)[0].message == text
    assert not counts.redacted


@pytest.mark.parametrize(
    ("body", "metadata"),
    [
        ({"password": "hunter2"}, {"password": "[redacted:password]"}),
        ({"db": {"pwd": 1234, "port": 5432}}, {"db": {"pwd": "[redacted:password]", "port": 5432}}),
        ({"apiKey": ["a", {"b": "c"}]}, {"apiKey": ["[redacted:key]", {"b": "[redacted:key]"}]}),
        ({"token": None, "secret": True, "jwt": ""}, {"token": None, "secret": True, "jwt": ""}),
        ({"h": {"Authorization": "x y"}}, {"h": {"Authorization": "[redacted:authorization]"}}),
        ({"h": [["cookie", "abc"]]}, {"h": [["cookie", "[redacted:cookie]"]]}),
        ({"e": {"name": "PGPASSWORD", "value": "x"}},
         {"e": {"name": "PGPASSWORD", "value": "[redacted:password]"}}),
        ({"card": 4111111111111111, "n": 4111111111111112},
         {"card": "[redacted:card]", "n": 4111111111111112}),
        ({"tokens": 12, "public_key": "x", "ms": 1750000000123},
         {"tokens": 12, "public_key": "x", "ms": 1750000000123}),
    ],
)  # fmt: skip
def test_values_are_redacted_by_their_keys(body: dict[str, object], metadata: dict[str, object]) -> None:
    """All values of a field with the name of a secret are redacted, at any depth."""
    assert parse_batch(json.dumps({"msg": "m", **body}).encode())[0].metadata == metadata


@pytest.mark.parametrize("multiline", ["auto", "off", "^start"])
@pytest.mark.parametrize("count", [3, 1200])
def test_a_private_key_of_several_lines_is_redacted(multiline: str, count: int) -> None:
    """No line of a private key is shipped, however lines are joined; lines after it are."""
    body = [f"{PEM}{number:06d}abcdefgh" for number in range(count)]
    lines = [
        "start",
        "-----BEGIN RSA PRIVATE KEY-----",
        *body,
        "-----END RSA PRIVATE KEY-----",
        "start ok now",
    ]
    events = parse_batch([line.encode() for line in lines], multiline=multiline)
    assert PEM not in published_text(events)
    assert events[-1].message == "start ok now"


KEY_LINES: dict[str, Callable[[int, str], str]] = {
    "CRI": lambda number, text: f"2025-06-24T10:30:45.{number + 100}Z stdout F {text}",
    "docker": lambda number, text: json.dumps({"log": f"{text}\n", "stream": "stdout", "time": str(number)}),
    "JSON": lambda number, text: json.dumps({"level": "info", "ts": number, "msg": text}),
    "JSON in CRI": lambda number, text: (
        f"2025-06-24T10:30:45.{number}Z stdout F " + json.dumps({"msg": text})
    ),
    "syslog": lambda number, text: f"Jun 24 10:30:{number:02} host app[12]: {text}",
    "compose": lambda _, text: f"web-1  | {text}",
    "logfmt": lambda number, text: f"level=info ts={number} msg={text}",
}


@pytest.mark.parametrize("form", KEY_LINES)
@pytest.mark.parametrize("other", [[], ["2025-06-24T10:30:45.1Z stderr F between the lines"]])
def test_a_private_key_in_prefixed_lines_is_redacted(form: str, other: list[str]) -> None:
    """Lines of a key with a prefix are redacted, also among others; lines before and after it are not."""
    wrap = KEY_LINES[form]
    key = ["-----BEGIN RSA PRIVATE KEY-----", *([PEM] * 5), "QmFzZQ==", "-----END RSA PRIVATE KEY-----"]
    lines = [wrap(0, "start")]
    for number, text in enumerate(key, 10):
        lines += [wrap(number, text), *other]
    lines.append(wrap(20, "word"))
    for size in (1, len(lines)):
        counts = ParserCounts()
        parser = Parser(ParseSettings(), "app", counts)
        events = []
        for start in range(0, len(lines), size):
            batch = [line.encode() for line in lines[start : start + size]]
            events += parser.feed(batch, list(range(start + 1, start + 1 + len(batch))), NOW)
        events += parser.flush(NOW)
        published = published_text(events)
        assert PEM not in published
        assert "QmFzZQ" not in published
        messages = "\n".join(event.message for event in events)
        assert "start" in messages
        assert "word" in messages
        assert messages.count("between the lines") == len(other) * len(key)


def test_an_unterminated_private_key_ends_with_its_last_line() -> None:
    """The redaction of an unterminated private key ends at the first line that does not look like a key."""
    events = parse_batch(
        [b"-----BEGIN PRIVATE KEY-----", PEM.encode(), b"and then a line", b"word"], multiline="off"
    )
    assert [event.message for event in events] == [
        "[redacted:private_key]",
        "[redacted:private_key]",
        "and then a line",
        "word",
    ]


def test_a_private_key_is_redacted_after_a_reset() -> None:
    """After a reset the parser redacts lines of a private key even if its header is not fed again."""
    parser = Parser(ParseSettings(multiline="off"), "app", ParserCounts())
    parser.feed(
        [b"-----BEGIN PRIVATE KEY-----", PEM.encode(), b"-----END PRIVATE KEY-----"], [28, 61, 87], NOW
    )
    parser.reset()
    assert PEM not in published_text(parser.feed([PEM.encode()], [61], NOW))


def test_secrets_are_found_in_a_block() -> None:
    """In a block of lines exactly those with a secret are redacted, regardless of the lines before them."""
    lines = [b"harmless \xe4\xb8\xad"] * 50 + [b"password=hunter2"] + [b"x"] * 50 + [b"4111 1111 1111 1111"]
    events = parse_batch(lines)
    assert [index for index, event in enumerate(events) if "[redacted" in event.message] == [50, 101]
    assert "hunter2" not in published_text(events)


def test_patterns_are_configurable() -> None:
    """Configured patterns redact their complete match, or their group, also in metadata and sources."""
    counts = ParserCounts()
    patterns = (("account", r"acct-\d+"), ("desk", r"desk (\w+)"), ("none", r"q*"))
    events = parse_batch(
        b'{"msg":"acct-17 of desk blue","logger":"acct-17","a":"acct-18"}', counts, redact=patterns
    )
    assert events[0].message == "[redacted:account] of desk [redacted:desk]"
    assert events[0].source == "[redacted:account]"
    assert events[0].metadata == {"a": "[redacted:account]"}
    assert counts.redacted == {"account": 3, "desk": 1}


@pytest.mark.parametrize(("kind", "pattern"), [("a", "("), ("a", r"(?=x)"), ("a b", "x"), ("", "x")])
def test_an_invalid_pattern_is_rejected(kind: str, pattern: str) -> None:
    """An invalid pattern is rejected with its name and the reason."""
    with pytest.raises(ValueError, match=r"not valid in RE2|is not a valid kind"):
        Redactor(Counter(), [(kind, pattern)])


@pytest.mark.parametrize(
    "piece",
    ["password=", 'password="', "a://b:", "Authorization: x ", "1 ", "4111 ", "eyJ",
     "-----BEGIN PRIVATE KEY-----", "\x1b[", "{", "a=", "<password>",
     "--password ", "=\"\\", "cookie: a=", "password=,a", "+/=",
     "token=a;", 'token=a;u="";', "insert into a(password)values('", "insert into a(token)values(",
     " :a:12:b:", "password '"],
)  # fmt: skip
def test_malicious_text_takes_linear_time(piece: str) -> None:
    """Malicious lines of the maximum length are redacted in linear time."""
    line = (piece * 65536)[:65536].encode()
    started = time.process_time()
    published_text(parse_batch(line))
    assert time.process_time() - started < 3.0


@settings(deadline=None, max_examples=500)
@given(
    st.sampled_from([text for text, _, _ in SECRETS]),
    st.integers(0, 60),
    st.sampled_from(["", "'", '"', " ", "\t", "\n", "=", ":", "\\", ",", "x", "1", "-", "/", "@", "_"]),
    st.integers(0, 3),
)
@example("登录 密码：hunter2", 5, ":", 1)
@example("4111111111111111", 0, "中\n", 0)
@example("redis://:hunter2@cache/0", 6, "\\", 0)
def test_the_block_search_misses_nothing(text: str, index: int, piece: str, skipped: int) -> None:
    """Text in which the block search finds nothing matches no rule, including text with JSON escapes."""
    text = text[:index] + piece + text[index + skipped :]
    suspect = compile_bytes(SUSPECT)
    for line in (text, json.dumps(text), json.dumps({"a": text}, ensure_ascii=False)):
        if suspect.search(line.encode()) is None:
            assert apply_rules(text.encode(), str.encode) == text.encode()
