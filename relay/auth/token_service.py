"""Token verification of a running relay: the verifier, and the refresh of its keys and revocations."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import get_args

from tickertape.relay.auth.claims import ExpectedClaims, Reason
from tickertape.relay.auth.jwks import Jwks
from tickertape.relay.auth.key_parsing import read_configured_keys
from tickertape.relay.auth.keys import FixedKeys, KeysError
from tickertape.relay.auth.revocation_list import Revocations
from tickertape.relay.auth.settings import TokenSettings
from tickertape.relay.auth.verifier import Verifier
from tickertape.relay.core.grants import Grant

from tickertape.process.tasks import Tasks
from tickertape.text import count
from tickertape.urls import redact_url

log = logging.getLogger("tickertape.tokens")


class TokenService:
    """Token verifier that keeps its keys and revocations up to date.

    Args:
        settings: settings of a relay with ``--auth jwt``, without a ``token_settings_error``.
        wall: returns UNIX seconds.

    Raises:
        KeysError: the key cannot be used.
        RevocationsError: the list of revoked tokens cannot be read.
    """

    def __init__(self, settings: TokenSettings, *, wall: Callable[[], float] = time.time) -> None:
        assert settings.jwt_algorithm is not None
        keys = read_configured_keys(settings)
        self._settings = settings
        self._fixed: FixedKeys | None = None
        self._jwks: Jwks | None = None
        if keys is None:
            assert settings.jwt_jwks_url is not None
            self._jwks = Jwks(settings.jwt_jwks_url, settings.jwt_algorithm)
        else:
            self._fixed = FixedKeys(keys)
        source = self._jwks or self._fixed
        assert source is not None
        revoked_file = settings.jwt_revoked_file
        self._revocations = None if revoked_file is None else Revocations(revoked_file)
        self._verifier = Verifier(
            settings.jwt_algorithm,
            source,
            expected=ExpectedClaims(settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway),
            revoked=self.is_revoked,
            wall=wall,
        )

    def __repr__(self) -> str:
        return f"TokenService({self._verifier!r}, {self._jwks!r}, {self._revocations!r})"

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

    def is_revoked(self, grant: Grant) -> bool:
        """Return whether a grant's token is revoked."""
        return self._revocations is not None and self._revocations.is_revoked(grant)

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep keys and revocations up to date until cancelled.

        Args:
            changed: called when the list of revocations has changed.
        """
        async with Tasks() as tasks:
            if self._jwks is not None:
                tasks.start(self._fetch(self._jwks), "jwks")
            if self._revocations is not None:
                tasks.start(self._revocations.run(changed), "revocations")
            await tasks.until()  # a fixed key needs no task

    def reloaders(self) -> list[Callable[[], Awaitable[str]]]:
        """Return functions that reload keys and revocations.

        Each returns a description of what was loaded, or raises an ``OperatorError`` and changes nothing.
        Existing sessions continue even if the key of their token is removed; revoke their tokens to end them.
        """
        reloaders: list[Callable[[], Awaitable[str]]] = []
        # A key from the environment cannot change while the process runs.
        if self._jwks is not None or self._settings.jwt_key_file is not None:
            reloaders.append(self._reload_keys)
        if self._revocations is not None:
            reloaders.append(self._reload_revocations)
        return reloaders

    async def _reload_keys(self) -> str:
        if self._jwks is not None:
            await self._jwks.load()
            assert self._settings.jwt_jwks_url is not None
            return f"keys from {redact_url(self._settings.jwt_jwks_url)}"
        keys = await asyncio.to_thread(read_configured_keys, self._settings)
        assert self._fixed is not None
        assert keys is not None
        # A new object, by which the verifier notices that its cache is stale.
        self._fixed.keys = keys
        return f"key file {self._settings.jwt_key_file}"

    async def _reload_revocations(self) -> str:
        assert self._revocations is not None
        await asyncio.to_thread(self._revocations.reload)
        return count(len(self._revocations), "revocation")

    @staticmethod
    async def _fetch(jwks: Jwks) -> None:
        try:
            await jwks.load()
        except KeysError as error:
            log.warning("%s; clients have to retry until the keys are available", error.message)
        await jwks.run()
