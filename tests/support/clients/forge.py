"""Keys and tokens as tests need them: good ones, and such as no library would make."""

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
NOW: Final = 1_800_000_000.0
"""UNIX seconds of the tests' wall clock."""

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("HS256", "RS256", "ES256", "EdDSA")


def private_key(algorithm: Algorithm, name: str = "") -> Any:
    """The key that tokens of tests are signed with; another for each name."""
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
    """What a relay is given; the secret itself for HS256."""
    key = private_key(algorithm, name)
    if algorithm == "HS256":
        return bytes(key)
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private_pem(key: Any) -> bytes:
    """A private key as PEM."""
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def jwk(algorithm: Algorithm, name: str = "", **more: Any) -> dict[str, Any]:
    """A public key as an entry of a JWKS; what is None is left out."""
    forms: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
    entry = forms[algorithm].to_jwk(private_key(algorithm, name).public_key(), as_dict=True)
    return {key: value for key, value in {**entry, **more}.items() if value is not None}


def keys(algorithm: Algorithm, name: str = "") -> Keys:
    """What a relay with the public key verifies with."""
    return read_keys(algorithm, public_pem(algorithm, name), "the test")


def claims(**more: Any) -> dict[str, Any]:
    """Claims of a good token of an hour; what is None is left out."""
    values = {"sub": "alice", "exp": int(NOW) + 3600, "tickertape": {"subjects": ["log.>"]}, **more}
    return {key: value for key, value in values.items() if value is not None}


def encoded(data: bytes) -> str:
    """Base64url without padding."""
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
    """A signed token.

    Args:
        algorithm: of its signature.
        values: its claims, or the bytes of its payload; good ones by default.
        name: of the key.
        header: more for its header, or something else than the algorithm as ``alg``.
    """
    payload = values if isinstance(values, bytes) else json.dumps(dict(values or claims())).encode()
    return sign(
        algorithm,
        private_key(algorithm, name),
        payload,
        json.dumps({"typ": "JWT", "alg": algorithm, **header}).encode(),
    )
