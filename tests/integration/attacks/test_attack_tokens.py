"""Invalid tokens: forged, confused, expired, misplaced, missing."""

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.attacks.conftest import Deploy
from tests.support.clients import forge
from tests.support.clients.attacker import (
    Answer,
    bearer,
    browser,
    claims,
    count,
    exchange,
    get,
    until,
    upgrade,
)
from tests.support.clients.feed_client import run
from tests.support.clients.honest_client import Honest
from tests.support.programs.deployment import NOT_NGINX, Deployment
from tests.support.programs.relay_process import eventually

AUDIENCE = "https://relay.example.com"
ISSUER = "https://issuer.example.com"


def good(**more: object) -> dict[str, object]:
    """Return claims that this module's relay accepts."""
    return claims(**{"iss": ISSUER, "aud": AUDIENCE, "tickertape": {"subjects": ["log.>"]}, **more})


@pytest.fixture(scope="module")
def relay(deploy: Deploy) -> Iterator[Deployment]:
    """Run a relay that accepts RS256 of one issuer, for one audience."""
    with deploy(
        auth="jwt",
        jwt_algorithm="RS256",
        jwt_key=forge.public_pem("RS256").decode(),
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def honest_token() -> str:
    """Return a valid token."""
    return forge.token("RS256", good())


def unsigned(name: str) -> str:
    """Return a token without a signature."""
    header = json.dumps({"typ": "JWT", "alg": name}).encode()
    return f"{forge.encoded(header)}.{forge.encoded(json.dumps(good()).encode())}."


def with_public_key_as_secret() -> str:
    """Return an HS256 token with the RSA public key as the secret, which anyone with that key could
    create.
    """
    header = json.dumps({"typ": "JWT", "alg": "HS256"}).encode()
    # PyJWT itself refuses to sign with such a secret; an attacker's library does not.
    signed = f"{forge.encoded(header)}.{forge.encoded(json.dumps(good()).encode())}"
    digest = hmac.digest(forge.public_pem("RS256"), signed.encode(), hashlib.sha256)
    return f"{signed}.{forge.encoded(digest)}"


def swapped() -> str:
    """Return a valid token whose claims were replaced."""
    header, _, signature = forge.token("RS256", good()).split(".")
    better = forge.encoded(json.dumps(good(tickertape={"subjects": [">"]})).encode())
    return f"{header}.{better}.{signature}"


now = int(time.time())
FORGED: dict[str, tuple[Callable[[], str], str]] = {
    "none": (lambda: unsigned("none"), "algorithm"),
    "None": (lambda: unsigned("None"), "algorithm"),
    "nOnE": (lambda: unsigned("nOnE"), "algorithm"),
    "no algorithm": (lambda: unsigned(""), "algorithm"),
    "public key as secret": (with_public_key_as_secret, "algorithm"),
    "HS256": (lambda: forge.token("HS256", good()), "algorithm"),
    "claims to be RS256": (lambda: forge.token("HS256", good(), alg="RS256"), "signature"),
    "another's key": (lambda: forge.token("RS256", good(), name="other"), "signature"),
    "swapped claims": (swapped, "signature"),
    "a key of its own": (
        lambda: forge.token("RS256", good(), name="other", jwk=forge.jwk("RS256", "other")),
        "signature",
    ),
    "a key at its address": (
        lambda: forge.token("RS256", good(), name="other", jku="http://127.0.0.1:9/keys"),
        "signature",
    ),
    "expired": (lambda: forge.token("RS256", good(exp=now - 1)), "expired"),
    "early": (lambda: forge.token("RS256", good(nbf=now + 3600)), "not_yet_valid"),
    "another audience": (lambda: forge.token("RS256", good(aud="https://other.example.com")), "audience"),
    "no audience": (lambda: forge.token("RS256", good(aud=None)), "audience"),
    "another issuer": (lambda: forge.token("RS256", good(iss=f"{ISSUER}.evil.com")), "issuer"),
    "no issuer": (lambda: forge.token("RS256", good(iss=None)), "issuer"),
    "no end": (lambda: forge.token("RS256", good(exp=None)), "claim"),
    "ends never": (lambda: forge.token("RS256", json.dumps(good(exp=float("inf"))).encode()), "malformed"),
    "ends twice": (
        lambda: forge.token("RS256", json.dumps(good())[:-1].encode() + b',"exp":99999999999}'),
        "malformed",
    ),
    "misspelt grant": (
        lambda: forge.token("RS256", good(tickertape={"subjects": [">"], "denied": ["log.>"]})),
        "claim",
    ),
    "no token at all": (lambda: "x", "malformed"),
    "critical extension": (lambda: forge.token("RS256", good(), crit=["exp"]), "malformed"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_token_that_is_not_good_opens_nothing(relay: Deployment, name: str) -> None:
    """An invalid token is 401 with a challenge for programs, ``bye`` and 4401 for browsers, and counted by
    reason.
    """
    make, reason = FORGED[name]
    token = make()
    before = count(relay, "auth_failures_total", reason=reason)
    for request in (upgrade("/ws", bearer(token)), get("/events", bearer(token))):
        answer = exchange(relay, request)
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert not any(part in answer.message for part in token.split(".") if len(part) > 1)
    inside = run(browser(relay, token=token))
    assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "unauthorized", 4401)
    later = run(browser(relay, {"type": "auth", "token": token}))
    assert (later.kinds, later.error, later.close) == (["error", "bye"], "unauthorized", 4401)
    assert count(relay, "auth_failures_total", reason=reason) == before + 4


@pytest.mark.parametrize("grant", [None, {"subjects": []}], ids=["no claim", "no subjects"])
def test_a_token_that_grants_nothing_opens_nothing(relay: Deployment, grant: object) -> None:
    """A token without any grant is 403 or 4403, whatever is requested."""
    token = forge.token("RS256", good(tickertape=grant))
    for request in (upgrade("/ws?subjects=log.>", bearer(token)), get("/events", bearer(token))):
        answer = exchange(relay, request)
        assert (answer.status, answer.code) == (403, "forbidden")
    for inside in (
        run(browser(relay, token=token)),
        run(browser(relay, {"type": "auth", "token": token}, query="?subjects=log.error.x")),
    ):
        assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "forbidden", 4403)


@pytest.mark.parametrize("key", ["token", "access_token", "jwt", "authorization", "%74oken"])
def test_a_token_in_the_address_is_rejected(relay: Deployment, key: str, honest_token: str) -> None:
    """A token in the URL is rejected, since URLs end up in logs, and is not repeated in the response."""
    query = f"?{key}={honest_token}"
    for request in (upgrade(f"/ws{query}"), get(f"/events{query}"), upgrade(f"/ws{query}", bearer("x.y.z"))):
        answer = exchange(relay, request)
        assert (answer.status, answer.code) == (400, "bad_query")
        assert honest_token not in answer.message
    inside = run(browser(relay, query=query))
    assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "bad_query", 4400)
    assert honest_token not in json.dumps(inside.messages)


def test_an_unknown_key_of_the_address_is_no_token(relay: Deployment, honest_token: str) -> None:
    """An unknown key id in a token is rejected like any other."""
    for key in ("Token", "auth", "bearer"):
        query = f"?{key}={honest_token}"
        answer = exchange(relay, get(f"/events{query}"))
        assert (answer.status, answer.code) == (400, "bad_query")
        inside = run(browser(relay, query=query))
        assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "bad_query", 4400)
        assert honest_token[:10] not in f"{answer.message}{inside.messages}"


@pytest.mark.deployments(*NOT_NGINX)
@pytest.mark.parametrize("order", [1, -1])
def test_two_tokens_are_none(relay: Deployment, order: int, honest_token: str) -> None:
    """Two tokens in headers or subprotocols are rejected: a proxy could read the other one."""
    both = [bearer(honest_token), bearer("x.y.z")][::order]
    for request in (upgrade("/ws", *both), get("/events", *both)):
        answer = exchange(relay, request)
        assert (answer.status, answer.code) == (401, "unauthorized")
    names = [f"bearer.{honest_token}", "bearer.x.y.z"][::order]
    header = f"Sec-WebSocket-Protocol: {', '.join(names)}"
    assert exchange(relay, upgrade("/ws", header)).status == 401


def test_the_header_counts_before_the_subprotocol(relay: Deployment, honest_token: str) -> None:
    """A valid token in a subprotocol does not help an invalid header, which takes precedence."""
    protocols = f"Sec-WebSocket-Protocol: tickertape.v1, bearer.{honest_token}"
    data = exchange(relay, upgrade("/ws", bearer("x.y.z"), f"Sec-WebSocket-Protocol: bearer.{honest_token}"))
    assert (data.status, data.code) == (401, "unauthorized")
    # With tickertape.v1 it counts as a browser, and is rejected after the handshake.
    inside = until(relay, upgrade("/ws", bearer("x.y.z"), protocols), b"\x88")
    assert re.findall(rb'"code":("unauthorized"|4401)', inside) == [b'"unauthorized"', b"4401"]


def test_a_token_as_the_only_subprotocol_is_no_handshake(relay: Deployment, honest_token: str) -> None:
    """A token as the only subprotocol is 400: the server would have to send it back as the selected one."""
    answer = exchange(relay, upgrade("/ws", f"Sec-WebSocket-Protocol: bearer.{honest_token}"))
    assert (answer.status, answer.code) == (400, "bad_message")
    assert honest_token not in answer.message
    assert "sec-websocket-protocol" not in answer.headers


@pytest.mark.parametrize("scheme", ["Basic YWxpY2U6c2VjcmV0", "Bearer", "Bearer a b", "Digest x"])
def test_history_without_a_token_is_rejected(relay: Deployment, scheme: str) -> None:
    """History without a token is 401 with a challenge; other schemes are ignored."""
    for headers in ([], [f"Authorization: {scheme}"]):
        answer = exchange(relay, get("/events", *headers))
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("message", [{"type": "subscribe"}, {"type": "ping", "id": 1}])
def test_a_message_before_the_token_is_rejected(relay: Deployment, message: dict[str, object]) -> None:
    """A message before the token is 4401 without any other message, even if a token follows."""
    inside = run(browser(relay, message, {"type": "auth", "token": forge.token("RS256", good())}))
    assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "unauthorized", 4401)


def test_clients_without_a_token_receive_nothing_and_are_disconnected(
    relay: Deployment, honest: Honest
) -> None:
    """Clients without a token receive nothing and are disconnected after 5 s, browsers and programs alike."""

    async def check() -> None:
        started = time.monotonic()
        before = count(relay, "rejected_total", limit="auth_time")
        waiting = asyncio.gather(*(browser(relay) for _ in range(5)), browser(relay, protocols=()))
        await asyncio.to_thread(eventually, lambda: count(relay, "connections") == 7, "all are connected")
        await asyncio.to_thread(honest.noticed_nothing)
        ends = await waiting
        assert time.monotonic() - started > 4.5
        for end in ends:
            assert (end.kinds, end.error, end.close) == (["error", "bye"], "timeout", 4408)
        assert count(relay, "rejected_total", limit="auth_time") == before + 6

    run(check())


def test_rejections_of_forgeries_are_indistinguishable(relay: Deployment) -> None:
    """Responses to forgeries do not reveal whether a subject or a key id exists."""

    def output(**more: object) -> Answer:
        return exchange(relay, upgrade("/ws", bearer(forge.token("RS256", good(**more), name="other"))))

    assert output(sub="alice").body == output(sub="nobody").body == output(jti="x").body
