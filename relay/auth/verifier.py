"""Token verification: size, signature, times, issuer, audience and revocation, in this order.

Invariants:

1. Only the configured algorithm is accepted; tokens with any other are rejected before a key is used.
2. Only valid tokens are cached, so invalid ones cannot evict them.
3. Cached tokens are still checked for expiry and revocation; a change of keys clears the cache.
4. No error contains a token, a signature or a key.
"""

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Final, Protocol

from jwt import PyJWS
from jwt.exceptions import InvalidSignatureError, PyJWTError
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import MAX_TOKEN, ProtocolError
from tickertape.relay.auth.claims import (
    ExpectedClaims,
    Reason,
    TokenError,
    decode_base64url,
    parse_json_object,
    read_name,
)
from tickertape.relay.auth.keys import Keys
from tickertape.relay.auth.settings import Algorithm
from tickertape.relay.core.grants import CLAIM, Grant, grant_of

MAX_HEADER: Final = 2 * 1024
"""Maximum bytes of the decoded header."""

CACHE_SIZE: Final = 10_000
"""Maximum number of valid tokens that are cached."""

_ANY_CLAIMS: Final = ExpectedClaims()
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)


class KeySource(Protocol):
    """Source of verification keys: ``FixedKeys`` or ``Jwks``."""

    @property
    def keys(self) -> Keys | None:
        """Current keys, the same object until they change; None until they are available."""

    def request_refresh(self, kid: str | None = None) -> bool:
        """Request newer keys, for a token with this key id; return whether a fetch is pending."""


class Verifier:
    """Token verifier that does no I/O, so it may be called from the event loop.

    Args:
        algorithm: the only accepted signature algorithm.
        source: source of keys.
        expected: claims that a token must have.
        revoked: returns whether the token of a grant is revoked.
        wall: returns UNIX seconds.
        grant_claim: name of the claim that contains the grant.

    Attributes:
        failures: number of rejected tokens by reason.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        source: KeySource,
        *,
        expected: ExpectedClaims = _ANY_CLAIMS,
        revoked: Callable[[Grant], bool] = lambda _: False,
        wall: Callable[[], float] = time.time,
        grant_claim: str = CLAIM,
    ) -> None:
        self.failures: Counter[Reason] = Counter()
        self._algorithm = algorithm
        self._source = source
        self._expected = expected
        self._revoked = revoked
        self._wall = wall
        self._grant_claim = grant_claim
        # PyJWS verifies signatures only; ``claims.py`` checks the claims, by stricter rules than PyJWT's.
        # Restricted to this algorithm, so that even a bug here could not make PyJWT accept another.
        self._signatures = PyJWS(algorithms=[algorithm])
        self._cache: OrderedDict[bytes, Grant] = OrderedDict()
        self._cached_keys: Keys | None = None

    def __repr__(self) -> str:
        return f"Verifier({self._algorithm}, {len(self._cache)} cached tokens)"

    def verify(self, token: str) -> Grant:
        """Return the grant of a token.

        Args:
            token: token as the client sent it, without ``Bearer``.

        Raises:
            TokenError: the token is rejected. The code is ``unavailable`` while keys are being fetched, so
                that the client retries with the same token.
        """
        try:
            return self._verify(token)
        except TokenError as error:
            self.failures[error.reason] += 1
            raise

    def _verify(self, token: str) -> Grant:
        if len(token) > MAX_TOKEN:
            raise TokenError("malformed", f"the token has {len(token)} characters; the limit is {MAX_TOKEN}")
        if not _SHAPE.fullmatch(token):
            raise TokenError("malformed", "the token is not a JWT of three base64url parts separated by dots")
        keys = self._source.keys
        # Sources replace the object when keys change, so comparing identities is enough.
        if keys is not self._cached_keys:
            self._cache.clear()
            self._cached_keys = keys
        # The cache is keyed by digest, since tokens are secret and may have 16 KiB.
        digest = sha256(token.encode("ascii")).digest()
        grant = self._cache.get(digest)
        if grant is None:
            grant = self._decode(token, keys)
        assert grant.expires_at is not None
        if grant.expires_at <= self._wall():
            self._cache.pop(digest, None)
            raise TokenError(
                "expired", f"the token expired at {format_time(grant.expires_at)}; get a new one"
            )
        if self._revoked(grant):
            self._cache.pop(digest, None)
            raise TokenError("revoked", "the token is revoked; get a new one")
        # Cached only now that every check has passed (invariant 2); the least recently used token is evicted.
        self._cache[digest] = grant
        self._cache.move_to_end(digest)
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return grant

    def _decode(self, token: str, keys: Keys | None) -> Grant:
        kid = self._check_header(token)
        payload = self._verify_signature(token, kid, keys)
        claims = parse_json_object(payload, "the token's claims")
        self._expected.check(claims, self._wall())
        try:
            grant = grant_of(claims, claims.get("sub") or anonymous_subject(token), self._grant_claim)
        except ProtocolError as error:
            reason: Reason = "empty_grant" if error.code is ErrorCode.FORBIDDEN else "claim"
            raise TokenError(reason, error.message, error.code) from None
        return replace(grant, key_id=kid)

    def _check_header(self, token: str) -> str | None:
        """Check the header, and return its key id, or None if it has none.

        ``jku``, ``x5u``, ``jwk`` and ``x5c`` would let a token supply its own key, so they are never read.
        """
        label = "the token's header"
        header = parse_json_object(decode_base64url(token.partition(".")[0], MAX_HEADER, label), label)
        alg = header.get("alg")
        if alg != self._algorithm:
            raise TokenError(
                "algorithm",
                f"the token's alg is {ascii(alg)[:40]}; this relay accepts only {self._algorithm}",
            )
        for extension in ("crit", "b64"):
            if extension in header:
                raise TokenError(
                    "malformed", f"the token's header has the unsupported extension {extension!r}"
                )
        return read_name(header, "kid", "malformed")

    def _verify_signature(self, token: str, kid: str | None, keys: Keys | None) -> bytes:
        """Return the payload of a token that is signed with one of the keys."""
        if keys is None:
            self._source.request_refresh()
            raise TokenError(
                "keys_unavailable",
                "the keys that verify tokens are not available yet; retry in a second",
                ErrorCode.UNAVAILABLE,
            )
        candidates = keys.find(kid)
        if not candidates:
            if self._source.request_refresh(kid):
                raise TokenError(
                    "unknown_key",
                    "the token's kid is unknown; refreshing the keys, retry in a second",
                    ErrorCode.UNAVAILABLE,
                )
            raise TokenError("unknown_key", "the token's kid matches no key of this relay; get a new token")
        # Without a key id, a token may be signed with any of several keys.
        for key in candidates:
            try:
                decoded = self._signatures.decode_complete(token, key.material, [self._algorithm])
            except InvalidSignatureError:
                continue
            except PyJWTError:
                # The exception text may quote the token.
                raise TokenError("malformed", "the token is not a signed JWT in compact form") from None
            payload = decoded["payload"]
            assert isinstance(payload, bytes)
            return payload
        raise TokenError("signature", "the token is not signed with a key of this relay")


def anonymous_subject(token: str) -> str:
    """Return the subject of a token without ``sub``: a digest of the signed part.

    The signature is excluded, since an ES256 signature has a second valid form, which would give its holder a
    second subject: not revoked, and with its own connection limit.
    """
    return f"token:{sha256(token.rpartition('.')[0].encode('ascii')).hexdigest()[:16]}"


__all__ = ["ExpectedClaims", "KeySource", "TokenError", "Verifier", "anonymous_subject"]
