"""Which tokens let a client in, and why the others do not."""

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


class Source:
    """Keys that change, and are asked for."""

    def __init__(self, found: Keys | None, *, coming: bool = False) -> None:
        self.keys = found
        self.coming = coming
        self.asked = 0

    def request_refresh(self) -> bool:
        """Count, and answer as told."""
        self.asked += 1
        return self.coming


class Clock:
    """The wall clock of a test."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def verifier(algorithm: Algorithm = "HS256", source: Any = None, **options: Any) -> Verifier:
    """One with a key of the algorithm, at ``NOW``."""
    return Verifier(algorithm, source or FixedKeys(keys(algorithm)), **{"wall": Clock(), **options})


def refused(which: Verifier, given: str, reason: Reason, code: ErrorCode = ErrorCode.UNAUTHORIZED) -> str:
    """Assert that a token is refused and counted, and that nothing tells of it; return the words."""
    before = which.failures[reason]
    with pytest.raises(TokenError) as caught:
        which.verify(given)
    error = caught.value
    assert (error.reason, error.code) == (reason, code), error.message
    assert which.failures[reason] == before + 1
    words = "".join(traceback.format_exception(error)) + repr(which) + repr(error) + str(error)
    for secret in (SECRET.decode(), given, *given.split(".")):
        # A short text may stand in the words by chance.
        assert len(secret) <= 16 or secret not in words
    return error.message


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_grants_what_it_says(algorithm: Algorithm) -> None:
    """With each algorithm, the second time from memory."""
    which = verifier(algorithm)
    given = token(
        algorithm,
        claims(
            jti="7", tickertape={"subjects": ["log.>"], "deny": ["log.debug.>"], "level": "info", "rate": 5}
        ),
    )
    expected = Grant(("log.>",), ("log.debug.>",), "INFO", 5.0, None, "alice", "7", NOW + 3600)
    assert which.verify(given) == expected
    assert which.verify(given) is which.verify(given)
    assert not which.failures


def test_a_token_without_a_subject_gets_one() -> None:
    """A digest of what was signed, so that its connections can be counted."""
    given = token(values=claims(sub=None))
    assert verifier().verify(given).subject == tokens.anonymous_subject(given)
    assert tokens.anonymous_subject(given).startswith("token:")
    assert len(tokens.anonymous_subject(given)) == 22


def test_a_signature_written_in_another_way_is_the_same_client() -> None:
    """Anybody can turn (r, s) of ES256 into (r, n - s), which is as good."""
    given = token("ES256", claims(sub=None))
    signed, _, signature = given.rpartition(".")
    r, s = decode_dss_signature(raw_to_der_signature(base64url_decode(signature), ec.SECP256R1()))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = f"{signed}.{encoded(r.to_bytes(32, 'big') + (order - s).to_bytes(32, 'big'))}"
    which = verifier("ES256")
    assert other != given
    assert which.verify(other).subject == which.verify(given).subject


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, ["HS256"], {"HS256": 1}, "hs256"]
)
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_alg_none_in_any_spelling(algorithm: Any, signature: str) -> None:
    """Before any key is touched."""
    header = encoded(json.dumps({"alg": algorithm}).encode())
    payload = encoded(json.dumps(claims()).encode())
    refused(verifier(), f"{header}.{payload}.{signature}", "algorithm")


def test_no_alg_at_all() -> None:
    """A header without it names nothing."""
    refused(verifier(), sign("HS256", SECRET, json.dumps(claims()).encode(), b"{}"), "algorithm")


@pytest.mark.parametrize("given", ["HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"])
def test_another_algorithm_than_the_configured(given: str) -> None:
    """Even with a signature that would be good."""
    refused(verifier(), token("HS256", alg=given), "algorithm")


def test_an_hs256_token_at_an_rs256_relay() -> None:
    """Signed with the public key as the secret, as in the classic attack."""
    payload = json.dumps(claims()).encode()
    header = b'{"alg":"HS256"}'
    attack = _signed_with_hmac(public_pem("RS256"), payload, header)
    refused(verifier("RS256"), attack, "algorithm")
    refused(
        verifier("RS256"), _signed_with_hmac(public_pem("RS256"), payload, b'{"alg":"RS256"}'), "signature"
    )


def _signed_with_hmac(secret: bytes, payload: bytes, header: bytes) -> str:
    signed = f"{encoded(header)}.{encoded(payload)}"
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"


def test_a_public_key_is_no_hs256_secret() -> None:
    """So no relay can be set up for the attack."""
    with pytest.raises(KeysError, match="not an HS256 secret"):
        read_keys("HS256", public_pem("RS256"), "x")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_signatures_that_are_not_good(algorithm: Algorithm) -> None:
    """Tampered, truncated, lengthened, missing, all zero, of another key, of another token."""
    which = verifier(algorithm)
    header, payload, signature = token(algorithm).split(".")
    raw = base64url_decode(signature)
    more = encoded(json.dumps(claims(tickertape={"subjects": [">"]})).encode())
    refused(which, f"{header}.{more}.{signature}", "signature")
    for bad in (raw[:-1], raw[:16], raw + b"\0", b"\0" * len(raw), bytes([raw[0] ^ 1]) + raw[1:], b""):
        refused(which, f"{header}.{payload}.{encoded(bad)}", "signature")
    refused(which, token(algorithm, name="other"), "signature")
    refused(which, f"{header}.{payload}.{token(algorithm, claims(sub='bob')).split('.')[2]}", "signature")
    assert which.verify(f"{header}.{payload}.{signature}")


def test_the_psychic_signature() -> None:
    """r = s = 0, which some libraries took for good (CVE-2022-21449), also with r or s alone zero, or n."""
    header, payload, signature = token("ES256").split(".")
    raw = base64url_decode(signature)
    order = bytes.fromhex("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551")
    for bad in (b"\0" * 64, raw[:32] + b"\0" * 32, b"\0" * 32 + raw[32:], order + order, order + raw[32:]):
        refused(verifier("ES256"), f"{header}.{payload}.{encoded(bad)}", "signature")


def test_an_ecdsa_signature_as_der() -> None:
    """JWS has r and s side by side, nothing else."""
    header, payload, signature = token("ES256").split(".")
    der = raw_to_der_signature(base64url_decode(signature), ec.SECP256R1())
    assert der_to_raw_signature(der, ec.SECP256R1()) == base64url_decode(signature)
    refused(verifier("ES256"), f"{header}.{payload}.{encoded(der)}", "signature")


@pytest.mark.parametrize(
    "given",
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
def test_what_is_no_token(given: str) -> None:
    """Refused by its shape."""
    refused(verifier(), given, "malformed")


def test_sizes_are_bounded() -> None:
    """Of the whole, and of the header."""
    which = verifier()
    at_limit = token(values=claims(more="x" * 11_900))
    assert 15_900 < len(at_limit) <= 16_384
    assert which.verify(at_limit)
    refused(which, token(values=claims(more="x" * 12_500)), "malformed")
    assert which.verify(token(more="x" * 1_900))
    assert "header" in refused(which, token(more="x" * 2_100), "malformed")


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
def test_headers_that_are_refused(header: bytes) -> None:
    """Though the signature is good."""
    refused(verifier(), sign("HS256", SECRET, json.dumps(claims()).encode(), header), "malformed")


def test_a_key_that_a_token_brings_along_is_not_used() -> None:
    """``jwk``, ``jku``, ``x5u`` and ``x5c`` are not even read."""
    own: dict[str, Any] = {
        "jwk": jwk("ES256", "attacker"),
        "jku": "http://127.0.0.1:1/jwks",
        "x5u": "http://127.0.0.1:1/x5u",
        "x5c": ["AAAA"],
    }
    refused(verifier("ES256"), token("ES256", name="attacker", **own), "signature")
    assert verifier("ES256").verify(token("ES256", **own))


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
def test_claims_that_are_no_strict_json(payload: bytes) -> None:
    """Two readers must not find two meanings."""
    refused(verifier(), token(values=payload), "malformed")


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
def test_claims_that_are_malformed(values: dict[str, Any]) -> None:
    """Each is refused, never passed over; and the words name it."""
    words = refused(verifier(), token(values=claims(**values)), "claim")
    assert next(iter(values)) in words


@pytest.mark.parametrize("values", [None, {"subjects": []}, {}])
def test_nothing_granted(values: Any) -> None:
    """No claim, or an empty one: forbidden, so a new token of the same kind would not help."""
    refused(verifier(), token(values=claims(tickertape=values)), "nothing_granted", ErrorCode.FORBIDDEN)


def test_a_token_ends_when_it_says() -> None:
    """To the second, without leeway; from memory, too."""
    clock = Clock()
    which = verifier(wall=clock)
    given = token(values=claims(exp=NOW + 10))
    for clock.now in (NOW, NOW + 9.999):
        assert which.verify(given)
    for clock.now in (NOW + 10, NOW + 11, NOW + 1e6):
        assert "2027-01-15T08:00:10.000Z" in refused(which, given, "expired")
    assert "0 cached tokens" in repr(which)
    refused(which, token(values=claims(exp=0)), "expired")


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_of_the_future(name: str) -> None:
    """Clocks may differ a little."""
    clock = Clock()
    which = verifier(wall=clock, expected=ExpectedClaims(leeway=5))
    assert which.verify(token(values=claims(**{name: NOW + 5})))
    given = token(values=claims(**{name: NOW + 5.5}))
    assert name in refused(which, given, "early")
    clock.now += 1
    assert which.verify(given)


def test_the_issuer_must_be_the_one() -> None:
    """When one is set; else any."""
    strict = verifier(expected=ExpectedClaims(issuer="https://issuer"))
    assert strict.verify(token(values=claims(iss="https://issuer")))
    for other in (None, "https://issuer/", "", 5, ["https://issuer"]):
        assert "TICKERTAPE_JWT_ISSUER" in refused(strict, token(values=claims(iss=other)), "issuer")
    assert verifier().verify(token(values=claims(iss="anybody")))


def test_the_audience_must_be_among_its_own() -> None:
    """When one is set."""
    strict = verifier(expected=ExpectedClaims(audience="relay"))
    for good in ("relay", ["relay"], ["other", "relay"]):
        assert strict.verify(token(values=claims(aud=good)))
    for bad in (None, "other", "relay2", "rel", [], ["other"]):
        assert "TICKERTAPE_JWT_AUDIENCE" in refused(strict, token(values=claims(aud=bad)), "audience")


@pytest.mark.parametrize("audience", ["relay", ["relay"], [], ""])
def test_a_token_for_somebody_is_not_for_a_relay_without_a_name(audience: Any) -> None:
    """The words say which setting would take it."""
    words = refused(verifier(), token(values=claims(aud=audience)), "audience")
    assert "set TICKERTAPE_JWT_AUDIENCE" in words


def test_an_unknown_key() -> None:
    """Come back in a second while newer keys are on their way, else get another token."""
    source = Source(select_keys("EdDSA", {"keys": [jwk("EdDSA", kid="a")]}, "x"), coming=True)
    which = verifier("EdDSA", source)
    assert which.verify(token("EdDSA", kid="a"))
    assert source.asked == 0
    refused(which, token("EdDSA", kid="b"), "unknown_key", ErrorCode.UNAVAILABLE)
    source.coming = False
    refused(which, token("EdDSA", kid="b"), "unknown_key")
    assert source.asked == 2
    source.keys = select_keys("EdDSA", {"keys": [jwk("EdDSA", kid="b")]}, "x")
    assert which.verify(token("EdDSA", kid="b"))
    refused(which, token("EdDSA", kid="a"), "unknown_key")


def test_a_kid_picks_the_key() -> None:
    """And a token without one is tried with each."""
    two = {"keys": [jwk("ES256", "one", kid="1"), jwk("ES256", "two", kid="2")]}
    which = verifier("ES256", FixedKeys(select_keys("ES256", two, "x")))
    assert which.verify(token("ES256", name="two", kid="2"))
    assert which.verify(token("ES256", name="two"))
    refused(which, token("ES256", name="two", kid="1"), "signature")


def test_keys_that_are_not_there_yet() -> None:
    """The client comes back with the same token."""
    source = Source(None)
    which = verifier("RS256", source)
    refused(which, token("RS256"), "keys_unavailable", ErrorCode.UNAVAILABLE)
    assert source.asked == 1
    source.keys = keys("RS256")
    assert which.verify(token("RS256"))


def test_a_change_of_keys_forgets_all_tokens() -> None:
    """Those of a key that was withdrawn do not live on in memory."""
    source = Source(keys("ES256"))
    which = verifier("ES256", source)
    given = token("ES256")
    assert which.verify(given)
    source.keys = keys("ES256", "other")
    refused(which, given, "signature")


def test_revocation_counts_for_remembered_tokens_too() -> None:
    """From the moment that the list says so, until it says so no more."""
    revoked: set[str] = set()
    which = verifier(revoked=lambda grant: grant.token_id in revoked)
    given = token(values=claims(jti="7"))
    assert which.verify(given)
    revoked.add("7")
    for _ in range(2):
        refused(which, given, "revoked")
    assert which.verify(token(values=claims(jti="8")))
    revoked.clear()
    assert which.verify(given)


def test_garbage_pushes_no_good_token_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only good ones are remembered; of those the ones that were used last."""
    monkeypatch.setattr(tokens, "CACHE_SIZE", 3)
    which = verifier()
    good = [token(values=claims(sub=str(number))) for number in range(4)]
    first = which.verify(good[0])
    for number in range(10):
        with pytest.raises(TokenError):
            which.verify(f"{good[0]}{'A' * (number + 1)}")
    assert which.verify(good[0]) is first
    second = which.verify(good[1])
    which.verify(good[2])
    assert which.verify(good[0]) is first
    which.verify(good[3])
    assert which.verify(good[0]) is first
    assert which.verify(good[1]) is not second
    assert "3 cached tokens" in repr(which)


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
def test_any_text_is_refused_in_words(text: str) -> None:
    """Nothing that a stranger sends breaks the relay."""
    with pytest.raises(TokenError):
        verifier().verify(text)


@given(
    st.dictionaries(names, json_values),
    st.dictionaries(names, json_values | grants),
    st.none() | st.binary(),
)
def test_any_signed_token_is_taken_or_refused_in_words(
    header: dict[str, Any], values: dict[str, Any], payload: bytes | None
) -> None:
    """Whatever stands in it, of whatever type."""
    given_claims = json.dumps(claims() | values).encode() if payload is None else payload
    made = sign("HS256", SECRET, given_claims, json.dumps({**header, "alg": "HS256"}).encode())
    try:
        grant = verifier().verify(made)
    except TokenError as error:
        error.message.encode()
    else:
        assert grant.subjects


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What strangers send must not fill the log."""
    caplog.set_level(logging.DEBUG)
    which = verifier()
    which.verify(token())
    for bad in ("x", token(alg="none"), token(values=claims(exp=1))):
        with pytest.raises(TokenError):
            which.verify(bad)
    assert not caplog.records


def test_no_key_shows() -> None:
    """In the text of anything that holds one."""
    held = keys("HS256")
    for thing in (held, held.keys[0], FixedKeys(held), verifier(), private_key):
        assert SECRET.decode() not in f"{thing} {thing!r}"
