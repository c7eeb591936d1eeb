"""``tickertape tail`` validates its options before it connects, and explains ports of another protocol."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.cli.main import main

OPTIONS = [
    (["--subjects", "log..x"], "subject"),
    (["--subjects", "log.>.x"], "subject"),
    (["--subjects", ""], "subject"),
    (["--level", "LOUD"], "level 'LOUD' is not one of DEBUG, INFO"),
    (["--where", "event.level = 1"], "where: unexpected character '=', at position 13"),
    (["--where", "x" * 3_000], "where: the condition has more than 2048 bytes"),
    (["--mode", "fast"], "mode 'fast' is not one of live, complete, latest"),
    (["--cursor", "yesterday"], "'yesterday' is not a cursor"),
    (["--since", "yesterday"], "since 'yesterday' is neither 'earliest', a duration such as 10m"),
    (["--since", "10"], "since '10' is neither"),
    (["--cursor", "aa-1", "--since", "10m"], "cursor and since are mutually exclusive"),
    (["--url", "ftp://{address}/ws"], "write it as ws://127.0.0.1:8080/ws"),
    (["--url", "ws://{address}/ws?subject=log.>"], "did you mean 'subjects'?"),
    (["--ca", "{folder}/ca.pem"], "use wss://"),
    (["--url", "wss://{address}/ws", "--ca", "{folder}/absent"], "--ca {folder}/absent cannot be read"),
    (["--url", "wss://{address}/ws", "--ca", "{folder}/garbage"], "--ca {folder}/garbage cannot be read"),
    (["--url", "wss://{address}/ws", "--cert", "{folder}/absent"], "--cert {folder}/absent cannot be used"),
    (["--url", "wss://{address}/ws", "--key", "{folder}/absent"], "key: set without --cert"),
    (["--token-file", "{folder}/absent"], "{folder}/absent cannot be read"),
    (["--token-file", "{folder}/garbage"], "contains no valid token"),
    (["--token", "garbage"], "TICKERTAPE_TOKEN contains no valid token"),
    (["--state-file", "{folder}/garbage"], "--state-file {folder}/garbage contains no cursor"),
    (["--state-file", "{folder}/absent/cursor"], "--state-file {folder}/absent/cursor cannot be written"),
    (["--state-file", "{folder}"], "--state-file {folder} cannot be read"),
]


@pytest.mark.parametrize(("arguments", "message"), OPTIONS, ids=lambda value: " ".join(value))
def test_an_invalid_option_is_reported_without_connecting(
    arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line names the option and what is valid, and no connection is opened."""
    (tmp_path / "garbage").write_text("garbage")
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {"folder": tmp_path, "address": "{}:{}".format(*server.getsockname())}
        url = [] if "--url" in arguments else ["--url", "ws://{address}/ws"]
        code = main(["tail", *(part.format(**names) for part in [*url, *arguments])])
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    output = capfd.readouterr().err
    assert code in (1, 2)
    assert message.format(**names) in output
    assert output.count("\n") == 1


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run servers of each protocol; return their addresses."""
    folder, authority = tmp_path_factory.mktemp("ports"), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    (folder / "key.pem").touch(0o600)
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    monitoring = free_port()
    tls = ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
    with (
        NatsServer(folder / "nats", config=f'http: "127.0.0.1:{monitoring}"') as server,
        Relay(server.url) as relay,
        Relay(server.url, *tls) as secure,
    ):
        yield {
            "nats": server.url.partition("//")[2],
            "monitoring": f"127.0.0.1:{monitoring}",
            "relay": relay.url.partition("//")[2],
            "ops": relay.ops_url.partition("//")[2],
            "secure": secure.url.partition("//")[2],
        }


@pytest.mark.parametrize(
    ("port", "scheme", "message"),
    [
        ("secure", "ws", "the port expects TLS; use --url wss://{address}/ws, with --ca"),
        ("secure", "wss", "is not trusted: unable to get local issuer certificate; set --ca"),
        ("relay", "wss", "the port does not use TLS; use --url ws://{address}/ws"),
        ("nats", "ws", "the port is that of a NATS server"),
        ("nats", "wss", "the port is that of a NATS server"),
        ("ops", "ws", "rejected: 404"),
        ("ops", "ws", "check that it is the main port of a relay, and that the path is /ws"),
        ("monitoring", "wss", "the port does not use TLS"),
    ],
)
def test_a_port_of_another_protocol_is_explained(
    ports: dict[str, str], port: str, scheme: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command ends with the URL to use."""
    address = ports[port]
    assert main(["tail", "--url", f"{scheme}://{address}/ws"]) == 1
    assert message.format(address=address) in capfd.readouterr().err
