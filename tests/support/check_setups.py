"""Broken set-ups for ``tickertape check``, each with a real server, file or port.

The keys are the first column of the table in docs/troubleshooting.md.
"""

import asyncio
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import urlopen

import trustme
from tickertape.contracts.events import Status, SystemHealth

from tests.support.clients.forge import NOW, claims, public_pem, token
from tests.support.nkeys import new_seed, signed
from tests.support.programs.relay_process import eventually
from tests.support.servers.nats_server import NatsServer, free_port
from tests.support.servers.small_disk import small_disk
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.credentials import Access
from tickertape.nats.direct_get import get_last_message
from tickertape.nats.jetstream_api import request
from tickertape.nats.streams import apply, stream_configs

PASSWORD: Final = "hunter-2-of-set-ups"

ALTERED: Final[dict[str, dict[str, Any]]] = {
    "subjects": {"subjects": ["gateway.>", "system.>"]},
    "allow_atomic": {"allow_atomic": False},
    "allow_direct": {"allow_direct": False},
    "discard": {"discard": "new"},
    "duplicate_window": {"duplicate_window": 10_000_000_000},
    "max_bytes": {"max_bytes": 1 << 20},
    "max_age": {"max_age": 3600 * 10**9},
}
"""Changes of EVENTS by hand, each in an account of its own."""

IN_MEMORY: Final = {"storage": "memory", "max_bytes": 1 << 20}
"""Settings of an EVENTS that was created by hand; NATS cannot change its storage afterwards."""

DENIED: Final = {
    "no-consumer": ("publish", "$JS.API.CONSUMER.CREATE.EVENTS"),
    "no-rejected": ("publish", "rejected.>"),
    "no-flow": ("publish", "$JS.FC.>"),
    "no-info": ("publish", "$JS.API.STREAM.INFO.>"),
    "no-inbox": ("subscribe", "_INBOX.>"),
    "no-create": ("publish", "$JS.API.STREAM.CREATE.>"),
}
"""Users without one permission."""


def _users() -> str:
    denied = [
        f'{{ user: {name}, password: "{PASSWORD}", permissions: {{ {action}: {{ deny: ["{subject}"] }} }} }}'
        for name, (action, subject) in DENIED.items()
    ]
    waiting = denied.pop()  # the only one whose account has no streams
    accounts = [f"MAIN {{ jetstream: enabled, users: [ {_user('all')}, {', '.join(denied)} ] }}"]
    accounts += [
        f"{name.upper()} {{ jetstream: enabled, users: [ {_user(name)} ] }}"
        for name in (*ALTERED, "storage", "empty", "rejecting")
    ]
    accounts.append(f"PLAIN {{ users: [ {_user('plain')} ] }}")
    accounts.append(f"WAITING {{ jetstream: enabled, users: [ {waiting} ] }}")
    accounts.append(f"SMALL {{ jetstream: {{ max_file: 1G }}, users: [ {_user('small')} ] }}")
    return "accounts { " + "\n".join(accounts) + " }"


def _user(name: str) -> str:
    return f'{{ user: {name}, password: "{PASSWORD}" }}'


@dataclass
class Desk:
    """Place for set-ups.

    Attributes:
        folder: folder for the files of one set-up.
        server: running server, with the users above and streams in the account of ``all``.
        stack: closed after the check.
        clock: clock that the check uses.
        wrapper: command line that runs the check in another process; empty for this one.
    """

    folder: Path
    server: NatsServer
    stack: ExitStack = field(default_factory=ExitStack)
    clock: Callable[[], float] = time.time
    wrapper: tuple[str, ...] = ()

    def user(self, name: str) -> list[str]:
        """Return the options of a user of the server."""
        return [
            "--nats-url",
            self.server.url,
            "--nats-user",
            name,
            "--nats-password-file",
            str(self.secret()),
        ]

    def secret(self, text: str = PASSWORD) -> Path:
        """Return a file with a secret."""
        return self.file(f"secret-{len(text)}", text)

    def file(self, name: str, content: str | bytes, mode: int = 0o600) -> Path:
        """Write a file."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def run_server(self, config: str = "", **options: Any) -> NatsServer:
        """Run another server."""
        return self.stack.enter_context(NatsServer(self.folder / "nats", config=config, **options))

    def listen(self) -> int:
        """Bind a port until the end of the check; return it."""
        sock = self.stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        return int(sock.getsockname()[1])


def run_shared_server(folder: Path, stack: ExitStack) -> NatsServer:
    """Start the server of ``Desk`` with its streams."""
    server = stack.enter_context(NatsServer(folder, config=_users()))

    async def prepare() -> None:
        for user in ("all", *ALTERED, "storage", "rejecting"):
            access = Access(user=user, password=PASSWORD)
            client = await connection.connect_once(server.url, name="test", access=access)
            if user == "storage":
                (events,) = (config for config in stream_configs(Names()) if config["name"] == "EVENTS")
                reply = await request(client, "STREAM.CREATE.EVENTS", {**events, **IN_MEMORY})
            else:
                await apply(client, Names())
                events = (await request(client, "STREAM.INFO.EVENTS"))["config"]
                reply = await request(client, "STREAM.UPDATE.EVENTS", {**events, **ALTERED.get(user, {})})
            assert "error" not in reply, reply
            if user == "rejecting":
                await client.jetstream().publish("rejected.log.info.x", b"nonsense")
            await connection.close(client)

    asyncio.run(prepare())
    return server


# NATS.


def _unreachable(desk: Desk) -> list[str]:
    return ["--nats-url", f"nats://127.0.0.1:{free_port()}"]


def _http_port(desk: Desk) -> list[str]:
    port = free_port()
    server = desk.run_server(f'http: "127.0.0.1:{port}"', jetstream=False)
    assert server.running
    return ["--nats-url", f"nats://127.0.0.1:{port}"]


def _websocket_port(desk: Desk) -> list[str]:
    port, authority = free_port(), _authority(desk)
    cert, key = authority.issue("127.0.0.1")
    desk.run_server(
        f'websocket {{ listen: "127.0.0.1:{port}", tls {{ cert_file: "{cert}", key_file: "{key}" }} }}',
        jetstream=False,
    )
    return ["--nats-url", f"nats://127.0.0.1:{port}"]


def _wrong_password(desk: Desk) -> list[str]:
    secret = desk.secret("not-the-password")
    return ["--nats-url", desk.server.url, "--nats-user", "all", "--nats-password-file", str(secret)]


def _no_credentials(desk: Desk) -> list[str]:
    return ["--nats-url", desk.server.url]


def _missing_password_file(desk: Desk) -> list[str]:
    options = ["--nats-user", "all", "--nats-password-file", str(desk.folder / "absent")]
    return ["--nats-url", desk.server.url, *options]


def _expired_credentials(desk: Desk) -> list[str]:
    seed, public = new_seed()
    expired = int(time.time()) - 3600
    jwt = signed(new_seed(), {"name": "u", "sub": public, "exp": expired, "nats": {"type": "user"}})
    creds = (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return ["--nats-url", desk.server.url, "--nats-creds", str(desk.file("user.creds", creds))]


class _Authority:
    def __init__(self, folder: Path, name: str) -> None:
        self._ca, self._folder, self._name = trustme.CA(), folder, name
        self.ca = folder / f"{name}.ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, *names: str, days: float = 30.0) -> tuple[Path, Path]:
        until = datetime.now(UTC) + timedelta(days=days)
        issued = self._ca.issue_cert(*names, not_before=until - timedelta(days=30), not_after=until)
        cert, key = self._folder / f"{self._name}.pem", self._folder / f"{self._name}.key"
        cert.write_bytes(issued.cert_chain_pems[0].bytes())
        key.touch(0o600)
        issued.private_key_pem.write_to_path(str(key))
        return cert, key


def _authority(desk: Desk, name: str = "authority") -> _Authority:
    return _Authority(desk.folder, name)


def _tls_server(
    desk: Desk, *, name: str = "127.0.0.1", days: float = 30.0, more: str = ""
) -> tuple[str, _Authority]:
    authority = _authority(desk)
    cert, key = authority.issue(name, days=days)
    files = f'cert_file: "{cert}", key_file: "{key}", ca_file: "{authority.ca}"'
    return desk.run_server(f"tls {{ {files} {more} }}").url, authority


def _unknown_ca(desk: Desk) -> list[str]:
    return ["--nats-url", _tls_server(desk)[0]]


def _wrong_ca(desk: Desk) -> list[str]:
    return ["--nats-url", _tls_server(desk)[0], "--nats-ca", str(_authority(desk, "other").ca)]


def _expired_server_certificate(desk: Desk) -> list[str]:
    url, authority = _tls_server(desk, days=-1.0)
    return ["--nats-url", url, "--nats-ca", str(authority.ca)]


def _server_of_another_name(desk: Desk) -> list[str]:
    url, authority = _tls_server(desk, name="nats.example.com")
    return ["--nats-url", url, "--nats-ca", str(authority.ca)]


def _client_certificate_required(desk: Desk) -> list[str]:
    url, authority = _tls_server(desk, more=", verify: true")
    return ["--nats-url", url, "--nats-ca", str(authority.ca)]


def _no_tls(desk: Desk) -> list[str]:
    return ["--nats-url", desk.server.url, "--nats-ca", str(_authority(desk).ca)]


def _not_a_ca(desk: Desk) -> list[str]:
    return ["--nats-url", desk.server.url, "--nats-ca", str(desk.file("ca.pem", "nothing"))]


def _jetstream_off(desk: Desk) -> list[str]:
    return ["--nats-url", desk.run_server(jetstream=False).url]


def _two_servers(desk: Desk) -> list[str]:
    other = desk.run_server(jetstream=False)
    options = desk.user("all")
    return ["--nats-url", f"{desk.server.url},{other.url}", *options[2:]]


def _old_server(desk: Desk) -> list[str]:
    """Serve the server of the desk with another version in its INFO."""
    listener = desk.stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
    target = desk.server.port

    def copy(source: socket.socket, sink: socket.socket, first: bool) -> None:
        try:
            while data := source.recv(65_536):
                sink.sendall(re.sub(rb'"version":"2\.\d\d\.', b'"version":"2.11.', data) if first else data)
        except OSError:
            pass
        sink.close()

    def serve() -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", target))
        threading.Thread(target=copy, args=(server, client, True), daemon=True).start()
        copy(client, server, False)

    threading.Thread(target=serve, daemon=True).start()
    options = desk.user("all")
    return ["--nats-url", f"nats://127.0.0.1:{listener.getsockname()[1]}", *options[2:]]


def _skewed_clock(desk: Desk) -> list[str]:
    desk.clock = lambda: time.time() + 90.0
    return desk.user("all")


def _as(user: str, desk: Desk) -> list[str]:
    return desk.user(user)


def _full_store(desk: Desk) -> list[str]:
    disk = desk.stack.enter_context(small_disk(desk.folder / "nats" / "data", "48m"))
    port = free_port()
    server = desk.run_server(f'http: "127.0.0.1:{port}"')

    async def fill() -> None:
        client = await connection.connect_once(server.url, name="test")
        await apply(client, Names())
        disk.fill()
        for _ in range(20):
            await client.publish("log.info.x", bytes(100_000))
        await connection.close(client)

    asyncio.run(fill())
    eventually(lambda: _status(f"http://127.0.0.1:{port}/healthz") != 200, "NATS is not healthy")
    return ["--nats-url", server.url, "--nats-monitoring-url", f"http://127.0.0.1:{port}"]


def _status(url: str) -> int:
    try:
        with urlopen(url) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


def _no_monitoring(desk: Desk) -> list[str]:
    return [*desk.user("all"), "--nats-monitoring-url", f"http://127.0.0.1:{free_port()}"]


# This machine.


def _main_port_in_use(desk: Desk) -> list[str]:
    return ["--port", str(desk.listen())]


def _one_port_twice(desk: Desk) -> list[str]:
    port = str(free_port())
    return ["--port", port, "--ops-port", port]


def _privileged_port(desk: Desk) -> list[str]:
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        assert setpriv is not None
        lost = "-net_bind_service"
        desk.wrapper = (setpriv, "--bounding-set", lost, "--inh-caps", lost)
    return ["--port", "81"]


def _foreign_address(desk: Desk) -> list[str]:
    return ["--host", "192.0.2.1", "--insecure"]


def _embedded_port_of_another(desk: Desk) -> list[str]:
    return ["--nats-port", str(desk.server.port), "--data-dir", str(desk.folder)]


def _too_few_descriptors(desk: Desk) -> list[str]:
    return ["--max-connections", "1000000000"]


def _data_dir(desk: Desk) -> list[str]:
    return ["--nats-port", "0", "--data-dir", str(desk.file("file", "") / "below")]


def _small_disk(desk: Desk) -> list[str]:
    return ["--nats-port", "0", "--data-dir", str(desk.folder), "--streams-max-bytes", "EVENTS=900TiB"]


def _certificate(
    desk: Desk, days: float = 30.0, names: tuple[str, ...] = ("relay.example.com",)
) -> list[str]:
    cert, key = _authority(desk).issue(*names, days=days)
    return ["--tls-cert", str(cert), "--tls-key", str(key)]


def _foreign_key(desk: Desk) -> list[str]:
    cert, _ = _authority(desk, "a").issue("relay.example.com")
    _, key = _authority(desk, "b").issue("relay.example.com")
    return ["--tls-cert", str(cert), "--tls-key", str(key)]


# Clients.


def _jwt(key: Path) -> list[str]:
    return ["--auth", "jwt", "--jwt-algorithm", "EdDSA", "--jwt-key-file", str(key)]


def _key(desk: Desk, mode: int = 0o600) -> Path:
    return desk.file("public.pem", public_pem("EdDSA"), mode)


def _key_file_missing(desk: Desk) -> list[str]:
    return _jwt(desk.folder / "absent.pem")


def _key_file_invalid(desk: Desk) -> list[str]:
    return _jwt(desk.file("public.pem", "nothing"))


def _key_file_writable(desk: Desk) -> list[str]:
    return _jwt(_key(desk, 0o666))


def _secret_readable(desk: Desk) -> list[str]:
    # In a folder that others may enter.
    (desk.folder / "shared").mkdir()
    (desk.folder / "shared").chmod(0o755)
    key = desk.file("shared/secret", public_pem("HS256"), 0o644)
    return ["--auth", "jwt", "--jwt-algorithm", "HS256", "--jwt-key-file", str(key)]


def _jwks_unreachable(desk: Desk) -> list[str]:
    url = f"http://127.0.0.1:{free_port()}/keys"
    return ["--auth", "jwt", "--jwt-algorithm", "EdDSA", "--jwt-jwks-url", url]


def _revocations_invalid(desk: Desk) -> list[str]:
    return [*_jwt(_key(desk)), "--jwt-revoked-file", str(desk.file("revoked", b"\xff\xfe"))]


def _revocations_missing(desk: Desk) -> list[str]:
    return [*_jwt(_key(desk)), "--jwt-revoked-file", str(desk.folder / "absent")]


def _expired_token(desk: Desk) -> list[str]:
    values = claims(exp=int(time.time()) - 3600)
    assert values["exp"] != NOW
    return [*_jwt(_key(desk)), "--token-file", str(desk.file("alice.jwt", token("EdDSA", values)))]


def _origin(desk: Desk) -> list[str]:
    return ["--origin", "https://app.example.com", "--allowed-origins", "https://example.com"]


# Settings.


def _public_without_auth(desk: Desk) -> list[str]:
    return ["--host", "0.0.0.0"]


def _public_without_tls(desk: Desk) -> list[str]:
    return [*_jwt(_key(desk)), "--host", "0.0.0.0"]


def _all_proxies(desk: Desk) -> list[str]:
    return ["--trusted-proxies", "0.0.0.0/0"]


def _password_in_url(desk: Desk) -> list[str]:
    return ["--nats-url", desk.server.url.replace("//", f"//all:{PASSWORD}@")]


def _gateways(desk: Desk) -> list[str]:
    text = "gateways:\n  - {id: a, type: ctp, probes: [{kind: tpc, address: '127.0.0.1:1'}]}\n"
    return [str(desk.file("gateways.yaml", text))]


# Shippers.


def _ship(desk: Desk, path: Path | str, host: str = "web1") -> list[str]:
    options = [
        "--shipper-paths",
        str(path),
        "--shipper-host",
        host,
        "--shipper-state-dir",
        str(desk.folder / "state"),
    ]
    return [*options, *desk.user("all")]


def _nothing_matches(desk: Desk) -> list[str]:
    return _ship(desk, desk.folder / "*.log")


def _unreadable_log(desk: Desk) -> list[str]:
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        assert setpriv is not None
        lost = "-dac_override,-dac_read_search"
        desk.wrapper = (setpriv, "--bounding-set", lost, "--inh-caps", lost)
    return _ship(desk, desk.file("app.log", "one\n", 0o000))


def _folder_of_logs(desk: Desk) -> list[str]:
    return _ship(desk, desk.folder)


def _pipe(desk: Desk) -> list[str]:
    os.mkfifo(desk.folder / "app.log")
    return _ship(desk, desk.folder / "*.log")


def _device(desk: Desk) -> list[str]:
    return _ship(desk, os.devnull)


def _link_elsewhere(desk: Desk) -> list[str]:
    (desk.folder / "logs").mkdir()
    (desk.folder / "logs" / "app.log").symlink_to(desk.file("secret", "one\n"))
    return _ship(desk, desk.folder / "logs" / "*.log")


def _two_shippers(desk: Desk, *, conflicts: int) -> list[str]:
    """Publish the health of a shipper that has no state here."""
    host = f"web{conflicts}"
    event = SystemHealth(
        component="shipper", instance=host, status=Status.HEALTHY, checks={"conflicts": conflicts}
    )

    async def publish() -> None:
        access = Access(user="all", password=PASSWORD)
        client = await connection.connect_once(desk.server.url, name="test", access=access)
        await client.jetstream().publish(event.subject, event.encode())
        # EVENTS stores it first; HEALTH sources from EVENTS.
        while await get_last_message(client, "HEALTH", event.subject) is None:
            await asyncio.sleep(0.02)
        await connection.close(client)

    asyncio.run(publish())
    return _ship(desk, desk.file("app.log", "one\n"), host)


SETUPS: Final[dict[str, Callable[[Desk], list[str]]]] = {
    "NATS is not running": _unreachable,
    "the address is a monitoring port or a relay": _http_port,
    "the address is a WebSocket port with TLS": _websocket_port,
    "the password is wrong": _wrong_password,
    "no credentials are set": _no_credentials,
    "the password file does not exist": _missing_password_file,
    "the credentials have expired": _expired_credentials,
    "the CA of the server is unknown": _unknown_ca,
    "the CA is another one": _wrong_ca,
    "the CA file contains no certificate": _not_a_ca,
    "the server's certificate has expired": _expired_server_certificate,
    "the server's certificate is for another name": _server_of_another_name,
    "the server requires a client certificate": _client_certificate_required,
    "the server has no TLS": _no_tls,
    "two addresses are not one cluster": _two_servers,
    "nats-server is too old": _old_server,
    "JetStream is off": _jetstream_off,
    "the account has no JetStream": partial(_as, "plain"),
    "the account's storage is too small": partial(_as, "small"),
    "the disk of NATS is full": _full_store,
    "the monitoring port of NATS does not answer": _no_monitoring,
    "the user may not create consumers": partial(_as, "no-consumer"),
    "the user may not store rejected events": partial(_as, "no-rejected"),
    "the user may not send flow control": partial(_as, "no-flow"),
    "the user may not see the streams": partial(_as, "no-info"),
    "the user may not receive replies": partial(_as, "no-inbox"),
    "the streams do not exist": partial(_as, "empty"),
    "the user may not create missing streams": partial(_as, "no-create"),
    "EVENTS lacks a subject": partial(_as, "subjects"),
    "EVENTS has no atomic batches": partial(_as, "allow_atomic"),
    "EVENTS has no direct reads": partial(_as, "allow_direct"),
    "EVENTS rejects events when it is full": partial(_as, "discard"),
    "EVENTS is in memory": partial(_as, "storage"),
    "EVENTS has a short duplicate window": partial(_as, "duplicate_window"),
    "EVENTS is small": partial(_as, "max_bytes"),
    "EVENTS expires early": partial(_as, "max_age"),
    "a producer violates the contract": partial(_as, "rejecting"),
    "the clocks differ": _skewed_clock,
    "the port is in use": _main_port_in_use,
    "both ports are the same": _one_port_twice,
    "the port is privileged": _privileged_port,
    "the host is another machine's": _foreign_address,
    "another NATS server has the embedded one's port": _embedded_port_of_another,
    "the descriptor limit is too low": _too_few_descriptors,
    "the data directory cannot be used": _data_dir,
    "the disk is too small": _small_disk,
    "the key does not match the certificate": _foreign_key,
    "the certificate expires in three days": partial(_certificate, days=3.0),
    "the certificate has expired": partial(_certificate, days=-1.0),
    "the key file does not exist": _key_file_missing,
    "the key file is not a key": _key_file_invalid,
    "the key file can be replaced by others": _key_file_writable,
    "the secret can be read by others": _secret_readable,
    "the JWKS is unreachable": _jwks_unreachable,
    "the revocation list does not exist": _revocations_missing,
    "the revocation list is not text": _revocations_invalid,
    "the token has expired": _expired_token,
    "the page's origin is not allowed": _origin,
    "everyone may connect": _public_without_auth,
    "tokens cross the network in the clear": _public_without_tls,
    "every host is a trusted proxy": _all_proxies,
    "the address contains the password": _password_in_url,
    "no file matches a shipper's path": _nothing_matches,
    "a log file is not readable": _unreadable_log,
    "a shipper's path is a folder": _folder_of_logs,
    "a log file is a pipe": _pipe,
    "a shipper's path is a device": _device,
    "a log file is a link to another folder": _link_elsewhere,
    "another shipper has the same host name": partial(_two_shippers, conflicts=0),
    "two shippers ship the same path under one host name": partial(_two_shippers, conflicts=3),
    "the monitor's file has an error": _gateways,
}
"""Set-ups by the first column of the table; each returns the options of the check."""
