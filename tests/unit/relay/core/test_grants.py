"""Intersection of grants with filters, compared with matching each subject."""

import itertools
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.contracts.subjects import LEVELS, intersect, level_of, matches
from tickertape.relay.core import grants
from tickertape.relay.core.filters import RANK
from tickertape.relay.core.grants import EVERYTHING, ClientCertificate, Grant, grant_of

TOKENS = ("a", "b")
SUBJECTS = [".".join(tokens) for length in range(1, 6) for tokens in itertools.product(TOKENS, repeat=length)]
"""All subjects of one to five tokens, enough to tell apart any two of the patterns below."""

LOGS = [f"log.{level.lower()}.{source}" for level in LEVELS for source in TOKENS] + ["log.x.a", "log.INFO.a"]


@st.composite
def patterns(draw: st.DrawFn, heads: tuple[str, ...] = ()) -> str:
    """Draw a pattern of at most four tokens, with wildcards as likely as names."""
    tokens = draw(st.lists(st.sampled_from((*TOKENS, *heads, "*")), max_size=3))
    return ".".join([*tokens, draw(st.sampled_from((*TOKENS, "*", ">")))])


def log_patterns() -> st.SearchStrategy[str]:
    """Return a strategy for patterns that select logs by level and source."""
    parts = st.sampled_from(("debug", "info", "error", "*")), st.sampled_from((*TOKENS, "*", ">"))
    return st.one_of(st.sampled_from((">", "log.>", "log.*.a")), st.builds("log.{}.{}".format, *parts))


@given(patterns(), patterns())
@example("a", "a.>")
@example("a.>", "*.b.>")
@example(">", "*")
@example("*.*", ">")
def test_an_intersection_matches_what_both_match(one: str, other: str) -> None:
    """The intersection of two patterns matches the subjects that both match, and is symmetric."""
    both = intersect(one, other)
    assert both == intersect(other, one)
    for subject in SUBJECTS:
        assert (both is not None and matches(both, subject)) == (
            matches(one, subject) and matches(other, subject)
        ), subject


def _check(grant: Grant, requested: tuple[str, ...], level: str, subjects: list[str]) -> None:
    least = max(RANK[level], RANK[grant.level])

    def allowed(subject: str) -> bool:
        named = level_of(subject)
        return (
            any(matches(pattern, subject) for pattern in requested)
            and any(matches(pattern, subject) for pattern in grant.subjects)
            and not any(matches(pattern, subject) for pattern in grant.deny)
            and (named is None or RANK[named] >= least)
        )

    try:
        narrowed = grant.intersect(requested, level)
    except ProtocolError:
        assert not any(allowed(subject) for subject in subjects)
        return
    for subject in subjects:
        assert narrowed.matches(subject) == allowed(subject), subject


many = st.lists(patterns(), min_size=1, max_size=4).map(tuple)
few = st.lists(patterns(), max_size=3).map(tuple)
levels = st.sampled_from(LEVELS)


@given(many, few, many)
@example((">",), ("a.>",), ("a.*", "b"))
@example(("a.>", "a.b"), ("a.b",), (">",))
@example(("a.*",), ("a.a", "a.b"), (">",))
def test_a_grant_restricts_a_filter_exactly(
    granted: tuple[str, ...], denied: tuple[str, ...], requested: tuple[str, ...]
) -> None:
    """The intersected filter matches a subject if it is requested, granted, and not denied."""
    _check(Grant(granted, denied), requested, "DEBUG", SUBJECTS)


@given(
    st.lists(log_patterns(), min_size=1, max_size=3).map(tuple),
    st.lists(log_patterns(), max_size=2).map(tuple),
    st.lists(log_patterns(), min_size=1, max_size=3).map(tuple),
    levels,
    levels,
)
def test_the_higher_level_applies(
    granted: tuple[str, ...], denied: tuple[str, ...], requested: tuple[str, ...], level: str, least: str
) -> None:
    """The higher of the requested and the granted level applies to subjects that name a level."""
    _check(Grant(granted, denied, least), requested, level, LOGS)


def test_an_empty_intersection_is_forbidden() -> None:
    """An empty intersection is forbidden, and the error names both sides in bounded length."""
    grant = Grant(("log.>",), ("log.debug.>",))
    for requested in (("gateway.>",), ("log.debug.a",), ("log.debug.>", "x")):
        with pytest.raises(ProtocolError, match=r"does not grant .*; it grants log\.>") as caught:
            grant.intersect(requested, "DEBUG")
        assert caught.value.code is ErrorCode.FORBIDDEN
    with pytest.raises(ProtocolError) as caught:
        grant.intersect(("x" * 280,) * 64, "DEBUG")
    assert len(caught.value.message) < 500


def test_a_filter_cannot_expand_into_too_many_patterns() -> None:
    """A filter that would expand into too many patterns is rejected."""
    grant = Grant(tuple(f"*.{number}.>" for number in range(17)))
    sixteen = tuple(f"a{number}.>" for number in range(16))
    with pytest.raises(ProtocolError, match=f"into 272 patterns, more than {grants.MAX_PATTERNS}") as caught:
        grant.intersect(sixteen, "DEBUG")
    assert caught.value.code is ErrorCode.BAD_SUBJECTS
    assert len(grant.intersect(sixteen[:15], "DEBUG").subjects) == 255


def test_an_intersected_filter_is_minimal() -> None:
    """An intersected filter omits redundant patterns and denials that cannot match."""
    narrowed = Grant((">", "log.error.>"), ("gateway.>", "log.debug.>")).intersect(("log.>",), "INFO")
    assert (narrowed.subjects, narrowed.deny, narrowed.level) == (("log.>",), ("log.debug.>",), "INFO")
    assert EVERYTHING.intersect((">",), "WARN").key == ((">",), "WARN", (), "")


def claims(**claim: Any) -> dict[str, Any]:
    """Return the claims of a verified token."""
    return {"exp": 100, "tickertape": {"subjects": ["log.>"], **claim}}


def test_all_fields_of_a_claim_are_read() -> None:
    """All fields of a claim are read, and optional fields have defaults."""
    assert grant_of(claims(), "alice") == Grant(("log.>",), subject="alice", expires_at=100.0)
    full = claims(deny=["log.debug.>"], level="warn", rate=0, connections=3)
    assert grant_of({**full, "jti": "7"}, "alice") == Grant(
        ("log.>",), ("log.debug.>",), "WARN", 0.0, 3, "alice", "7", 100.0
    )
    assert grant_of(claims(subjects=["a", "b", "a"], rate=None, connections=None), "").subjects == ("a", "b")


@pytest.mark.parametrize(
    "given_claims",
    [{"exp": 1}, {"exp": 1, "tickertape": None}, claims(subjects=[]), {"exp": 1, "tickertape": {}}],
)
def test_a_token_that_grants_nothing_is_forbidden(given_claims: dict[str, Any]) -> None:
    """A token that grants nothing is FORBIDDEN rather than UNAUTHORIZED, since a new token would not help."""
    with pytest.raises(ProtocolError, match="so it grants nothing") as caught:
        grant_of(given_claims, "alice")
    assert caught.value.code is ErrorCode.FORBIDDEN


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ({"subjects": None}, "tickertape.subjects is not a list"),
        ({"subjects": "log.>"}, "tickertape.subjects is not a list"),
        ({"subjects": ["log.>", 5]}, "tickertape.subjects is not a list"),
        ({"subjects": ["a b"]}, "tickertape.subjects 'a b' has an illegal token"),
        ({"subjects": ["a"] * 65}, "has 65 patterns; at most 64"),
        ({"deny": None}, "tickertape.deny is not a list"),
        ({"deny": ["a..b"]}, "tickertape.deny 'a..b' has an empty token"),
        ({"deny": ["log.>", "gatway.>"]}, "tickertape.deny has 'gatway.>', which matches no subject"),
        ({"deny": ["log.DEBUG.>"]}, "tickertape.deny has 'log.DEBUG.>', which matches no subject"),
        ({"deny": ["gateway.staus.>"]}, "which matches no subject"),
        *(
            ({"deny": [">", pattern]}, "which matches no subject")
            for pattern in (
                *("log.debug", "log.debug.a.b", "log.*.a.>", "log.warning.>", "log.debug.a:b", "LOG.>"),
                *("gateway.status.ctp", "gateway.*.ctp", "gateway.status.ctp.a.b", "gateway.ctp.>"),
                *("system.health", "system.health.a.b.c", "system.health.a.b.>", "system.status.>"),
                *("log.debug.a=2e", "log.debug.a=41", "log.debug.g\u0430te", "log.debug.a\u200b"),
            )
        ),
        ({"dney": []}, "tickertape.dney is unknown; known fields are connections, control, deny"),
        ({"level": None}, "tickertape.level is not one of DEBUG"),
        ({"level": "WARNING"}, "tickertape.level is not one of DEBUG"),
        ({"level": "\u0131nfo"}, "tickertape.level is not one of DEBUG"),
        ({"rate": -0.1}, "tickertape.rate is not a number in 0..1000000"),
        ({"rate": float("nan")}, "tickertape.rate is not"),
        ({"rate": float("inf")}, "tickertape.rate is not"),
        ({"rate": False}, "tickertape.rate is not"),
        ({"rate": "5"}, "tickertape.rate is not"),
        ({"connections": 0}, "tickertape.connections is not an integer of at least 1"),
        ({"connections": 2.0}, "tickertape.connections is not"),
        ({"connections": True}, "tickertape.connections is not"),
    ],
)
def test_an_invalid_claim_grants_nothing(claim: dict[str, Any], text: str) -> None:
    """A claim with an invalid or unknown field, such as a misspelt ``deny``, grants nothing."""
    with pytest.raises(ProtocolError, match=text) as caught:
        grant_of(claims(**claim), "alice")
    assert caught.value.code is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize("claim", ["log.>", ["log.>"], 5, True])
def test_a_claim_has_to_be_an_object(claim: Any) -> None:
    """A claim that is not an object is rejected."""
    with pytest.raises(ProtocolError, match="tickertape is not an object"):
        grant_of({"exp": 1, "tickertape": claim}, "alice")


def certificate(**grant: Any) -> ClientCertificate:
    """Return a certificate with a grant."""
    return ClientCertificate(("cn:desk",), "ab", Grant(subject="cn:desk", **grant))


log_many = st.lists(log_patterns(), min_size=1, max_size=3).map(tuple)
log_few = st.lists(log_patterns(), max_size=2).map(tuple)


@given(log_many, log_few, levels, log_many, log_few, levels)
@example((">",), (), "DEBUG", ("log.>",), ("log.debug.a",), "WARN")
def test_a_token_and_a_certificate_grant_what_both_grant(
    one: tuple[str, ...], one_denied: tuple[str, ...], one_level: str,
    other: tuple[str, ...], other_denied: tuple[str, ...], other_level: str,
) -> None:  # fmt: skip
    """What a client with both may read is exactly what it may read with each of them."""
    token, certified = Grant(one, one_denied, one_level), Grant(other, other_denied, other_level)
    try:
        both = token.restrict(ClientCertificate(("cn:desk",), "ab", certified)).intersect((">",), "DEBUG")
    except ProtocolError:
        both = None
    for subject in LOGS:
        expected = _reads(token, subject) and _reads(certified, subject)
        assert (both is not None and both.matches(subject)) == expected, subject


def _reads(grant: Grant, subject: str) -> bool:
    try:
        return grant.intersect((">",), "DEBUG").matches(subject)
    except ProtocolError:
        return False


def test_the_stricter_limits_of_token_and_certificate_apply() -> None:
    """Of rates, connections and expiries, the lower applies; 0 is no limit, and None states nothing."""
    rates = [(None, None, None), (5, None, 5), (None, 5, 5), (5, 9, 5), (0, 9, 9), (9, 0, 9), (0, 0, 0)]
    for one, other, lower in [*rates, (0, None, 0)]:
        assert Grant(rate=one).restrict(certificate(rate=other)).rate == lower, (one, other)
    for one, other, lower in [(None, None, None), (5, None, 5), (None, 3, 3), (5, 3, 3)]:
        assert Grant(connections=one).restrict(certificate(connections=other)).connections == lower
        assert Grant(expires_at=one).restrict(certificate(expires_at=other)).expires_at == lower
    both = Grant(subject="alice", token_id="7").restrict(certificate())
    assert (both.subject, both.token_id, both.certificate) == ("alice", "7", certificate())


def test_a_token_and_a_certificate_without_a_common_subject_are_forbidden() -> None:
    """An empty intersection, or one that is too large, is forbidden."""
    with pytest.raises(ProtocolError, match="grant no subject in common") as caught:
        Grant(("log.>",)).restrict(certificate(subjects=("gateway.>",)))
    assert caught.value.code is ErrorCode.FORBIDDEN
    many = tuple(f"*.{number}.>" for number in range(20))
    with pytest.raises(ProtocolError, match="have 400 patterns in common"):
        Grant(tuple(f"a{number}.>" for number in range(20))).restrict(certificate(subjects=many))


def test_the_claim_may_have_another_name() -> None:
    """Only the configured claim is read, so that two claims cannot disagree."""
    other = {
        "exp": 100,
        "https://example.com/grant": {"subjects": ["log.>"]},
        "tickertape": {"subjects": [">"]},
    }
    assert grant_of(other, "alice", "https://example.com/grant").subjects == ("log.>",)
    with pytest.raises(ProtocolError, match="has no claim 'other'"):
        grant_of(other, "alice", "other")
