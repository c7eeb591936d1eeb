"""Secrets of the operator and of clients appear in no output, page or response, whatever fails."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.clients import forge
from tests.support.clients.attacker import bearer, browser, claims, count, exchange, get, upgrade
from tests.support.clients.feed_client import follow, run
from tests.support.programs.relay_process import Relay
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer

PASSWORD = "hunter2-of-nats"
PRIVATE = forge.private_pem(forge.private_key("RS256")).decode()


@pytest.fixture(scope="module")
def relay(nats: NatsServer, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run a relay with a password in the NATS URL, and its secret in a file."""
    file = tmp_path_factory.mktemp("key") / "secret"
    file.write_bytes(forge.SECRET)
    env = {
        "TICKERTAPE_JWT_ALGORITHM": "HS256",
        "TICKERTAPE_JWT_KEY_FILE": str(file),
        "TICKERTAPE_SUBJECT_PREFIX": prefix,
    }
    url = nats.url.replace("nats://", f"nats://relay:{PASSWORD}@")
    with Relay(url, "--auth", "jwt", **env) as running:
        # The printed URL has no password; tests do not need it.
        assert PASSWORD not in running.nats_url
        yield running


@pytest.fixture(scope="module")
def honest_token() -> str:
    """Return a valid token."""
    return forge.token("HS256", claims(sub="honest"))


def test_a_token_is_never_repeated(relay: Relay) -> None:
    """No response and no log line contains a token, wherever it was sent and whether or not it is valid."""
    good, bad = forge.token("HS256", claims()), forge.token("HS256", claims(), name="other")
    for token in (good, bad):
        for request in (
            get(f"/{token}"),
            get(f"/events?token={token}"),
            get(f"/events?subjects={token}&token={token}"),
            get(f"/assets/{token}"),
            get("/", f"Origin: https://{token[:200]}.example.com"),
            get("/events", f"Authorization: {token}"),
            get("/events", f"Authorization: Bearer {token} {token}"),
            get("/events", f"Authorization: Basic {token}"),
            get("/events?cursor=x", f"Cookie: token={token}"),
            upgrade(f"/{token}", bearer(token)),
            upgrade("/ws?level=LOUD", bearer(token)),
            upgrade("/ws", f"Sec-WebSocket-Protocol: {token}"),
            upgrade("/ws", f"Sec-WebSocket-Protocol: bearer.{token}, bearer.{token}"),
            upgrade("/ws", bearer(token), "Sec-WebSocket-Key: short"),
        ):
            answer = exchange(relay, request)
            assert answer.status >= 400 or request.startswith(b"GET /events?cursor"), request
            shown = answer.body.decode() + json.dumps(answer.headers)
            # A response may quote a path or a query only, truncated.
            assert token.rpartition(".")[2] not in shown, request
        messages: list[str | dict[str, object]] = [
            {"type": token},
            {"type": "subscribe", "level": token, "token": token},
            {"type": "auth", "token": [token]},
            {"type": "auth", "token": token + "x"},
            token,
        ]
        for message in messages:
            inside = run(browser(relay, message, token=good if token is good else None))
            assert inside.close in (4400, 4401, 4409)
            assert token.rpartition(".")[2] not in json.dumps(inside.messages)


def test_what_happened_is_counted(relay: Relay) -> None:
    """Rejections are counted by reason, not by client."""
    names = {
        "signature": forge.token("HS256", claims(), name="other"),
        "malformed": "x.y.z",
        "expired": forge.token("HS256", claims(exp=1)),
        "algorithm": forge.token("ES256", claims()),
    }
    before = {reason: count(relay, "auth_failures_total", reason=reason) for reason in names}
    for token in names.values():
        assert exchange(relay, upgrade("/ws", bearer(token))).status == 401
    assert {reason: count(relay, "auth_failures_total", reason=reason) - 1 for reason in names} == before


def test_a_subject_and_an_id_are_no_labels(relay: Relay) -> None:
    """No metric and no status contains a token subject, since others may read them."""

    async def check() -> None:
        token = forge.token("HS256", claims(sub="subject-hunter2", jti="id-hunter2"))
        async with follow(relay.ws_url, token=token) as feed:
            assert "hunter2" not in "".join(message.model_dump_json() for message in feed.messages)

    run(check())  # the pages are searched after each test


MISTAKES: list[dict[str, str]] = [
    {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": "hunter2"},
    {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": forge.public_pem("RS256").decode()},
    {"TICKERTAPE_JWT_ALGORITHM": "RS256", "TICKERTAPE_JWT_KEY": "hunter2" * 10},
    {"TICKERTAPE_JWT_ALGORITHM": "RS256", "TICKERTAPE_JWT_KEY": PRIVATE},
    {"TICKERTAPE_JWT_ALGORITHM": "hunter2", "TICKERTAPE_JWT_KEY": "hunter2" * 10},
    {"TICKERTAPE_JWT_ALGORITHM": "RS256", "TICKERTAPE_JWT_JWKS_URL": "https://bob:hunter2@example.com/"},
    {"TICKERTAPE_JWT_KEY": "hunter2" * 10, "TICKERTAPE_JWT_KEY_FILE": "/nowhere"},
    {"TICKERTAPE_NATS_URL": "nats://bob:hunter2@127.0.0.1:x", "TICKERTAPE_AUTH": "none"},
]


def test_a_mistake_in_the_settings_shows_no_secret() -> None:
    """An invalid setting is a one-line error that does not contain its value."""

    def rejected(settings: dict[str, str]) -> tuple[int, list[str]]:
        env = {"TICKERTAPE_AUTH": "jwt", **settings}
        done = run_command("serve", "--port", "0", "--ops-port", "0", **env)
        output = (done.stdout + done.stderr).splitlines()
        return done.returncode, [row for row in output if " INFO " not in row]

    with ThreadPoolExecutor(2) as pool:
        for code, output in pool.map(rejected, MISTAKES):
            assert code in (1, 2)
            (line,) = output
            assert line.startswith("tickertape serve")
            assert not any(secret in line for secret in ("hunter2", "BEGIN", "bob"))


def test_a_key_in_a_file_is_not_shown(tmp_path: Path) -> None:
    """The error for an invalid key file does not contain a part of the key."""
    file = tmp_path / "key.pem"
    body = base64.b64encode(b"hunter2 " * 40).decode()
    file.write_text(f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    env = {"TICKERTAPE_JWT_ALGORITHM": "ES256", "TICKERTAPE_JWT_KEY_FILE": str(file)}
    for arguments in (
        ["serve", "--auth", "jwt"],
        ["token", "mint", "--subjects", ">"],
        ["token", "inspect", "a.b.c"],
    ):
        done = run_command(*arguments, **env)
        output = done.stdout + done.stderr
        assert done.returncode != 0
        assert body[:20] not in output
        assert "Traceback" not in output
