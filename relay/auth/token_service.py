"""Token verification of a running relay: the verifier, and the refresh of its keys."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import get_args

from tickertape.relay.auth.claims import ExpectedClaims, Reason
from tickertape.relay.auth.discovery import Discovery
from tickertape.relay.auth.jwks import Jwks
from tickertape.relay.auth.key_parsing import read_configured_keys
from tickertape.relay.auth.keys import FixedKeys, KeysError
from tickertape.relay.auth.revocation_list import Revocations
from tickertape.relay.auth.settings import TokenSettings
from tickertape.relay.auth.verifier import Verifier
from tickertape.relay.core.grants import Grant

from tickertape.urls import redact_url

log = logging.getLogger("tickertape.tokens")


class TokenService:
    """Token verifier that keeps its keys up to date.

    Args:
        settings: settings of a relay with ``--auth jwt``, without a ``token_settings_error``.
        revocations: revoked tokens; None if none can be revoked.
        wall: returns UNIX seconds.

    Raises:
        KeysError: the key cannot be used.
    """

    def __init__(
        self,
        settings: TokenSettings,
        revocations: Revocations | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        assert settings.jwt_algorithm is not None
        keys = read_configured_keys(settings)
        self._settings = settings
        self._valid = True
        self._fixed: FixedKeys | None = None
        self._jwks: Jwks | None = None
        if keys is None:
            issuer, find_keys = settings.oidc_issuer, None
            if issuer is not None:
                find_keys = Discovery(issuer, settings.jwt_algorithm).find_keys
            self._key_url = issuer or settings.jwt_jwks_url or ""
            self._jwks = Jwks(self._key_url, settings.jwt_algorithm, find_keys)
        else:
            self._fixed = FixedKeys(keys)
        source = self._jwks or self._fixed
        assert source is not None
        self._verifier = Verifier(
            settings.jwt_algorithm,
            source,
            expected=ExpectedClaims(
                settings.oidc_issuer or settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway
            ),
            revoked=(lambda _: False) if revocations is None else revocations.is_revoked,
            wall=wall,
            grant_claim=settings.jwt_grant_claim,
        )

    def __repr__(self) -> str:
        return f"TokenService({self._verifier!r}, {self._jwks!r})"

    @property
    def failures(self) -> Mapping[str, int]:
        """Number of rejected tokens by reason."""
        return {reason: self._verifier.failures[reason] for reason in get_args(Reason)}

    async def load(self) -> None:
        """Fetch the issuer's keys once if they come from a URL; ``run`` refreshes them.

        Raises:
            KeysError: the keys cannot be fetched.
        """
        if self._jwks is not None:
            await self._jwks.load()

    def verify(self, token: str) -> Grant:
        """Return the grant of a token.

        Raises:
            TokenError: the token is rejected.
        """
        return self._verifier.verify(token)

    @property
    def valid(self) -> bool:
        """Whether the last load of the keys succeeded."""
        return self._valid if self._jwks is None else self._jwks.valid

    @property
    def ready(self) -> bool:
        """Whether there are keys; those of an issuer have to be fetched first."""
        return self._jwks is None or self._jwks.keys is not None

    async def run(self) -> None:
        """Keep the issuer's keys up to date until cancelled."""
        if self._jwks is not None:
            await self._fetch(self._jwks)

    def reloaders(self) -> list[Callable[[], Awaitable[str]]]:
        """Return functions that reload keys; see ``Authority.reloaders``."""
        # A key from the environment cannot change while the process runs.
        reloads = self._jwks is not None or self._settings.jwt_key_file is not None
        return [self._reload_keys] if reloads else []

    async def _reload_keys(self) -> str:
        if self._jwks is not None:
            await self._jwks.load()
            return f"keys from {redact_url(self._key_url)}"
        self._valid = False
        keys = await asyncio.to_thread(read_configured_keys, self._settings)
        self._valid = True
        assert self._fixed is not None
        assert keys is not None
        # A new object, by which the verifier notices that its cache is stale.
        self._fixed.keys = keys
        return f"key file {self._settings.jwt_key_file}"

    @staticmethod
    async def _fetch(jwks: Jwks) -> None:
        try:
            await jwks.load()
        except KeysError as error:
            log.warning("%s; clients have to retry until the keys are available", error.message)
        await jwks.run()
