"""Keys of the token issuer (JWKS), fetched from a URL in the background and refreshed.

Invariants:

1. The last valid key set is used until a newer one is fetched: an unreachable issuer does not lock clients
   out.
2. Untrusted clients cannot cause more than one fetch per 10 s, whatever ``kid`` they send, and cannot deny it
   to others: a key id that no fetch has looked for yet is fetched as soon as that is allowed, not rejected.
3. A fetch is bounded in size and, as a whole, in time; it follows no redirects, and its result is validated
   before use. Cancelling ``run`` ends it immediately.
"""

import asyncio
import contextlib
import logging
import random
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from tickertape.relay.auth.key_parsing import MAX_KEY_BYTES, read_key_set
from tickertape.relay.auth.keys import Keys, KeysError
from tickertape.relay.auth.settings import Algorithm

from tickertape.net.http_client import fetch
from tickertape.net.outgoing import describe_failure
from tickertape.urls import redact_url

log = logging.getLogger("tickertape.jwks")

FETCH_TIMEOUT: Final = 5.0
"""Maximum seconds of one fetch, from connecting to the last byte."""

REFRESH: Final = 300.0
"""Seconds between fetches if the response has no ``max-age``."""

MIN_REFRESH: Final = 60.0
MAX_REFRESH: Final = 3600.0
"""Limits of ``max-age`` in seconds: a withdrawn key must not be accepted for a day."""

MIN_FETCH_INTERVAL: Final = 10.0
"""Minimum seconds between two fetches triggered by unknown key ids."""

MAX_UNKNOWN: Final = 1_000
"""Maximum number of unknown key ids that are remembered; the oldest is forgotten first."""

FIRST_RETRY: Final = 1.0
"""Seconds until the first retry after a failed fetch; doubles up to ``MIN_REFRESH``."""

JITTER: Final = 0.2
"""Maximum share by which a wait is shortened at random, so that relays do not all fetch simultaneously."""

_MAX_AGE: Final = re.compile(r'(?:^|[,\s])max-age\s*=\s*"?(\d{1,9})', re.IGNORECASE)


class Jwks:
    """Key source for a ``Verifier`` that fetches a JWKS from a URL.

    Args:
        url: URL of the JWKS or of its issuer, validated by ``TokenSettings``.
        algorithm: signature algorithm of the tokens.
        find_keys: returns the URL of the JWKS before each fetch, or raises ``KeysError``; None if ``url`` is
            that URL.
        clock: returns monotonic seconds.
        random: returns a number in 0..1 for the jitter.

    Attributes:
        keys: last valid keys; None until the first fetch succeeds.
        fetches: number of attempted fetches.
        failures: number of failed fetches.
    """

    def __init__(
        self,
        url: str,
        algorithm: Algorithm,
        find_keys: Callable[[], Awaitable[str]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.keys: Keys | None = None
        self.fetches = 0
        self.failures = 0
        self._url = url
        self._algorithm = algorithm
        self._find_keys = find_keys
        self._clock = clock
        self._random = random
        self._refresh_requested = asyncio.Event()
        self._last_request = float("-inf")
        self._deferred: asyncio.TimerHandle | None = None  # the next requested fetch, if one is due later
        # For each key id, the number of fetches that had begun when it was first asked for.
        self._unknown: OrderedDict[int, int] = OrderedDict()
        self._last_success = 0  # number of the last fetch that succeeded
        self._fetching = False
        self._consecutive_failures = 0  # failed fetches since the last successful one
        self._document = b""
        self._lock = asyncio.Lock()
        self._wait = 0.0  # seconds until the next fetch

    def __repr__(self) -> str:
        count = 0 if self.keys is None else len(self.keys.keys)
        return (
            f"Jwks({redact_url(self._url)}, {count} keys, {self.failures} of {self.fetches} fetches failed)"
        )

    @property
    def valid(self) -> bool:
        """Whether the last fetch succeeded."""
        return self._consecutive_failures == 0

    def request_refresh(self, kid: str | None = None) -> bool:
        """Request a fetch, because a token names an unknown key.

        Args:
            kid: key id of the token.

        Returns:
            True if a fetch is pending, so the client should retry; False if a recent one found no such key.
        """
        # Hashed, since a key id is of any size.
        asked_at = self._unknown.setdefault(hash(kid), self.fetches)
        if len(self._unknown) > MAX_UNKNOWN:
            self._unknown.popitem(last=False)
        if self._fetching or self._refresh_requested.is_set():
            return True
        # Measured between requests, so that failed fetches count, too.
        wait = self._last_request + MIN_FETCH_INTERVAL - self._clock()
        if wait <= 0:
            self._request_fetch()
            return True
        if asked_at < self._last_success:
            return False
        # Another client has used up the interval, perhaps with an invented key id.
        if self._deferred is None:
            self._deferred = asyncio.get_running_loop().call_later(wait, self._request_fetch)
        return True

    def _request_fetch(self) -> None:
        if self._deferred is not None:
            self._deferred.cancel()
            self._deferred = None
        self._last_request = self._clock()
        self._refresh_requested.set()

    async def load(self) -> None:
        """Fetch once, before ``run``.

        Raises:
            KeysError: the fetch failed; ``run`` retries, so the caller may continue.
        """
        await self._fetch()

    async def run(self) -> None:
        """Refresh the keys until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait):
                    await self._refresh_requested.wait()
            self._refresh_requested.clear()
            was_valid = self.valid
            try:
                await self._fetch()
            except KeysError as error:
                if was_valid:
                    effect = "the previous keys stay in use" if self.keys else "no token can be verified"
                    log.warning("%s; %s until a fetch succeeds, retrying", error.message, effect)
            else:
                if not was_valid:
                    log.info("fetched the JWKS at %s again after failures", redact_url(self._url))

    async def _fetch(self) -> None:
        # One after the other: a slow fetch would otherwise bring keys back that a later one has replaced.
        async with self._lock:
            await self._fetch_once()

    async def _fetch_once(self) -> None:
        self.fetches += 1
        number = self.fetches
        self._fetching = True
        try:
            # Before each fetch, since an issuer may move its keys.
            url = self._url if self._find_keys is None else await self._find_keys()
            document, max_age = await fetch_document(f"the JWKS at {redact_url(url)}", url)
            # An unchanged document keeps its Keys object, and with it the verifier's cache of valid tokens.
            if document != self._document or self.keys is None:
                self.keys = self._read(document)
                self._document = document
        except KeysError:
            self.failures += 1
            self._consecutive_failures += 1
            # The exponent is bounded, since a float overflows after a thousand failures.
            self._wait = self._jittered(
                min(FIRST_RETRY * 2.0 ** min(self._consecutive_failures - 1, 10), MIN_REFRESH)
            )
            raise
        finally:
            self._fetching = False
        self._consecutive_failures = 0
        self._last_success = number
        self._wait = self._jittered(max_age)

    def _read(self, document: bytes) -> Keys:
        keys = read_key_set(self._algorithm, document, redact_url(self._url))
        for line in keys.skipped:
            log.warning("skipped a key of the JWKS: %s", line)
        return keys

    def _jittered(self, seconds: float) -> float:
        # Only shortened: a longer wait would keep a withdrawn key in use beyond ``max-age``.
        return seconds * (1 - JITTER * self._random())


def refresh_after(cache_control: str | None) -> float:
    """Return the seconds until the next fetch: the response's ``max-age`` within limits, or a default."""
    max_age = _MAX_AGE.search(cache_control or "")
    return REFRESH if max_age is None else min(max(float(max_age[1]), MIN_REFRESH), MAX_REFRESH)


async def fetch_document(name: str, url: str) -> tuple[bytes, float]:
    """Fetch a JSON document of the issuer.

    Args:
        name: name of the document for errors, which contains no secret.
        url: address of the document.

    Returns:
        The document, and the seconds until the next fetch.

    Raises:
        KeysError: the fetch failed, was incomplete, or the document is too large.
    """
    try:
        # http is allowed for loopback addresses only, which a proxy from the environment could not reach.
        response = await fetch(
            url,
            FETCH_TIMEOUT,
            MAX_KEY_BYTES,
            headers={"Accept": "application/jwk-set+json, application/json", "User-Agent": "tickertape"},
            proxies=True,
        )
    except OSError as error:
        reason = describe_failure(error)
    else:
        if response.status != 200:
            redirected = response.status // 100 == 3
            raise KeysError(
                f"{name} returned HTTP {response.status}",
                "redirects are not followed; set the final URL" if redirected else "check the URL",
            )
        if response.truncated:
            raise KeysError(
                f"{name} has more than {MAX_KEY_BYTES} bytes",
                "set the URL of a document that contains only keys",
            )
        return response.body, refresh_after(response.headers.get("cache-control"))
    raise KeysError(
        f"cannot fetch {name}: {reason}", "check that the URL is correct and reachable from this host"
    )
