"""Keys behind an address: rotated while the relay runs, away, not there yet, and asked for by strangers."""

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
    """Serves a key set on a loopback port.

    Attributes:
        keys: names of the keys that are served.
        status: of its answers.
        broken: whether what it serves is no key.
        fetches: how often it was asked.
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
        """The key set, with a secret in it that must never count as a key."""
        if self.broken:
            return b'{"keys":[{"kty":"EC","kid":"first"}]}'
        entries = [forge.jwk("ES256", name, kid=name, use="sig", alg="ES256") for name in self.keys]
        secret = {"kty": "oct", "kid": "secret", "k": forge.encoded(forge.SECRET)}
        return orjson.dumps({"keys": [*entries, secret]})

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


def token(name: str, kid: str | None = None, signed: str | None = None) -> str:
    """A token of a key."""
    return forge.token("ES256", claims(), name=signed or name, kid=kid or name)


def status(relay: Relay, shown: str) -> int:
    """What a program gets for a token; 101 when it is let in."""

    async def come() -> int:
        async with follow(relay.ws_url, token=shown):
            return 101

    data = exchange(relay, upgrade("/ws", bearer(shown), "Sec-WebSocket-Protocol: other"))
    # Not our subprotocol: with a good token it is the handshake itself that is refused.
    return run(come()) if data.status == 400 else data.status


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer of one key."""
    one = Issuer("first")
    yield one
    one.close()


@pytest.fixture
def relay(nats: NatsServer, issuer: Issuer, prefix: str) -> Iterator[Relay]:
    """A relay that nobody has made ask its issuer yet: it may be asked once in 10 s."""
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
    """With a token of the first key, which stays."""
    with Honest(relay, token("first"), f"{prefix}.") as client:
        yield client


def test_a_new_key_counts_within_seconds(relay: Relay, issuer: Issuer) -> None:
    """Its first token asks for it and is told to come back; nobody has to start the relay anew."""
    issuer.keys.append("second")
    answer = exchange(relay, upgrade("/ws", bearer(token("second"))))
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "unavailable", "1")
    eventually(lambda: status(relay, token("second")) == 101, "the new key counts")
    assert status(relay, token("first")) == 101
    assert issuer.fetches == 2


def test_unknown_keys_do_not_make_the_relay_fetch_each_time(relay: Relay, issuer: Issuer) -> None:
    """One fetch in 10 s, whatever strangers send; what they send is never good, nor an address."""
    began = time.monotonic()
    assert exchange(relay, upgrade("/ws", bearer(token("forged")))).status == 503
    eventually(lambda: issuer.fetches == 2, "the keys are fetched anew")
    eventually(lambda: status(relay, token("forged")) == 401, "the fetch is over")
    names = [f"forged-{number}" for number in range(20)]
    for kid in (*names, "../../etc/passwd", "' OR 1=1 --", issuer.url, "secret", "FIRST"):
        answer = exchange(relay, upgrade("/ws", bearer(token("first", kid))))
        assert (answer.status, answer.code) == (401, "unauthorized")
    inside = run(browser(relay, token=token("forged")))
    assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "unauthorized", 4401)
    # A known id does not make another's signature good; nor does a secret that stands in the set.
    assert status(relay, token("first", signed="other")) == 401
    assert status(relay, forge.token("HS256", claims(), kid="secret")) == 401
    assert issuer.fetches <= 2 + (time.monotonic() - began) / MIN_FETCH_INTERVAL


def test_while_the_issuer_is_away_its_last_keys_count(relay: Relay, issuer: Issuer) -> None:
    """It answers with an error, then with a set of others' keys in a broken form: nobody is locked out."""
    issuer.status = 500
    assert status(relay, token("second")) == 503
    eventually(lambda: issuer.fetches >= 2, "the issuer was asked, in vain")
    assert status(relay, token("first")) == 101
    # Tries go on by themselves; what comes then is no key set either.
    issuer.broken, issuer.status = True, 200
    eventually(lambda: issuer.fetches >= 3, "it was asked once more")
    assert status(relay, token("first")) == 101
    relay.until_logged("the previous keys stay in use")


def test_a_renewal_with_a_key_that_is_not_there_yet(relay: Relay) -> None:
    """It is answered with ``error`` and ``retry``, and the session goes on with the token that it has."""

    async def check() -> None:
        async with follow(relay.ws_url, token=token("first")) as feed:
            await feed.say(type="auth", token=token("not yet"))
            await feed.say(type="ping", id=1)
            told = await feed.one(Error)
            assert (told.code, told.retry, told.ref) == ("unavailable", True, "auth")
            await feed.one(Pong)

    run(check())


def test_without_keys_clients_are_told_to_come_back(nats: NatsServer, prefix: str) -> None:
    """503 and 4503 with ``retry``, to a good token and to a forged one; then both get what they deserve."""
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
