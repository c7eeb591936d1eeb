"""Keys for verifying tokens: the accepted forms and the rejected keys."""

import base64
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from pydantic import SecretStr
from tickertape.relay.auth.key_parsing import (
    MAX_KEYS,
    read_configured_keys,
    read_key_set,
    read_keys,
    select_keys,
)
from tickertape.relay.auth.keys import FixedKeys, KeysError, check_public_key
from tickertape.relay.auth.settings import Algorithm, TokenSettings

from tests.support.clients.forge import SECRET, jwk, private_key, private_pem, public_pem

PUBLIC: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")


def public_der(key: Any) -> Any:
    """Return the encoding of a public key, for comparisons."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def own_public_der(algorithm: Algorithm, name: str = "") -> Any:
    """Return the encoding of the public half of a test key."""
    return public_der(private_key(algorithm, name).public_key())


def pem(key: Any) -> bytes:
    """Return a public key as PEM."""
    return bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def certificate(algorithm: Algorithm, encoding: Encoding = Encoding.PEM) -> bytes:
    """Return an expired certificate of a test key."""
    key = private_key(algorithm)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    signed_certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(2020, 1, 2))
        .sign(key, None if algorithm == "EdDSA" else hashes.SHA256())
    )
    return signed_certificate.public_bytes(encoding)


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_every_form_of_a_public_key_is_read(algorithm: Algorithm) -> None:
    """A public key is read from PEM, a certificate, a JWK or a JWKS."""
    forms = (
        public_pem(algorithm),
        b"# a comment\n" + public_pem(algorithm) + b"\n",
        certificate(algorithm),
        certificate(algorithm) + certificate(algorithm),
        json.dumps(jwk(algorithm)).encode(),
        json.dumps({"keys": [jwk(algorithm)]}).encode(),
    )
    for form in forms:
        (found,) = read_keys(algorithm, form, "x").keys
        assert not isinstance(found.material, bytes)
        assert public_der(found.material) == own_public_der(algorithm)
        assert found.kid is None


def test_a_file_may_hold_several_public_keys() -> None:
    """A PEM file may hold several public keys, which allows key rotation without a JWKS."""
    found = read_keys("EdDSA", public_pem("EdDSA") + public_pem("EdDSA", "next"), "x")
    assert [public_der(key.material) for key in found.keys] == [
        own_public_der("EdDSA"),
        own_public_der("EdDSA", "next"),
    ]
    with pytest.raises(KeysError, match=f"keep at most {MAX_KEYS}"):
        read_keys("EdDSA", public_pem("EdDSA") * (MAX_KEYS + 1), "x")


def test_a_secret_is_used_unchanged() -> None:
    """Any bytes are used unchanged as an HS256 secret if they are long enough."""
    for secret in (SECRET, bytes(range(32)), b"{" * 32, b'{"no": "key at all, only some JSON"}', b" " * 32):
        assert read_keys("HS256", secret, "x").keys[0].material == secret


@pytest.mark.parametrize(
    "secret",
    [
        public_pem("RS256"),
        public_pem("RS256").strip(),
        b"\n \n" + public_pem("ES256"),
        private_pem(private_key("RS256")),
        certificate("RS256"),
        certificate("RS256", Encoding.DER),
        base64.b64decode(b"".join(public_pem("RS256").splitlines()[1:-1])),
        b"\n".join(public_pem("RS256").splitlines()[1:-1]),
        json.dumps(jwk("RS256")).encode(),
        json.dumps({"keys": [jwk("EdDSA")]}).encode(),
        json.dumps({"kty": "oct", "k": base64.urlsafe_b64encode(SECRET).decode()}).encode(),
        b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ me@host",
        b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY me@host",
    ],
    ids=lambda value: "key",
)
def test_a_key_is_not_accepted_as_a_secret(secret: bytes) -> None:
    """A key is not accepted as an HS256 secret, since attackers know public keys and could sign with them."""
    with pytest.raises(KeysError, match="not an HS256 secret"):
        read_keys("HS256", secret, "x")


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_short_secret_is_rejected(length: int) -> None:
    """A short secret is an error that states the required length and how to create a secret."""
    with pytest.raises(KeysError, match=rf"has {length} bytes?; use at least 32; 'tickertape token keygen"):
        read_keys("HS256", b"s" * length, "x")


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_a_private_key_is_rejected(algorithm: Algorithm) -> None:
    """A private key is rejected in every form, since verifying does not need one."""
    key = private_key(algorithm)
    private_jwk = {**jwk(algorithm), "d": "c2VjcmV0"}
    forms = (
        private_pem(key),
        public_pem(algorithm) + private_pem(key),
        json.dumps(private_jwk).encode(),
        json.dumps({"keys": [private_jwk]}).encode(),
        json.dumps({"keys": [jwk(algorithm), {**private_jwk, "key_ops": ["sign"]}]}).encode(),
    )
    for form in forms:
        with pytest.raises(KeysError, match="only the token issuer needs the private key") as caught:
            read_keys(algorithm, form, "x")
        assert "c2VjcmV0" not in str(caught.value)
        assert form.splitlines()[-2 if b"-----" in form else 0].decode() not in str(caught.value)


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_a_private_key_object_is_rejected(algorithm: Algorithm) -> None:
    """A private key object is rejected, however it was loaded."""
    with pytest.raises(KeysError, match="contains a private key"):
        check_public_key(algorithm, private_key(algorithm), "x")


DUPLICATE = (
    json.dumps(jwk("ES256", use="enc"))
    .encode()
    .replace(b"{", b'{"use": "sig", ', 1)
    .replace(b'"use": "enc"', b'"x-use": "enc", "use": "sig"')
)
"""A key with two fields of the same name, of which parsers use different ones."""


@pytest.mark.parametrize(
    ("algorithm", "data", "text"),
    [
        ("RS256", pem(rsa.generate_private_key(65537, 1024).public_key()), "1024 bits"),
        ("RS256", public_pem("ES256"), "RS256 requires an RSA key"),
        ("RS256", public_pem("EdDSA"), "RS256 requires an RSA key"),
        (
            "ES256",
            pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
            "secp384r1; ES256 requires",
        ),
        (
            "ES256",
            pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
            "secp256k1; ES256 requires",
        ),
        ("ES256", public_pem("RS256"), "ES256 requires a P-256 key"),
        ("EdDSA", pem(ed448.Ed448PrivateKey.generate().public_key()), "EdDSA requires an Ed25519 key"),
        ("EdDSA", public_pem("ES256"), "EdDSA requires an Ed25519 key"),
        ("EdDSA", certificate("RS256"), "EdDSA requires an Ed25519 key"),
        ("EdDSA", json.dumps(jwk("ES256")).encode(), "not a JWK for EdDSA; set a JWK of kty OKP"),
        ("ES256", json.dumps(jwk("ES256", use="enc")).encode(), "not for ES256"),
        ("ES256", json.dumps(jwk("ES256", crv="P-384")).encode(), "not for ES256"),
        ("ES256", json.dumps(jwk("ES256", y=None)).encode(), "cannot parse"),
        ("ES256", json.dumps(jwk("ES256", kid=5)).encode(), "an invalid kid"),
        ("RS256", json.dumps(jwk("RS256", n="!")).encode(), "cannot parse"),
        ("RS256", json.dumps(jwk("RS256", n=5)).encode(), "cannot parse"),
        ("RS256", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "cannot parse"),
        ("RS256", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "cannot parse"),
        ("RS256", SECRET, "contains no key for RS256"),
        ("RS256", b"", "contains no key for RS256"),
        ("RS256", b"[]", "contains no key for RS256"),
        ("RS256", b"{}", "not a JWK for RS256"),
        ("RS256", b'{"keys": {}}', "no list 'keys'"),
        ("ES256", DUPLICATE, "contains no key for ES256"),
        ("ES256", b'{"keys": [%s]}' % DUPLICATE, "contains no key for ES256"),
        ("ES256", b'{"\\u0061": %s}' % (b"[" * 1_020 + b"]" * 1_020), "contains no key for ES256"),
        ("RS256", b'{"keys": []}', "no key for RS256"),
    ],
    # Keys differ in each process, but the test ids have to be the same in all of them.
    ids=lambda value: value if isinstance(value, str) else "key",
)
def test_an_unsuitable_key_is_rejected(algorithm: Algorithm, data: bytes, text: str) -> None:
    """An unsuitable key is an error that names its source and the expected kind, without key material."""
    with pytest.raises(KeysError, match=text) as caught:
        read_keys(algorithm, data, "/etc/relay/key")
    assert "/etc/relay/key" in str(caught.value)
    assert not data or data.decode() not in str(caught.value)


def test_other_keys_in_a_key_set_are_skipped() -> None:
    """Keys of other kinds, uses and curves are skipped silently, and a secret in a key set is never used."""
    entries = [
        jwk("RS256", kid="rsa"),
        jwk("EdDSA", kid="okp"),
        jwk("ES256", kid="enc", use="enc"),
        jwk("ES256", kid="alg", alg="ES384"),
        jwk("ES256", kid="ops", key_ops=["sign"]),
        jwk("ES256", kid="odd", key_ops="verify"),
        jwk("ES256", kid="curve", crv="P-384"),
        {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(SECRET).decode(), "alg": "ES256"},
        {"kty": 5},
        {},
        "text",
        None,
        jwk("ES256", kid="good", use="sig", alg="ES256", key_ops=["verify", "x"]),
    ]
    found = select_keys("ES256", {"keys": entries}, "x")
    assert [key.kid for key in found.keys] == ["good"]
    assert found.skipped == ()
    assert select_keys("EdDSA", {"keys": [jwk("EdDSA", alg="Ed25519")]}, "x").keys


def test_a_broken_entry_does_not_disable_other_keys() -> None:
    """A broken entry is reported and does not disable other keys; as the only one, it is an error."""
    weak = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
    found = select_keys("RS256", {"keys": [{**weak, "kid": "weak"}, jwk("RS256", kid="good")]}, "x")
    assert [key.kid for key in found.keys] == ["good"]
    assert found.skipped == ("the RSA key in x, kid 'weak' has 1024 bits; use 2048 to 8192 bits",)
    with pytest.raises(KeysError, match="1024 bits; set a JWKS with a valid public key for RS256"):
        select_keys("RS256", {"keys": [weak]}, "x")


def test_a_key_set_has_a_maximum_size() -> None:
    """A key set has a maximum size, since a token without ``kid`` is tried with each of its keys."""
    with pytest.raises(KeysError, match=f"33 keys for EdDSA; keep at most {MAX_KEYS}"):
        select_keys("EdDSA", {"keys": [jwk("EdDSA", kid=str(number)) for number in range(33)]}, "x")
    with pytest.raises(KeysError, match="not a JSON object"):
        read_key_set("EdDSA", b"<html>", "x")


def test_a_secret_with_a_duplicate_key_is_still_a_key() -> None:
    """A JWK with a duplicate key is no secret either."""
    with pytest.raises(KeysError, match="not an HS256 secret"):
        read_keys("HS256", DUPLICATE, "x")


def test_keys_are_found_by_id() -> None:
    """A key without an id matches every token, and a token without a ``kid`` matches every key."""
    found = select_keys("EdDSA", {"keys": [jwk("EdDSA", kid="a"), jwk("EdDSA", kid="a"), jwk("EdDSA")]}, "x")
    assert [key.kid for key in found.find("a")] == ["a", "a", None]
    assert [key.kid for key in found.find("b")] == [None]
    assert len(found.find(None)) == 3
    assert FixedKeys(found).request_refresh() is False
    assert select_keys("EdDSA", {"keys": [jwk("EdDSA", kid="a")]}, "x").find("b") == []


def test_the_key_is_read_from_the_settings(tmp_path: Path) -> None:
    """The key is read from its setting, or from a file, whose last line ending is not part of a secret."""
    path = tmp_path / "key"
    for end in (b"", b"\n", b"\r\n"):
        path.write_bytes(SECRET + end)
        found = read_configured_keys(TokenSettings(jwt_algorithm="HS256", jwt_key_file=path))
        assert found is not None
        assert found.keys[0].material == SECRET
    path.write_bytes(SECRET + b"\n\n")
    found = read_configured_keys(TokenSettings(jwt_algorithm="HS256", jwt_key_file=path))
    assert found is not None
    assert found.keys[0].material == SECRET + b"\n"
    found = read_configured_keys(
        TokenSettings(jwt_algorithm="HS256", jwt_key=SecretStr(SECRET.decode() + "\n"))
    )
    assert found is not None
    assert found.keys[0].material == SECRET + b"\n"
    assert read_configured_keys(TokenSettings(jwt_algorithm="RS256", jwt_jwks_url="https://a/")) is None


def test_an_unreadable_key_file_is_an_error(tmp_path: Path) -> None:
    """A key file that is missing, a directory or too large is an error."""
    with pytest.raises(KeysError, match="No such file"):
        read_configured_keys(TokenSettings(jwt_algorithm="RS256", jwt_key_file=tmp_path / "none"))
    with pytest.raises(KeysError, match="Is a directory"):
        read_configured_keys(TokenSettings(jwt_algorithm="RS256", jwt_key_file=tmp_path))
    (tmp_path / "large").write_bytes(b"x" * 262_145)
    with pytest.raises(KeysError, match="more than 262144 bytes"):
        read_configured_keys(TokenSettings(jwt_algorithm="RS256", jwt_key_file=tmp_path / "large"))


odd_values = st.one_of(
    st.none(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.from_regex(r"[A-Za-z0-9_-]{0,90}", fullmatch=True),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)


@given(
    st.sampled_from(PUBLIC),
    st.dictionaries(
        st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d", "x5c"]),
        odd_values,
        max_size=4,
    ),
)
def test_any_key_set_is_read_or_rejected(algorithm: Algorithm, overrides: dict[str, Any]) -> None:
    """Any key set is read or raises `KeysError`, so an invalid one does not end the loop that fetches it."""
    try:
        found = select_keys(algorithm, {"keys": [{**jwk(algorithm), **overrides}]}, "x")
    except KeysError as error:
        str(error).encode()
    else:
        assert len(found.keys) == 1


@pytest.mark.parametrize("size", [1_025, 2_049, 100_000])
def test_a_huge_rsa_key_is_rejected(size: int) -> None:
    """A huge RSA key is rejected, since each token verified with it would be expensive."""
    huge = base64.urlsafe_b64encode(b"\xff" * size).rstrip(b"=").decode()
    with pytest.raises(KeysError, match="RS256"):
        select_keys("RS256", {"keys": [jwk("RS256", n=huge)]}, "x")
