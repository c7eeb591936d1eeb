"""The issuer's keys (JWKS), fetched from their address off the handshake path and kept fresh.

Invariants:

1. The last good set is kept until a better one comes: an issuer that is away locks nobody out.
2. Strangers cannot make the relay fetch more than once in 10 s, whatever ``kid`` they send.
3. What is fetched is bounded in size and time, comes from the address that was set, and is checked before
   it counts.
"""

import asyncio
import contextlib
import logging
import random
import re
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from tickertape.relay.auth.key_parsing import MAX_KEY_BYTES, read_key_set
from tickertape.relay.auth.keys import Keys, KeysError
from tickertape.relay.auth.settings import Algorithm

from tickertape.urls import redact_url

log = logging.getLogger("tickertape.jwks")

FETCH_TIMEOUT: Final = 5.0
"""Seconds for one fetch, from connecting to the last byte."""

REFRESH: Final = 300.0
"""Seconds between fetches where the answer names no ``max-age``."""

MIN_REFRESH: Final = 60.0
MAX_REFRESH: Final = 3600.0
"""Seconds that ``max-age`` is bounded to: a key that was withdrawn must not count for a day."""

MIN_FETCH_INTERVAL: Final = 10.0
"""Seconds between two fetches that unknown key ids ask for."""

FIRST_RETRY: Final = 1.0
"""Seconds until the next try after a failed one; doubles up to ``MIN_REFRESH``."""

JITTER: Final = 0.2
"""Part of a wait that is left to chance, so that relays do not all ask at once."""

_MAX_AGE: Final = re.compile(r'(?:^|[,\s])max-age\s*=\s*"?(\d{1,9})', re.IGNORECASE)


class _NoRedirect(HTTPRedirectHandler):
    """An issuer that sends us elsewhere could be made to send us to anybody."""

    def redirect_request(self, *_: object) -> None:
        """Follow none, which makes an ``HTTPError`` of it."""


class Jwks:
    """The keys behind an address, as a source of keys for a ``Verifier``.

    Args:
        url: checked by ``TokenSettings``.
        algorithm: that tokens are signed with.
        clock: seconds, monotonic.
        chance: a number in 0..1 for the jitter.

    Attributes:
        keys: the last good ones; None until the first fetch succeeds.
        fetches: how many were tried.
        failures: how many of them failed.
    """

    def __init__(
        self,
        url: str,
        algorithm: Algorithm,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.keys: Keys | None = None
        self.fetches = 0
        self.failures = 0
        self._url = url
        self._algorithm = algorithm
        self._clock = clock
        self._chance = chance
        self._opener = _opener(url)
        self._asked = asyncio.Event()
        self._asked_at = float("-inf")
        self._fetching = False
        self._in_a_row = 0  # failed fetches since the last good one
        self._document = b""
        self._wait = 0.0  # seconds until the next fetch

    def __repr__(self) -> str:
        count = 0 if self.keys is None else len(self.keys.keys)
        return (
            f"Jwks({redact_url(self._url)}, {count} keys, {self.failures} of {self.fetches} fetches failed)"
        )

    def request_refresh(self) -> bool:
        """Ask for a fetch soon, because a token names a key that is not known.

        Returns:
            True when one is on its way, so that it is worth coming back in a second; False when the last one
            that was asked for is too recent.
        """
        if self._fetching or self._asked.is_set():
            return True
        now = self._clock()
        if now - self._asked_at < MIN_FETCH_INTERVAL:
            return False
        self._asked_at = now
        self._asked.set()
        return True

    async def load(self) -> None:
        """Fetch once, before ``run``.

        Raises:
            KeysError: no keys came; ``run`` goes on trying, so the caller may go on too.
        """
        await self._fetch()

    async def run(self) -> None:
        """Keep the keys fresh until it is cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait):
                    await self._asked.wait()
            self._asked.clear()
            first = self._in_a_row == 0
            try:
                await self._fetch()
            except KeysError as error:
                if first:
                    kept = "the keys from before still count" if self.keys else "no token can be verified"
                    log.warning("%s; %s until it mends, tries go on", error.message, kept)
            else:
                if not first:
                    log.info("the JWKS at %s answers again", redact_url(self._url))

    async def _fetch(self) -> None:
        self.fetches += 1
        self._fetching = True
        try:
            document, max_age = await asyncio.to_thread(_get, self._opener, self._url)
            if document != self._document or self.keys is None:
                self.keys = self._read(document)
                self._document = document
        except KeysError:
            self.failures += 1
            self._in_a_row += 1
            self._wait = self._jittered(min(FIRST_RETRY * 2.0 ** min(self._in_a_row - 1, 10), MIN_REFRESH))
            raise
        finally:
            self._fetching = False
        self._in_a_row = 0
        self._wait = self._jittered(max_age)

    def _read(self, document: bytes) -> Keys:
        keys = read_key_set(self._algorithm, document, redact_url(self._url))
        for line in keys.skipped:
            log.warning("passed over: %s", line)
        return keys

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 - JITTER * self._chance())


def refresh_after(cache_control: str | None) -> float:
    """Seconds until the next fetch, by the answer's ``Cache-Control``: 60 s to an hour, else 5 minutes."""
    found = _MAX_AGE.search(cache_control or "")
    return REFRESH if found is None else min(max(float(found[1]), MIN_REFRESH), MAX_REFRESH)


def _opener(url: str) -> OpenerDirector:
    # A proxy that the environment names cannot reach this machine's loopback, which is all that http is for.
    proxy = ProxyHandler({}) if url.startswith("http:") else ProxyHandler()
    return build_opener(_NoRedirect, proxy)


def _get(opener: OpenerDirector, url: str) -> tuple[bytes, float]:
    """Fetch the document, in a thread.

    Returns:
        it, and the seconds until it should be fetched again.

    Raises:
        KeysError: it did not come, not whole, or is too large.
    """
    where = f"the JWKS at {redact_url(url)}"
    ends = time.monotonic() + FETCH_TIMEOUT
    request = Request(url, headers={"Accept": "application/jwk-set+json, application/json"})  # noqa: S310 (checked)
    try:
        with opener.open(request, timeout=FETCH_TIMEOUT) as response:
            if response.status != 200:
                raise KeysError(f"{where} answers {response.status}", "give an address that answers 200")
            data = b""
            # A timeout counts per read; one that sends a byte at a time must not hold the thread for hours.
            while block := response.read1(MAX_KEY_BYTES + 1):
                data += block
                if len(data) > MAX_KEY_BYTES:
                    raise KeysError(
                        f"{where} has over {MAX_KEY_BYTES} bytes", "give an address of nothing but keys"
                    )
                if time.monotonic() > ends:
                    raise TimeoutError("timed out")
            return data, refresh_after(response.headers.get("Cache-Control"))
    except HTTPError as error:
        with error:
            hint = "redirects are not followed: give the address itself" if error.code // 100 == 3 else ""
            raise KeysError(
                f"{where} answers {error.code}", hint or "see that the address is right"
            ) from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise KeysError(
            f"{where} cannot be fetched: {str(reason) or type(reason).__name__}",
            "see that the address is right and can be reached from here",
        ) from None
