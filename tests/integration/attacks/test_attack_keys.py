"""Keys from a JWKS URL: rotated at run time, unavailable, not loaded yet, and requested by attackers."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from tickertape.contracts.messages import Error, Pong
from tickertape.relay.auth.jwks import MIN_FETCH_INTERVAL

from tests.support.clients import forge
from tests.support.clients.attacker import bearer, browser, claims, exchange, upgrade
from tests.support.clients.feed_client import follow, run
from tests.support.clients.honest_client import Honest
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer


class Issuer:
    """Server of a key set on a loopback port.

    Attributes:
        keys: names of the keys that are served.
        status: status of its responses.
        broken: whether it serves an invalid key set.
        fetches: number of requests.
    """

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)
        self.status = 200
        self.broken = False
        self.fetches = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                body = issuer.document()
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def document(self) -> bytes:
        """Return the key set, with a secret in it that must never be used as a key."""
        if self.broken:
            return b'{"keys":[{"kty":"EC","kid":"first"}]}'
        entries = [forge.jwk("ES256", name, kid=name, use="sig", alg="ES256") for name in self.keys]
        secret = {"kty": "oct", "kid": "secret", "k": forge.encoded(forge.SECRET)}
        return orjson.dumps({"keys": [*entries, secret]})

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


def token(name: str, kid: str | None = None, signed: str | None = None) -> str:
    """Return a token signed with a key."""
    return forge.token("ES256", claims(), name=signed or name, kid=kid or name)


def status(relay: Relay, shown: str) -> int:
    """Return the status that a program gets for a token; 101 if it is accepted."""

    async def come() -> int:
        async with follow(relay.ws_url, token=shown):
            return 101

    data = exchange(relay, upgrade("/ws", bearer(shown), "Sec-WebSocket-Protocol: other"))
    # With a foreign subprotocol even a valid token ends in a rejected handshake.
    return run(come()) if data.status == 400 else data.status


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Run an issuer with one key."""
    one = Issuer("first")
    yield one
    one.close()


@pytest.fixture
def relay(nats: NatsServer, issuer: Issuer, prefix: str) -> Iterator[Relay]:
    """Run a relay whose next fetch is still allowed: at most one in 10 s."""
    env = {
        "TICKERTAPE_JWT_ALGORITHM": "ES256",
        "TICKERTAPE_JWT_JWKS_URL": issuer.url,
        "TICKERTAPE_SUBJECT_PREFIX": prefix,
    }
    with Relay(nats.url, "--auth", "jwt", **env) as running:
        eventually(lambda: status(running, token("first")) == 101, "the keys count")
        yield running


@pytest.fixture
def honest(relay: Relay, prefix: str) -> Iterator[Honest]:
    """Connect with a token of the first key, which stays in the set."""
    with Honest(relay, token("first"), f"{prefix}.") as client:
        yield client


def test_a_new_key_counts_within_seconds(relay: Relay, issuer: Issuer) -> None:
    """The first token with a new key triggers a fetch and is told to retry; no restart is necessary."""
    issuer.keys.append("second")
    answer = exchange(relay, upgrade("/ws", bearer(token("second"))))
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "unavailable", "1")
    eventually(lambda: status(relay, token("second")) == 101, "the new key counts")
    assert status(relay, token("first")) == 101
    assert issuer.fetches == 2


def test_unknown_keys_do_not_make_the_relay_fetch_each_time(relay: Relay, issuer: Issuer) -> None:
    """Unknown key ids cause at most one fetch in 10 s, and are neither accepted nor used as URLs."""
    began = time.monotonic()
    assert exchange(relay, upgrade("/ws", bearer(token("forged")))).status == 503
    eventually(lambda: issuer.fetches == 2, "the keys are fetched anew")
    eventually(lambda: status(relay, token("forged")) == 401, "the fetch is over")
    names = [f"forged-{number}" for number in range(20)]
    for kid in (*names, "../../etc/passwd", "' OR 1=1 --", issuer.url, "secret", "FIRST"):
        answer = exchange(relay, upgrade("/ws", bearer(token("first", kid))))
        # No fetch has looked for these, so that the key of an honest client would be waited for.
        assert (answer.status, answer.code) in ((503, "unavailable"), (401, "unauthorized"))
    inside = run(browser(relay, token=token("forged")))
    assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "unauthorized", 4401)
    # A known key id does not validate another key's signature, nor does a secret in the set.
    assert status(relay, token("first", signed="other")) == 401
    assert status(relay, forge.token("HS256", claims(), kid="secret")) == 401
    assert issuer.fetches <= 2 + (time.monotonic() - began) / MIN_FETCH_INTERVAL


def test_the_last_keys_stay_in_use_while_the_issuer_fails(relay: Relay, issuer: Issuer) -> None:
    """While the issuer fails or serves an invalid set, the last valid keys stay in use."""
    issuer.status = 500
    assert status(relay, token("second")) == 503
    eventually(lambda: issuer.fetches >= 2, "the issuer was asked, in vain")
    assert status(relay, token("first")) == 101
    # Fetches are retried automatically; the next result is no key set either.
    issuer.broken, issuer.status = True, 200
    eventually(lambda: issuer.fetches >= 3, "it was asked once more")
    assert status(relay, token("first")) == 101
    relay.until_logged("the previous keys stay in use")


def test_a_renewal_with_a_key_that_is_not_there_yet(relay: Relay) -> None:
    """A renewal with an unknown key is answered with ``error`` and ``retry``, and the old token stays
    valid.
    """

    async def check() -> None:
        async with follow(relay.ws_url, token=token("first")) as feed:
            await feed.send_message(type="auth", token=token("not yet"))
            await feed.send_message(type="ping", id=1)
            received = await feed.one(Error)
            assert (received.code, received.retry, received.ref) == ("unavailable", True, "auth")
            await feed.one(Pong)

    run(check())


def test_without_keys_clients_are_told_to_retry(nats: NatsServer, prefix: str) -> None:
    """Without keys every token gets 503 or 4503 with ``retry``; afterwards valid ones are accepted."""
    away = Issuer("late")
    away.status = 404
    env = {
        "TICKERTAPE_JWT_ALGORITHM": "ES256",
        "TICKERTAPE_JWT_JWKS_URL": away.url,
        "TICKERTAPE_SUBJECT_PREFIX": prefix,
    }
    try:
        with Relay(nats.url, "--auth", "jwt", **env) as relay:
            for shown in (token("late"), token("forged")):
                answer = exchange(relay, upgrade("/ws", bearer(shown)))
                assert (answer.status, answer.code, answer.headers["retry-after"]) == (
                    503,
                    "unavailable",
                    "1",
                )
            inside = run(browser(relay, token=token("late")))
            assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "unavailable", 4503)
            assert inside.messages[0]["retry"]
            assert inside.messages[1]["retry_after_ms"] == 1000
            away.status = 200
            eventually(lambda: status(relay, token("late")) == 101, "the key counts")
            assert status(relay, token("late", signed="other")) == 401
    finally:
        away.close()
