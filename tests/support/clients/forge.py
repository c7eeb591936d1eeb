"""Keys and tokens for tests: valid ones, and ones that no library would produce."""

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt import PyJWS
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from tickertape.relay.auth.key_parsing import read_keys
from tickertape.relay.auth.keys import Keys
from tickertape.relay.auth.settings import Algorithm

SECRET: Final = b"a secret of tests that nobody else may know"
RELAY_SETTINGS: Final = {"auth": "jwt", "jwt_algorithm": "HS256", "jwt_key": SECRET.decode()}
"""Settings of a relay that accepts the HS256 tokens of tests."""

NOW: Final = 1_800_000_000.0
"""Wall-clock time of the tests, UNIX seconds."""

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("HS256", "RS256", "ES256", "EdDSA")


def private_key(algorithm: Algorithm, name: str = "") -> Any:
    """Return the key that signs the tokens of tests, a different one for each name."""
    return _made(algorithm, name)


@cache
def _made(algorithm: Algorithm, name: str) -> Any:
    if algorithm == "HS256":
        return SECRET + name.encode()
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def public_pem(algorithm: Algorithm, name: str = "") -> bytes:
    """Return the key that a relay is configured with: the public key, or the secret for HS256."""
    key = private_key(algorithm, name)
    if algorithm == "HS256":
        return bytes(key)
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private_pem(key: Any) -> bytes:
    """Return a private key as PEM."""
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def jwk(algorithm: Algorithm, name: str = "", **more: Any) -> dict[str, Any]:
    """Return a public key as a JWKS entry; members that are None are omitted."""
    forms: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
    entry = forms[algorithm].to_jwk(private_key(algorithm, name).public_key(), as_dict=True)
    return {key: value for key, value in {**entry, **more}.items() if value is not None}


def keys(algorithm: Algorithm, name: str = "") -> Keys:
    """Return the keys that a relay with the public key verifies with."""
    return read_keys(algorithm, public_pem(algorithm, name), "the test")


def claims(**more: Any) -> dict[str, Any]:
    """Return the claims of a token that is valid for an hour; claims that are None are omitted."""
    values = {"sub": "alice", "exp": int(NOW) + 3600, "tickertape": {"subjects": ["log.>"]}, **more}
    return {key: value for key, value in values.items() if value is not None}


def encoded(data: bytes) -> str:
    """Encode bytes as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(algorithm: str, key: Any, payload: bytes, header: bytes) -> str:
    """Sign any bytes as header and payload, which need not be JSON."""
    signed = f"{encoded(header)}.{encoded(payload)}"
    method = PyJWS().get_algorithm_by_name(algorithm)
    return f"{signed}.{encoded(method.sign(signed.encode(), key))}"


def token(
    algorithm: Algorithm = "HS256",
    values: Mapping[str, Any] | bytes | None = None,
    *,
    name: str = "",
    **header: Any,
) -> str:
    """Return a signed token.

    Args:
        algorithm: algorithm of its signature.
        values: its claims, or the bytes of its payload; valid ones by default.
        name: name of the key.
        header: additional header fields, or a different ``alg``.
    """
    payload = values if isinstance(values, bytes) else json.dumps(dict(values or claims())).encode()
    return sign(
        algorithm,
        private_key(algorithm, name),
        payload,
        json.dumps({"typ": "JWT", "alg": algorithm, **header}).encode(),
    )
