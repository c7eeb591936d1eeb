"""Files of 0.1.0: gateways, keys, tokens and revocation lists."""

from pathlib import Path

import orjson
import pytest
from tickertape.contracts.messages import Welcome
from tickertape.producers.monitor.config.loader import load

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import follow, run
from tests.support.compatibility.fixture_0_1_0 import FIXTURE
from tests.support.programs.relay_process import Relay
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer

TOKENS = FIXTURE / "tokens"


@pytest.mark.parametrize("name", ["gateways.yaml", "gateways.example.yaml"])
def test_gateways_are_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a monitor means what it meant: every kind of probe, sessions, recovery."""
    monkeypatch.setenv("LME_PROBE_PASSWORD", "secret")
    config = load(FIXTURE / name)
    assert len(config.gateways) == (6 if name == "gateways.yaml" else 5)


@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA", "RS256", "ES256"])
def test_tokens_are_verified(algorithm: str) -> None:
    """Tokens that 0.1.0 minted are valid with its keys."""
    token = (TOKENS / f"{algorithm}.alice.token").read_text()
    options = ["--jwt-algorithm", algorithm, "--jwt-key-file", str(TOKENS / f"{algorithm}.key")]
    options += ["--jwt-issuer", "desk", "--jwt-audience", "tickertape"]
    done = run_command("token", "inspect", token, *options)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_relay_admits_the_same_clients(nats_server: NatsServer, tmp_path: Path) -> None:
    """A relay with the keys and the revocation list of 0.1.0 grants what its tokens say, and no more."""
    options = ["--auth", "jwt", "--jwt-algorithm", "EdDSA", "--jwt-key-file", str(TOKENS / "EdDSA.key")]
    options += ["--jwt-issuer", "desk", "--jwt-audience", "tickertape"]
    options += ["--jwt-revoked-file", str(TOKENS / "revoked.txt")]

    async def connect(relay: Relay) -> None:
        async with follow(relay.ws_url, token=(TOKENS / "EdDSA.alice.token").read_text()) as feed:
            (welcome,) = only(feed.messages, Welcome)
            grant = orjson.loads(welcome.grant.model_dump_json())
            assert grant["subjects"] == ["gateway.>", "log.>"] or grant["subjects"] == ["log.>", "gateway.>"]
            assert (grant["deny"], grant["level"]) == (["log.debug.>"], "INFO")
        token = (TOKENS / "EdDSA.revoked.token").read_text()
        async with follow(relay.ws_url, token=token, live=False) as feed:
            assert await feed.closed() == 4401

    with Relay(nats_server.url, *options) as relay:
        run(connect(relay))
