"""Grammar of subjects, and patterns compared with an independent oracle."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts import subjects
from tickertape.contracts.decode import parse_subject
from tickertape.contracts.events import (
    MODELS,
    EventModel,
    GatewayRecovery,
    GatewayStatusChange,
    SystemHealth,
    SystemLog,
)
from tickertape.contracts.subjects import SubjectError, covers, escape, matches, unescape

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
tokens = st.text("ab=0123456789ABCDEFcd._-é", max_size=8)

# Patterns name only two of the three tokens, so '*' always matches a token that no name matches.
SUBJECTS = [".".join(parts) for n in range(1, 5) for parts in product("abc", repeat=n)]
PATTERNS = [
    ".".join((*parts, *tail))
    for n in range(4)
    for parts in product("ab*", repeat=n)
    for tail in ((), (">",))
    if parts or tail
]


def _selected(pattern: str) -> frozenset[str]:
    text = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    return frozenset(subject for subject in SUBJECTS if re.fullmatch(text, subject))


SELECTED = {pattern: _selected(pattern) for pattern in PATTERNS}


@given(ids)
def test_an_id_round_trips(text: str) -> None:
    """An escaped id is a token of legal characters and unescapes to the same id."""
    token = escape(text)
    assert re.fullmatch("[A-Za-z0-9_=-]+", token)
    assert unescape(token) == text


@given(tokens)
def test_only_the_canonical_form_is_legal(token: str) -> None:
    """A token that can be unescaped is the canonical form of its id."""
    try:
        text = unescape(token)
    except SubjectError:
        return
    assert escape(text) == token


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("ctp.main", "ctp=2Emain"),
        ("a=b", "a=3Db"),
        ("é", "=C3=A9"),
        ("a b", "a=20b"),
        ("*", "=2A"),
        (">", "=3E"),
    ],
)
def test_known_tokens(text: str, token: str) -> None:
    """Ids escape to the tokens that the contract documents."""
    assert escape(text) == token
    assert unescape(token) == text


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("=41", "not canonical; use 'A'"),
        ("=2e", "upper-case hex"),
        ("=2", "upper-case hex"),
        ("a.b", "upper-case hex"),
        ("a\n", "upper-case hex"),
        ("é", "upper-case hex"),
        ("", "upper-case hex"),
        ("=FF", "does not unescape to UTF-8"),
        ("=ED=A0=80", "does not unescape to UTF-8"),
        ("=C0=80", "does not unescape to UTF-8"),
        ("a" * 129, "the limit is 128"),
    ],
)
def test_illegal_tokens_are_reported(token: str, expected: str) -> None:
    """The error for an illegal token says what is wrong and how to write it."""
    with pytest.raises(SubjectError, match=re.escape(expected)):
        unescape(token)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "empty"), ("\ud800", "not valid Unicode"), ("é" * 22, "132 characters"), ("a" * 129, "129")],
)
def test_ids_that_cannot_be_escaped_are_rejected(text: str, expected: str) -> None:
    """An id that is empty, too long, or not valid Unicode cannot be escaped."""
    with pytest.raises(SubjectError, match=expected):
        escape(text)


def test_a_token_may_have_128_characters() -> None:
    """A token of exactly 128 characters, after escaping, is legal."""
    assert unescape("a" * 128) == "a" * 128
    assert len(escape("é" * 21 + "ab")) == 128


@given(ids, ids, st.sampled_from(subjects.LEVELS))
def test_a_built_subject_can_be_parsed(one: str, two: str, level: str) -> None:
    """A built subject parses to its type and fields, and is a legal pattern."""
    gateway = {"gateway_type": one, "gateway_id": two}
    built: list[tuple[type[EventModel], dict[str, str]]] = [
        (GatewayStatusChange, gateway),
        (GatewayRecovery, gateway),
        (SystemLog, {"level": level, "source": two}),
        (SystemHealth, {"component": one}),
        (SystemHealth, {"component": one, "instance": two}),
    ]
    for model, fields in built:
        subject = model.subject_of(**fields)
        parsed = parse_subject(subject)
        assert (MODELS[parsed.event_type], parsed.fields) == (model, fields)
        assert subjects.check_pattern(subject) == subject


def test_the_longest_subject_is_a_legal_pattern() -> None:
    """The longest subject of the contract is a legal pattern, so a client can follow it."""
    longest = GatewayRecovery.subject_of(gateway_type="a" * 128, gateway_id="b" * 128)
    assert subjects.check_pattern(longest) == longest


@pytest.mark.parametrize(
    "subject",
    ["", "gateway", "gateway.status.a", "gateway.status.a.b.c", "gateway.other.a.b", "log.info", "log.INFO.a",
     "log.Info.a", "log.trace.a", "log.warning.a", "system.health", "system.health.a.b.c", "checkpoint.a.b",
     "log.info.=41", "log.info."],
)  # fmt: skip
def test_subjects_outside_of_the_contract_are_rejected(subject: str) -> None:
    """Subjects outside of the contract are rejected."""
    with pytest.raises(SubjectError):
        parse_subject(subject)


def test_the_level_of_a_subject() -> None:
    """A log subject names its level in lower case; other subjects have none."""
    assert subjects.level_of("log.warn.a") == "WARN"
    assert subjects.level_of("log.critical") == "CRITICAL"
    for subject in ("log.WARN.a", "log.warning.a", "log", "gateway.warn.a", "logs.warn.a"):
        assert subjects.level_of(subject) is None
    with pytest.raises(SubjectError, match="one of DEBUG, INFO, WARN, ERROR, CRITICAL"):
        SystemLog.subject_of(level="TRACE", source="a")


def test_a_checkpoint_has_a_subject() -> None:
    """The shipper's checkpoints have a subject per host and file."""
    assert subjects.checkpoint_subject("host.a", "/var/log/x") == "checkpoint.host=2Ea.=2Fvar=2Flog=2Fx"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_matches_agrees_with_the_oracle(pattern: str) -> None:
    """A pattern matches exactly the subjects that its regular expression matches."""
    assert {subject for subject in SUBJECTS if matches(pattern, subject)} == SELECTED[pattern]


@pytest.mark.parametrize("wide", PATTERNS)
def test_covers_is_inclusion(wide: str) -> None:
    """A pattern covers another exactly when it matches all subjects that the other matches."""
    wrong = [narrow for narrow in PATTERNS if covers(wide, narrow) != (SELECTED[narrow] <= SELECTED[wide])]
    assert wrong == []


@pytest.mark.parametrize("pattern", ["a", "*", ">", "a.*.b", "a.*.>", "é.b", "=2E", "$x"])
def test_legal_patterns(pattern: str) -> None:
    """Legal patterns of NATS are accepted unchanged."""
    assert subjects.check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", "is empty"),
        ("a" * 281, "the limit is 280"),
        (">.a", "only the last token may be '>'"),
        ("a..b", "empty token"),
        (".a", "empty token"),
        ("a.", "empty token"),
        ("a*", "a wildcard must be a complete token"),
        ("a.b>", "a wildcard must be a complete token"),
        ("a b", "illegal token"),
        ("a\x00", "illegal token"),
        ("a\n", "illegal token"),
    ],
)
def test_illegal_patterns_are_reported(pattern: str, expected: str) -> None:
    """The error for an illegal pattern says what is wrong and is short, however long the pattern is."""
    with pytest.raises(SubjectError, match=re.escape(expected)) as caught:
        subjects.check_pattern(pattern)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize(
    "subject", ["log.info.x", "log", "a.b*c.d>", "log.info.é", "log.info.=FF", "x" * 5_000, "a.\N{SNOWMAN}"]
)
def test_a_legal_subject_has_no_error(subject: str) -> None:
    """Any subject that a pattern can name is legal, so producers can extend the contract."""
    assert subjects.find_subject_error(subject) is None


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("log.\udcff", "UTF-8"),
        ("", "empty token"),
        ("log.", "empty token"),
        (".log", "empty token"),
        ("log..x", "empty token"),
        ("log.*", "wildcard"),
        ("log.>", "wildcard"),
        ("*.log", "wildcard"),
        ("log.*.x", "wildcard"),
        ("log.a b", "white space"),
        ("log.a\u2028", "white space"),
        ("log.\x0b", "control"),
        ("log.\x00", "control"),
        ("log.\x7f", "control"),
        ("log.\x85", "control"),
        ("log.x\n", "white space"),
    ],
)
def test_an_illegal_subject_has_an_error(subject: str, expected: str) -> None:
    """The error for an illegal subject says what is wrong, and the subject can be escaped."""
    assert expected in (subjects.find_subject_error(subject) or "")
    assert subjects.escape_subject(subject).isascii()
    assert subjects.escape_subject(subject).isprintable()


@given(st.binary())
def test_an_escaped_subject_is_legal_and_reversible(data: bytes) -> None:
    """Escaping a subject is reversible and gives a legal subject."""
    escaped = subjects.escape_subject(data.decode(errors="surrogateescape"))
    assert subjects.find_subject_error(escaped) is None
    tokens = ["" if token == "=" else token for token in escaped.split(".")]
    assert re.sub("=(..)", lambda found: chr(int(found[1], 16)), ".".join(tokens)).encode("latin-1") == data
