"""OpenID Connect discovery: the address of an issuer's keys, from its metadata.

Invariants:

1. The metadata has to name exactly the configured issuer, so that no other issuer of the same host can take
   its place (OpenID Connect Discovery 1.0, 4.3).
2. The address of the keys is as well protected as the issuer's own: https, unless the issuer is on loopback.
3. The metadata is never trusted with a choice: neither the issuer nor the algorithm is taken from it.
"""

from typing import Any, Final
from urllib.parse import urlsplit

from tickertape.relay.auth.jwks import fetch_document
from tickertape.relay.auth.keys import KeysError, parse_json_object
from tickertape.relay.auth.settings import Algorithm, check_issuer_url

from tickertape.urls import redact_url

MAX_URL: Final = 2_000
"""Maximum characters of the address of the keys."""

_PATH: Final = "/.well-known/openid-configuration"


class Discovery:
    """Discovery of the address of an issuer's keys.

    Args:
        issuer: identifier of the issuer, validated by ``TokenSettings``.
        algorithm: signature algorithm of the tokens.
    """

    def __init__(self, issuer: str, algorithm: Algorithm) -> None:
        self._issuer = issuer
        self._algorithm = algorithm

    def __repr__(self) -> str:
        return f"Discovery({self._issuer})"

    async def find_keys(self) -> str:
        """Fetch the metadata, and return the address of the keys.

        Raises:
            KeysError: the metadata cannot be fetched, or is not that of the issuer.
        """
        url = self._issuer.rstrip("/") + _PATH
        name = f"the metadata of the issuer at {url}"
        data, _ = await fetch_document(name, url)
        metadata = parse_json_object(data)
        if metadata is None:
            raise KeysError(
                f"{name} is not a JSON object with unique keys",
                "set --oidc-issuer to an OpenID Connect issuer",
            )
        return self._check(metadata, name)

    def _check(self, metadata: dict[str, Any], name: str) -> str:
        issuer = metadata.get("issuer")
        if issuer != self._issuer:
            raise KeysError(
                f"{name} is that of another issuer: {ascii(issuer)[:200]}",
                "set --oidc-issuer exactly as the issuer writes it, including a trailing slash",
            )
        algorithms = metadata.get("id_token_signing_alg_values_supported", [self._algorithm])
        if not isinstance(algorithms, list) or self._algorithm not in algorithms:
            raise KeysError(
                f"{name} does not list {self._algorithm}: {ascii(algorithms)[:200]}",
                "set --jwt-algorithm to an algorithm of the issuer",
            )
        address = metadata.get("jwks_uri")
        try:
            if not isinstance(address, str):
                raise ValueError("it is missing")
            if len(address) > MAX_URL:  # logged if it cannot be fetched
                raise ValueError(f"it has more than {MAX_URL} characters")
            check_issuer_url(address)
        except ValueError as error:
            raise KeysError(f"{name} has no valid jwks_uri: {error}", "correct it at the issuer") from None
        if urlsplit(self._issuer).scheme == "https" and urlsplit(address).scheme != "https":
            raise KeysError(
                f"{name} has the jwks_uri {redact_url(address)} without https", "correct it at the issuer"
            )
        return address
