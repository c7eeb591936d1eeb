"""A relay and a real OpenID Connect issuer: discovery, tokens with a grant, rotated keys, and outages."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import jwt
import pytest
from tickertape.contracts.messages import Bye, Welcome

from tests.support.browser.browser_desk import missing
from tests.support.clients import forge
from tests.support.clients.feed_client import follow, run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.worker_desk import ready
from tests.support.servers.nats_server import NatsServer, free_port

APP: Final = Path(__file__).with_name("issuer")
RESOURCE: Final = "https://tickertape.example.com"
CLAIM: Final = "https://example.com/tickertape"


class Issuer:
    """An issuer on a port that it keeps; its keys are chosen at each start."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self, *names: str) -> None:
        """Start it with keys, the first of which signs."""
        keys = [_private_jwk(name) for name in names]
        self._process = subprocess.Popen(
            ["node", "issuer.mjs"], cwd=APP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdin as settings:
            json.dump({"port": self.port, "keys": keys, "claim": CLAIM}, settings)
        assert self._process.stdout.readline() == "ready\n"

    def stop(self) -> None:
        """Stop it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def token(self, resource: str = RESOURCE) -> str:
        """Return a token for a resource, by the client credentials flow."""
        form = {"grant_type": "client_credentials", "resource": resource}
        form |= {"client_id": "desk", "client_secret": "desk-secret"}
        with urlopen(Request(f"{self.url}/token", urlencode(form).encode()), timeout=PATIENCE) as response:
            return str(json.load(response)["access_token"])


def _private_jwk(name: str) -> dict[str, Any]:
    key = jwt.algorithms.ECAlgorithm.to_jwk(forge.private_key("ES256", name), as_dict=True)
    return {**key, "kid": name, "alg": "ES256", "use": "sig"}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Return an issuer that is not started."""
    if shutil.which("node") is None:
        missing("needs Node.js 20 or newer; 'apt-get install nodejs npm' brings it")
    if not (APP / "node_modules" / ".ready").exists():
        missing("needs the packages of the issuer in tests/e2e/issuer; 'make test' brings them")
    found = Issuer()
    yield found
    found.stop()


def options(issuer: Issuer) -> tuple[str, ...]:
    """Return the options of a relay that accepts tokens of the issuer."""
    return (
        *("--auth", "jwt", "--jwt-algorithm", "ES256", "--oidc-issuer", issuer.url),
        *("--jwt-audience", RESOURCE, "--jwt-grant-claim", CLAIM),
    )


def outcome(relay: Relay, token: str) -> tuple[int, str] | list[str]:
    """Return the granted subjects of a token, or the status and message of the rejection."""

    async def check() -> list[str]:
        async with follow(relay.ws_url, token=token, live=False) as client:
            message = await client.read()
            while not isinstance(message, Welcome | Bye):
                message = await client.read()
            return message.grant.subjects if isinstance(message, Welcome) else [str(message.code)]

    request = Request(f"{relay.url}/events?limit=1", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(request, timeout=PATIENCE):
            return run(check())
    except HTTPError as error:
        with error:
            return error.code, json.load(error)["message"]


def test_a_relay_follows_an_issuer(issuer: Issuer, nats_server: NatsServer) -> None:
    """A relay waits for its issuer, grants what the claim says, follows its keys, and outlives an outage."""
    early = forge.token("ES256", forge.claims(iss=issuer.url, aud=RESOURCE), name="one")
    with Relay(nats_server.url, *options(issuer)) as relay:
        # Until the issuer has answered once, tokens can be neither accepted nor rejected.
        assert outcome(relay, early)[0] == 503
        assert not ready(relay)
        with pytest.raises(HTTPError, match="503"):
            urlopen(f"{relay.url}/health", timeout=PATIENCE)
        assert any("cannot fetch the metadata of the issuer" in line for line in relay.log)
        issuer.start("one")
        eventually(lambda: ready(relay), "the keys are fetched")
        first = issuer.token()
        assert outcome(relay, first) == ["log.>"]

        # Another resource of the same issuer, and another issuer with the same keys.
        code, message = outcome(relay, issuer.token("https://other.example.com"))
        assert (code, "aud does not contain" in str(message)) == (401, True)
        twin = Issuer()
        try:
            twin.start("one")
            code, message = outcome(relay, twin.token())
            assert (code, "iss does not match" in str(message)) == (401, True)
        finally:
            twin.stop()

        # A new key is fetched when a token names it; a withdrawn one at the next refresh.
        issuer.stop()
        issuer.start("two", "one")
        second = issuer.token()
        assert outcome(relay, second)[0] in (401, 503)
        eventually(lambda: outcome(relay, second) == ["log.>"], "the new key is fetched")
        assert outcome(relay, first) == ["log.>"]
        issuer.stop()
        issuer.start("two")
        reloaded = _reload(relay)
        assert f"reload: keys from {issuer.url}" in reloaded
        assert outcome(relay, first)[0] in (401, 503)
        assert outcome(relay, second) == ["log.>"]

        issuer.stop()
        assert "the previous content stays in force" in _reload(relay)
        assert outcome(relay, second) == ["log.>"]
        assert ready(relay)


def _reload(relay: Relay) -> str:
    """Send SIGHUP, and return the log line about it."""
    before = sum("reload: " in line for line in relay.log)
    relay.signal(signal.SIGHUP)
    eventually(lambda: sum("reload: " in line for line in relay.log) > before, "the signal is handled")
    return [line for line in relay.log if "reload: " in line][-1]
