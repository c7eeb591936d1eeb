"""``tickertape tail`` over plain HTTP, for networks that pass nothing else."""

import time
from pathlib import Path

import orjson
import pytest
import trustme

from tests.integration.cli.test_tail_token import (
    KEY,
    accepted_connections,
    publish_lines,
    rejected,
    tail,
    token,
    wait_until_following,
)
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

JWT = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": KEY}


@pytest.mark.parametrize("path", ["", "/", "/ws", "/stream"])
def test_it_resumes_without_loss(nats_server: NatsServer, path: str) -> None:
    """Over HTTP it prints every event once, although its relay is killed."""
    with Relay(nats_server.url) as relay, tail(relay.url + path, "--mode", "complete") as running:
        wait_until_following(relay, running)
        publish_lines(relay, "before")
        running.until(lambda: "before" in running.messages, "the line before")
        relay.kill()
        publish_lines(relay, "meanwhile")
        relay.start()
        publish_lines(relay, "after")
        running.until(lambda: "after" in running.messages, "the line after")
        sequences = [orjson.loads(text)["seq"] for text in running.out]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        running.wait_for_note("connection lost")


def test_a_renewed_file_continues_with_another_request(nats_server: NatsServer, tmp_path: Path) -> None:
    """A new token in the file takes effect immediately, without losing or repeating an event."""
    file = tmp_path / "token"
    with Relay(nats_server.url, "--auth", "jwt", **JWT) as relay:
        file.write_text(token(59))
        with tail(relay.url, "--token-file", str(file)) as running:
            running.wait_for_note(f"write a new one to {file}")
            wait_until_following(relay, running)
            before = accepted_connections(relay)
            file.write_text(token())
            running.until(lambda: accepted_connections(relay) != before, "another request")
            publish_lines(relay, f"line {time.monotonic_ns()}", "the last")
            running.until(lambda: "the last" in running.messages, "the last line")
            sequences = [orjson.loads(text)["seq"] for text in running.out]
            assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        assert "requires a token" in rejected(relay.url)[0]
        assert "rejected the token" in rejected(relay.url, TICKERTAPE_TOKEN=token(key="x" * 40))[0]
        assert "the path is /stream" in rejected(f"{relay.url}/nowhere", TICKERTAPE_TOKEN=token())[0]


def test_https_with_a_private_certificate(nats_server: NatsServer, tmp_path: Path) -> None:
    """Over https it trusts ``--ca``; without it, or with http, the error says what to change."""
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(str(pem))
    certificate.private_key_pem.write_to_path(str(key))
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Relay(nats_server.url, "--tls-cert", str(pem), "--tls-key", str(key)) as relay:
        with tail(relay.url, "--ca", str(tmp_path / "ca.pem")) as running:
            wait_until_following(relay, running)
            assert running.process.poll() is None
        assert "set --ca" in rejected(relay.url)[-1]
        plain = relay.url.replace("https", "http")
        assert f"use --url https{plain.removeprefix('http')}" in rejected(plain)[-1]
