"""Verified tokens, their grants, and the reasons for rejecting others."""

import hmac
import json
import logging
import traceback
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import base64url_decode, der_to_raw_signature, raw_to_der_signature
from tickertape.contracts.close_codes import ErrorCode
from tickertape.relay.auth import verifier as tokens
from tickertape.relay.auth.claims import Reason
from tickertape.relay.auth.key_parsing import read_keys, select_keys
from tickertape.relay.auth.keys import FixedKeys, Keys, KeysError
from tickertape.relay.auth.settings import Algorithm
from tickertape.relay.auth.verifier import ExpectedClaims, TokenError, Verifier
from tickertape.relay.core.grants import Grant

from tests.support.clients.forge import (
    ALGORITHMS,
    NOW,
    SECRET,
    claims,
    encoded,
    jwk,
    keys,
    private_key,
    public_pem,
    sign,
    token,
)


class KeySource:
    """Key source whose keys can change and which counts refresh requests."""

    def __init__(self, found: Keys | None, *, refreshing: bool = False) -> None:
        self.keys = found
        self.refreshing = refreshing
        self.requests = 0

    def request_refresh(self, kid: str | None = None) -> bool:
        """Count the request and return whether newer keys are expected."""
        self.requests += 1
        return self.refreshing


class Clock:
    """Wall clock set by a test."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def make_verifier(algorithm: Algorithm = "HS256", source: Any = None, **options: Any) -> Verifier:
    """Return a verifier with a key of the algorithm and its clock at ``NOW``."""
    return Verifier(algorithm, source or FixedKeys(keys(algorithm)), **{"wall": Clock(), **options})


def assert_rejected(
    verifier: Verifier, jwt: str, reason: Reason, code: ErrorCode = ErrorCode.UNAUTHORIZED
) -> str:
    """Check that a token is rejected, counted and not revealed in any text, and return the message."""
    before = verifier.failures[reason]
    with pytest.raises(TokenError) as caught:
        verifier.verify(jwt)
    error = caught.value
    assert (error.reason, error.code) == (reason, code), error.message
    assert verifier.failures[reason] == before + 1
    output = "".join(traceback.format_exception(error)) + repr(verifier) + repr(error) + str(error)
    for secret in (SECRET.decode(), jwt, *jwt.split(".")):
        # A short text may occur in the output by chance.
        assert len(secret) <= 16 or secret not in output
    return error.message


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_valid_token_yields_its_grant(algorithm: Algorithm) -> None:
    """A valid token of each algorithm yields its grant, the second time from the cache."""
    verifier = make_verifier(algorithm)
    jwt = token(
        algorithm,
        claims(
            jti="7", tickertape={"subjects": ["log.>"], "deny": ["log.debug.>"], "level": "info", "rate": 5}
        ),
    )
    expected = Grant(("log.>",), ("log.debug.>",), "INFO", 5.0, None, "alice", "7", NOW + 3600)
    assert verifier.verify(jwt) == expected
    assert verifier.verify(jwt) is verifier.verify(jwt)
    assert not verifier.failures


def test_a_token_without_a_subject_gets_one() -> None:
    """A token without a subject gets a digest of its signed part, so that its connections can be counted."""
    jwt = token(values=claims(sub=None))
    assert make_verifier().verify(jwt).subject == tokens.anonymous_subject(jwt)
    assert tokens.anonymous_subject(jwt).startswith("token:")
    assert len(tokens.anonymous_subject(jwt)) == 22


def test_an_equivalent_signature_has_the_same_subject() -> None:
    """(r, s) of ES256 can be changed to (r, n - s), which is valid too and must have the same subject."""
    jwt = token("ES256", claims(sub=None))
    signed, _, signature = jwt.rpartition(".")
    r, s = decode_dss_signature(raw_to_der_signature(base64url_decode(signature), ec.SECP256R1()))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = f"{signed}.{encoded(r.to_bytes(32, 'big') + (order - s).to_bytes(32, 'big'))}"
    verifier = make_verifier("ES256")
    assert other != jwt
    assert verifier.verify(other).subject == verifier.verify(jwt).subject


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, ["HS256"], {"HS256": 1}, "hs256"]
)
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_alg_none_in_any_spelling_is_rejected(algorithm: Any, signature: str) -> None:
    """A token with ``alg`` none or an unknown algorithm is rejected before any key is used."""
    header = encoded(json.dumps({"alg": algorithm}).encode())
    payload = encoded(json.dumps(claims()).encode())
    assert_rejected(make_verifier(), f"{header}.{payload}.{signature}", "algorithm")


def test_a_missing_alg_is_rejected() -> None:
    """A token whose header has no algorithm is rejected."""
    assert_rejected(make_verifier(), sign("HS256", SECRET, json.dumps(claims()).encode(), b"{}"), "algorithm")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"])
def test_another_algorithm_is_rejected(algorithm: str) -> None:
    """A token with another algorithm in its header is rejected even if its signature is valid."""
    assert_rejected(make_verifier(), token("HS256", alg=algorithm), "algorithm")


def test_an_hs256_token_is_rejected_by_an_rs256_relay() -> None:
    """A token signed with the public key as an HMAC secret, which is a known attack, is rejected."""
    payload = json.dumps(claims()).encode()
    header = b'{"alg":"HS256"}'
    attack = _signed_with_hmac(public_pem("RS256"), payload, header)
    assert_rejected(make_verifier("RS256"), attack, "algorithm")
    assert_rejected(
        make_verifier("RS256"),
        _signed_with_hmac(public_pem("RS256"), payload, b'{"alg":"RS256"}'),
        "signature",
    )


def _signed_with_hmac(secret: bytes, payload: bytes, header: bytes) -> str:
    signed = f"{encoded(header)}.{encoded(payload)}"
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"


def test_a_public_key_is_not_an_hs256_secret() -> None:
    """A public key as a secret is an error, so no relay can be configured to allow that attack."""
    with pytest.raises(KeysError, match="not an HS256 secret"):
        read_keys("HS256", public_pem("RS256"), "x")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_invalid_signatures_are_rejected(algorithm: Algorithm) -> None:
    """A modified, truncated, extended, missing or zero signature, or another token's, is rejected."""
    verifier = make_verifier(algorithm)
    header, payload, signature = token(algorithm).split(".")
    raw = base64url_decode(signature)
    more = encoded(json.dumps(claims(tickertape={"subjects": [">"]})).encode())
    assert_rejected(verifier, f"{header}.{more}.{signature}", "signature")
    for bad in (raw[:-1], raw[:16], raw + b"\0", b"\0" * len(raw), bytes([raw[0] ^ 1]) + raw[1:], b""):
        assert_rejected(verifier, f"{header}.{payload}.{encoded(bad)}", "signature")
    assert_rejected(verifier, token(algorithm, name="other"), "signature")
    assert_rejected(
        verifier, f"{header}.{payload}.{token(algorithm, claims(sub='bob')).split('.')[2]}", "signature"
    )
    assert verifier.verify(f"{header}.{payload}.{signature}")


def test_psychic_signatures_are_rejected() -> None:
    """A signature with r or s equal to zero or n is rejected (CVE-2022-21449)."""
    header, payload, signature = token("ES256").split(".")
    raw = base64url_decode(signature)
    order = bytes.fromhex("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551")
    for bad in (b"\0" * 64, raw[:32] + b"\0" * 32, b"\0" * 32 + raw[32:], order + order, order + raw[32:]):
        assert_rejected(make_verifier("ES256"), f"{header}.{payload}.{encoded(bad)}", "signature")


def test_an_ecdsa_signature_as_der_is_rejected() -> None:
    """A signature encoded as DER is rejected, since JWS has r and s side by side."""
    header, payload, signature = token("ES256").split(".")
    der = raw_to_der_signature(base64url_decode(signature), ec.SECP256R1())
    assert der_to_raw_signature(der, ec.SECP256R1()) == base64url_decode(signature)
    assert_rejected(make_verifier("ES256"), f"{header}.{payload}.{encoded(der)}", "signature")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a..c",
        ".b.c",
        "a.b.c",
        "a.b.c.d",
        "a.b.c.d.e",
        "a..b.c",
        "{}.{}.{}",
        "a b.c.d",
        "a.b.c\n",
        "\na.b.c",
        "a.b.ü",
        "٣.b.c",
        "a.b.\ud800",
        "a.b.\0",
        "a=.b.c",
        "Bearer a.b.c",
        "A.A.A",
        "." * 16_384,
        "a" * 1_048_576,
        ("a" * 400_000 + ".") * 3,
    ],
)
def test_text_without_the_form_of_a_token_is_rejected(text: str) -> None:
    """Text that does not have the form of a token is rejected."""
    assert_rejected(make_verifier(), text, "malformed")


def test_sizes_are_bounded() -> None:
    """A token and its header have a maximum size."""
    verifier = make_verifier()
    at_limit = token(values=claims(more="x" * 11_900))
    assert 15_900 < len(at_limit) <= 16_384
    assert verifier.verify(at_limit)
    assert_rejected(verifier, token(values=claims(more="x" * 12_500)), "malformed")
    assert verifier.verify(token(more="x" * 1_900))
    assert "header" in assert_rejected(verifier, token(more="x" * 2_100), "malformed")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b'"HS256"',
        b"{",
        b'{"alg":"HS256"}x',
        b'{"alg":"HS256","alg":"HS256"}',
        b'{"alg":"none","alg":"HS256"}',
        b'{"alg":"HS256","\\u0061lg":"none"}',
        b'{"alg":"HS256","x":NaN}',
        b'{"alg":"HS256","x":"\xff"}',
        b'{"alg":"HS256","x":"\\ud800"}',
        b'{"alg":"HS256","x":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"alg":"HS256","x":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"alg":"HS256","crit":[]}',
        b'{"alg":"HS256","crit":["exp"],"exp":1}',
        b'{"alg":"HS256","crit":["b64"],"b64":true}',
        b'{"alg":"HS256","crit":["b64"],"b64":false}',
        b'{"alg":"HS256","b64":false}',
        b'{"alg":"HS256","b64":true}',
        b'{"alg":"HS256","kid":1}',
        b'{"alg":"HS256","kid":null}',
        b'{"alg":"HS256","kid":""}',
        b'{"alg":"HS256","kid":["a"]}',
        b'{"alg":"HS256","kid":"a\\nb"}',
    ],
)
def test_malformed_headers_are_rejected(header: bytes) -> None:
    """A malformed header is rejected even if the signature is valid."""
    assert_rejected(
        make_verifier(), sign("HS256", SECRET, json.dumps(claims()).encode(), header), "malformed"
    )


def test_keys_in_a_token_are_ignored() -> None:
    """Keys in ``jwk``, ``jku``, ``x5u`` and ``x5c`` of a token are ignored."""
    own: dict[str, Any] = {
        "jwk": jwk("ES256", "attacker"),
        "jku": "http://127.0.0.1:1/jwks",
        "x5u": "http://127.0.0.1:1/x5u",
        "x5c": ["AAAA"],
    }
    assert_rejected(make_verifier("ES256"), token("ES256", name="attacker", **own), "signature")
    assert make_verifier("ES256").verify(token("ES256", **own))


@pytest.mark.parametrize(
    "payload",
    [
        b"null",
        b"[]",
        b"{",
        b'{"exp":NaN}',
        b'{"exp":Infinity}',
        b'{"exp":1e400}',
        b'{"exp":9999999999,"exp":9999999999}',
        b'{"exp":9999999999,"\\u0065xp":9999999999}',
        b'{"sub":"\\ud800"}',
        b'{"a":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
        b'{"a":' + b"[" * 33 + b"]" * 33 + b"}",
        b"\xff",
    ],
)
def test_claims_that_are_not_strict_json_are_rejected(payload: bytes) -> None:
    """Claims that are not strict JSON are rejected, since two parsers could read them differently."""
    assert_rejected(make_verifier(), token(values=payload), "malformed")


@pytest.mark.parametrize(
    "values",
    [
        {"exp": None},
        {"exp": "1900000000"},
        {"exp": True},
        {"exp": [1_900_000_000]},
        {"exp": 10**30},
        {"exp": 1e300},
        {"exp": 253_402_300_800},
        {"exp": -1},
        {"exp": -1e300},
        {"nbf": "0"},
        {"nbf": False},
        {"nbf": 1e18},
        {"iat": {}},
        {"iat": "now"},
        {"sub": ""},
        {"sub": 5},
        {"sub": "a\nb"},
        {"sub": "x" * 257},
        {"jti": 5},
        {"jti": ""},
        {"jti": ["a"]},
        {"aud": 5},
        {"aud": ["relay", 5]},
        {"aud": {}},
        {"tickertape": 5},
        {"tickertape": ["log.>"]},
        {"tickertape": {"subjects": "log.>"}},
        {"tickertape": {"subjects": [5]}},
        {"tickertape": {"subjects": ["log.>.a"]}},
        {"tickertape": {"subjects": [""]}},
        {"tickertape": {"subjects": ["log.>"] * 65}},
        {"tickertape": {"subjects": ["log.>"], "deny": "log.debug.>"}},
        {"tickertape": {"subjects": ["log.>"], "deny": ["a*"]}},
        {"tickertape": {"subjects": ["log.>"], "denied": ["log.debug.>"]}},
        {"tickertape": {"subjects": ["log.>"], "level": "LOUD"}},
        {"tickertape": {"subjects": ["log.>"], "level": 2}},
        {"tickertape": {"subjects": ["log.>"], "rate": "5"}},
        {"tickertape": {"subjects": ["log.>"], "rate": -1}},
        {"tickertape": {"subjects": ["log.>"], "rate": True}},
        {"tickertape": {"subjects": ["log.>"], "rate": 1e9}},
        {"tickertape": {"subjects": ["log.>"], "connections": 0}},
        {"tickertape": {"subjects": ["log.>"], "connections": 1.5}},
        {"tickertape": {"subjects": ["log.>"], "connections": True}},
    ],
)
def test_malformed_claims_are_rejected(values: dict[str, Any]) -> None:
    """A malformed claim is rejected instead of being ignored, and the message names it."""
    message = assert_rejected(make_verifier(), token(values=claims(**values)), "claim")
    assert next(iter(values)) in message


@pytest.mark.parametrize("values", [None, {"subjects": []}, {}])
def test_a_token_without_grants_is_forbidden(values: Any) -> None:
    """A token without grants is forbidden, since a new token of the same kind would not help."""
    assert_rejected(
        make_verifier(), token(values=claims(tickertape=values)), "empty_grant", ErrorCode.FORBIDDEN
    )


def test_a_token_expires_without_leeway() -> None:
    """A token expires at its ``exp`` without leeway, even if it is cached."""
    clock = Clock()
    verifier = make_verifier(wall=clock)
    jwt = token(values=claims(exp=NOW + 10))
    for clock.now in (NOW, NOW + 9.999):
        assert verifier.verify(jwt)
    for clock.now in (NOW + 10, NOW + 11, NOW + 1e6):
        assert "2027-01-15T08:00:10.000Z" in assert_rejected(verifier, jwt, "expired")
    assert "0 cached tokens" in repr(verifier)
    assert_rejected(verifier, token(values=claims(exp=0)), "expired")


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_from_the_future_is_rejected(name: str) -> None:
    """A token from the future is rejected, except for a small difference of clocks."""
    clock = Clock()
    verifier = make_verifier(wall=clock, expected=ExpectedClaims(leeway=5))
    assert verifier.verify(token(values=claims(**{name: NOW + 5})))
    jwt = token(values=claims(**{name: NOW + 5.5}))
    assert name in assert_rejected(verifier, jwt, "not_yet_valid")
    clock.now += 1
    assert verifier.verify(jwt)


def test_the_issuer_must_match() -> None:
    """The issuer must match if one is set; otherwise any issuer is accepted."""
    strict = make_verifier(expected=ExpectedClaims(issuer="https://issuer"))
    assert strict.verify(token(values=claims(iss="https://issuer")))
    for other in (None, "https://issuer/", "", 5, ["https://issuer"]):
        assert "TICKERTAPE_JWT_ISSUER" in assert_rejected(strict, token(values=claims(iss=other)), "issuer")
    assert make_verifier().verify(token(values=claims(iss="anybody")))


def test_the_audience_must_include_the_expected_one() -> None:
    """The audience must contain the expected one if it is set."""
    strict = make_verifier(expected=ExpectedClaims(audience="relay"))
    for good in ("relay", ["relay"], ["other", "relay"]):
        assert strict.verify(token(values=claims(aud=good)))
    for bad in (None, "other", "relay2", "rel", [], ["other"]):
        assert "TICKERTAPE_JWT_AUDIENCE" in assert_rejected(strict, token(values=claims(aud=bad)), "audience")


@pytest.mark.parametrize("audience", ["relay", ["relay"], [], ""])
def test_a_token_with_an_audience_needs_the_setting(audience: Any) -> None:
    """A token with an audience is rejected if none is set; the message names the setting to change."""
    message = assert_rejected(make_verifier(), token(values=claims(aud=audience)), "audience")
    assert "set TICKERTAPE_JWT_AUDIENCE" in message


def test_an_unknown_key_is_rejected() -> None:
    """An unknown key is a temporary error while newer keys are being fetched, else the token is rejected."""
    source = KeySource(select_keys("EdDSA", {"keys": [jwk("EdDSA", kid="a")]}, "x"), refreshing=True)
    verifier = make_verifier("EdDSA", source)
    assert verifier.verify(token("EdDSA", kid="a"))
    assert source.requests == 0
    assert_rejected(verifier, token("EdDSA", kid="b"), "unknown_key", ErrorCode.UNAVAILABLE)
    source.refreshing = False
    assert_rejected(verifier, token("EdDSA", kid="b"), "unknown_key")
    assert source.requests == 2
    source.keys = select_keys("EdDSA", {"keys": [jwk("EdDSA", kid="b")]}, "x")
    assert verifier.verify(token("EdDSA", kid="b"))
    assert_rejected(verifier, token("EdDSA", kid="a"), "unknown_key")


def test_the_kid_selects_the_key() -> None:
    """The ``kid`` selects the key, and a token without one is tried with each."""
    two = {"keys": [jwk("ES256", "one", kid="1"), jwk("ES256", "two", kid="2")]}
    verifier = make_verifier("ES256", FixedKeys(select_keys("ES256", two, "x")))
    assert verifier.verify(token("ES256", name="two", kid="2"))
    assert verifier.verify(token("ES256", name="two"))
    assert_rejected(verifier, token("ES256", name="two", kid="1"), "signature")


def test_missing_keys_are_a_temporary_error() -> None:
    """Missing keys are a temporary error, so the client may retry with the same token."""
    source = KeySource(None)
    verifier = make_verifier("RS256", source)
    assert_rejected(verifier, token("RS256"), "keys_unavailable", ErrorCode.UNAVAILABLE)
    assert source.requests == 1
    source.keys = keys("RS256")
    assert verifier.verify(token("RS256"))


def test_a_change_of_keys_clears_the_cache() -> None:
    """New keys clear the cache, so tokens of a withdrawn key are rejected."""
    source = KeySource(keys("ES256"))
    verifier = make_verifier("ES256", source)
    jwt = token("ES256")
    assert verifier.verify(jwt)
    source.keys = keys("ES256", "other")
    assert_rejected(verifier, jwt, "signature")


def test_revocation_applies_to_cached_tokens() -> None:
    """A revoked token is rejected even if it is cached, until its revocation is lifted."""
    revoked: set[str] = set()
    verifier = make_verifier(revoked=lambda grant: grant.token_id in revoked)
    jwt = token(values=claims(jti="7"))
    assert verifier.verify(jwt)
    revoked.add("7")
    for _ in range(2):
        assert_rejected(verifier, jwt, "revoked")
    assert verifier.verify(token(values=claims(jti="8")))
    revoked.clear()
    assert verifier.verify(jwt)


def test_invalid_tokens_do_not_evict_valid_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds only valid tokens and evicts the least recently used one."""
    monkeypatch.setattr(tokens, "CACHE_SIZE", 3)
    verifier = make_verifier()
    good = [token(values=claims(sub=str(number))) for number in range(4)]
    first = verifier.verify(good[0])
    for number in range(10):
        with pytest.raises(TokenError):
            verifier.verify(f"{good[0]}{'A' * (number + 1)}")
    assert verifier.verify(good[0]) is first
    second = verifier.verify(good[1])
    verifier.verify(good[2])
    assert verifier.verify(good[0]) is first
    verifier.verify(good[3])
    assert verifier.verify(good[0]) is first
    assert verifier.verify(good[1]) is not second
    assert "3 cached tokens" in repr(verifier)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
names = st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub", "jti", "tickertape", "kid", "crit", "x"])
grants = st.dictionaries(
    st.sampled_from(["subjects", "deny", "level", "rate", "connections", "x"]), json_values
)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"))
def test_any_text_is_rejected(text: str) -> None:
    """Any text raises `TokenError`, so untrusted input cannot break the relay."""
    with pytest.raises(TokenError):
        make_verifier().verify(text)


@given(
    st.dictionaries(names, json_values),
    st.dictionaries(names, json_values | grants),
    st.none() | st.binary(),
)
def test_any_signed_token_is_accepted_or_rejected(
    header: dict[str, Any], values: dict[str, Any], payload: bytes | None
) -> None:
    """Any signed token yields a grant or raises `TokenError`, whatever types its claims have."""
    given_claims = json.dumps(claims() | values).encode() if payload is None else payload
    signed_token = sign("HS256", SECRET, given_claims, json.dumps({**header, "alg": "HS256"}).encode())
    try:
        grant = make_verifier().verify(signed_token)
    except TokenError as error:
        error.message.encode()
    else:
        assert grant.subjects


def test_tokens_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Tokens are not logged, so clients cannot flood the log."""
    caplog.set_level(logging.DEBUG)
    verifier = make_verifier()
    verifier.verify(token())
    for bad in ("x", token(alg="none"), token(values=claims(exp=1))):
        with pytest.raises(TokenError):
            verifier.verify(bad)
    assert not caplog.records


def test_keys_are_not_shown() -> None:
    """The text forms of objects that hold a key do not contain it."""
    held = keys("HS256")
    for thing in (held, held.keys[0], FixedKeys(held), make_verifier(), private_key):
        assert SECRET.decode() not in f"{thing} {thing!r}"
