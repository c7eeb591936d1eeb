"""Every way to authenticate to a real NATS server, and the errors for wrong credentials, which show no
secret.
"""

import asyncio
import logging
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
import trustme
from tickertape.contracts.events import SystemLog
from tickertape.producers.sdk.errors import PublishError
from tickertape.producers.sdk.logging_handler import TickertapeHandler
from tickertape.producers.sdk.publisher import Publisher
from tickertape.producers.sdk.sync_publisher import SyncPublisher
from tickertape.relay.settings import ServeSettings

from tests.support.clients.feed_client import follow, line
from tests.support.clients.feed_client import run as run_feed
from tests.support.nkeys import ACCOUNT, OPERATOR, new_seed, signed
from tests.support.programs.relay_process import PATIENCE, Relay, command, environment, eventually, run
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.nats import connection
from tickertape.nats.credentials import Access, AccessError
from tickertape.nats.settings import NatsSettings

PASSWORD = "s3cret-of-this-test"
WRONG = "not-the-password-either"
EVENT = '{"message":"hello"}'
Ended: TypeAlias = subprocess.CompletedProcess[str]


class Authority:
    """A certificate authority, with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._ca = trustme.CA()
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        """Issue a certificate; return its files."""
        issued = self._ca.issue_cert(*identities)
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return cert, key

    def tls(self, *more: str, host: str = "127.0.0.1") -> str:
        """Return the ``tls`` block of a server."""
        cert, key = self.issue("server", host)
        files = [f'cert_file: "{cert}"', f'key_file: "{key}"', f'ca_file: "{self.ca}"']
        return "tls { " + "\n".join([*files, *more]) + " }"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Create the authority of the server's certificate."""
    return Authority(tmp_path / "authority")


@contextmanager
def serving(folder: Path, *config: str) -> Iterator[NatsServer]:
    """Run a server with additional configuration."""
    with NatsServer(folder / "nats", config="\n".join(config)) as server:
        yield server


def published(url: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``tickertape publish``."""
    return run("publish", "log.info.x", EVENT, "--nats-url", url, "--deadline", "10", *options, **env)


def together(
    *commands: Callable[[], subprocess.CompletedProcess[str]],
) -> list[subprocess.CompletedProcess[str]]:
    """Run commands in parallel, because rejected ones mostly wait."""
    with ThreadPoolExecutor(len(commands)) as pool:
        return [one.result() for one in [pool.submit(command) for command in commands]]


def assert_taken(server: NatsServer, *options: str, **env: str) -> None:
    """Check that streams are created and an event is published with these options."""
    made = run("streams", "apply", "--nats-url", server.url, *options, **env)
    assert (made.returncode, made.stderr) == (0, ""), made.stdout + made.stderr
    done = published(server.url, *options, **env)
    assert (done.returncode, done.stdout) == (0, "log.info.x seq 1\n"), done.stderr


def assert_rejected(server: NatsServer, expected: str, *options: str, **env: str) -> None:
    """Check that every command that connects once prints the same line and exits with 1."""
    url = server.url
    for done in together(
        partial(published, url, *options, **env),
        partial(run, "check", "--nats-url", url, *options, **env),
        partial(run, "streams", "show", "--nats-url", url, *options, **env),
        partial(run, "ship", "--status", "--nats-url", url, *options, **env),
    ):
        # Findings of 'check' are on standard output, like all its results.
        output = [text for text in (done.stdout + done.stderr).splitlines() if "NATS at" in text]
        assert done.returncode == 1
        assert len(output) == 1, output
        assert f"NATS at {url} {expected}" in output[0]
        assert "Traceback" not in done.stderr


# --- credentials


def test_user_and_password(tmp_path: Path) -> None:
    """A password is accepted from an option, the environment and a file, which is read again for each
    connection.
    """
    users = 'authorization { user: app, password: "%s" }'
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    with serving(tmp_path, users % PASSWORD) as server:
        assert_taken(server, "--nats-user", "app", "--nats-password-file", str(file))
        for env in ({"TICKERTAPE_NATS_PASSWORD": PASSWORD}, {"TICKERTAPE_NATS_PASSWORD_FILE": str(file)}):
            assert published(server.url, TICKERTAPE_NATS_USER="app", **env).returncode == 0
        assert published(server.url, "--nats-user", "app", "--nats-password", PASSWORD).returncode == 0

        async def rotate() -> None:
            async with Publisher(server.url, access=Access(user="app", password_file=file)) as publisher:
                await publisher.publish(line("before"))
                server.stop()
                server.config = users % "another"
                file.write_text("another")
                server.start()
                await publisher.publish(line("after"))

        asyncio.run(rotate())


def test_a_wrong_password_is_one_line_and_never_shown(tmp_path: Path) -> None:
    """Commands exit with 1 after one line, and no output contains the wrong or the correct password."""
    with serving(tmp_path, f'authorization {{ user: app, password: "{PASSWORD}" }}') as server:
        credentials = ("--nats-user", "app", "--nats-password", WRONG)
        assert_rejected(
            server,
            "rejected the credentials: Authorization Violation; check the user and password",
            *credentials,
        )
        assert_rejected(server, "requires credentials: Authorization Violation; set --nats-creds")
        url = server.url.replace("nats://", f"nats://app:{WRONG}@")
        for done in together(
            partial(published, url),
            partial(run, "check", "--nats-url", url),
            partial(published, server.url, *credentials),
        ):
            assert done.returncode == 1
            assert WRONG not in done.stdout + done.stderr
            assert "rejected the credentials" in done.stdout + done.stderr


def test_the_relay_retries_while_nats_rejects_it(tmp_path: Path) -> None:
    """A rejected relay is not ready, logs why once, and continues when the password in its file is
    corrected.
    """
    file = tmp_path / "password"
    file.write_text(WRONG)
    with serving(tmp_path, f'authorization {{ user: app, password: "{PASSWORD}" }}') as server:
        options = ("--nats-user", "app", "--nats-password-file", str(file))
        relay = Relay(server.url, *options)
        try:
            relay.start(ready=False)
            relay.until_logged("rejected the credentials, retrying: Authorization Violation; check the user")
            assert "ready\n" not in relay.lines
            file.write_text(PASSWORD)
            relay.until_ready()
            received = "".join(relay.log + relay.lines)
            assert received.count("rejected the credentials") == 1
            assert WRONG not in received
            assert PASSWORD not in received
        finally:
            relay.close()


def test_an_outage_and_a_later_rejection_are_both_logged(tmp_path: Path) -> None:
    """An outage and the rejection after it are both logged, each once."""
    received: list[connection.ConnectFailure] = []

    async def check(server: NatsServer) -> None:
        async with Publisher(
            server.url, access=Access(user="app", password=PASSWORD), on_down=received.append
        ) as publisher:
            await publisher.connected()
            server.stop()
            server.config = "authorization { user: app, password: other }"
            server.start()
            async with asyncio.timeout(PATIENCE):
                while len(received) < 2:
                    await asyncio.sleep(0.02)
                while server.log.count("authentication error") < 4:  # a few more retries
                    await asyncio.sleep(0.02)
            await publisher.close(0.0)

    with serving(tmp_path, f'authorization {{ user: app, password: "{PASSWORD}" }}') as server:
        asyncio.run(check(server))
    assert [failure.kind for failure in received] == [
        connection.ConnectFailureKind.UNREACHABLE,
        connection.ConnectFailureKind.AUTH,
    ]


def test_a_rejection_is_reported_to_a_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A rejection is in the error of a publish, and logged if there is no callback, without the password."""
    access = Access(user="app", password=WRONG)

    def refusals() -> int:
        return sum("rejected the credentials" in record.message for record in caplog.records)

    async def check(url: str) -> None:
        async with Publisher(url, access=access, deadline=0.5) as publisher:
            async with asyncio.timeout(PATIENCE):
                while not caplog.records:
                    await asyncio.sleep(0.02)
            with pytest.raises(PublishError) as caught:
                await publisher.publish(line("in vain"))
        assert "NATS at nats://" in str(caught.value)
        assert "rejected the credentials: Authorization Violation; check the user" in str(caught.value)

    with serving(tmp_path, f'authorization {{ user: app, password: "{PASSWORD}" }}') as server:
        asyncio.run(check(server.url))
        assert [record.message.count("rejected the credentials") for record in caplog.records] == [1]
        handler = TickertapeHandler(
            server.url, "app", access={"user": "app", "password": WRONG}, flush_timeout=0.5
        )
        handler.handle(logging.LogRecord("x", logging.INFO, "x.py", 1, "in vain", (), None))
        eventually(lambda: refusals() == 2, "the handler has told of it")
        handler.flush()
        handler.close()
    assert refusals() == 2
    assert WRONG not in caplog.text


def test_a_connection_that_is_revoked_is_tried_again(tmp_path: Path) -> None:
    """A connection that ends because its user was removed is retried until the user is back."""
    right = f'authorization {{ user: app, password: "{PASSWORD}" }}'
    with serving(tmp_path, right) as server:

        def reload(config: str) -> None:
            path = server.folder / "nats-server.conf"
            path.write_text(path.read_text().replace(server.config, config))
            server.config = config
            server.reload()

        async def check() -> None:
            async with Publisher(server.url, access=Access(user="app", password=PASSWORD)) as publisher:
                client = await publisher.connected()
                reload("authorization { user: app, password: other }")
                async with asyncio.timeout(PATIENCE):
                    while publisher.online:
                        await asyncio.sleep(0.02)
                    reload(right)
                    while not publisher.online:
                        await asyncio.sleep(0.02)
                assert not client.is_closed

        asyncio.run(check())


def test_an_error_that_ends_the_connection_leads_to_another() -> None:
    """A connection whose credentials expire is retried, because their file may be updated."""
    welcome = b'INFO {"server_id":"x","version":"2.15.1","headers":true,"max_payload":1048576}\r\n'
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        number = connections
        writer.write(welcome)
        while text := await reader.readline():
            if text == b"PING\r\n":
                writer.write(b"PONG\r\n")
                if number == 1:
                    await asyncio.sleep(0.05)  # until the client reads on its own
                    writer.write(b"-ERR 'User Authentication Expired'\r\n")
                    break
        writer.close()

    async def check() -> None:
        received: list[str] = []
        back = asyncio.Event()

        async def up() -> None:
            received.append("up")
            if connections == 2:
                back.set()

        async def down(failure: connection.ConnectFailure) -> None:
            received.append(failure.kind.value)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = await connection.connect(url, name="t", on_up=up, on_down=down)
        await asyncio.wait_for(back.wait(), PATIENCE)
        assert client.is_connected
        assert received == ["up", "unreachable", "up"]
        await client.close()
        server.close()

    asyncio.run(check())


def test_an_nkey(tmp_path: Path) -> None:
    """An nkey seed authenticates without being sent, and another seed is rejected."""
    seed, public = new_seed()
    file, other = tmp_path / "seed.nk", tmp_path / "other.nk"
    file.write_text(f"{seed}\n")
    other.write_text(new_seed()[0])
    with serving(tmp_path, f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as server:
        assert_taken(server, "--nats-nkey-file", str(file))
        assert_rejected(
            server, "rejected the credentials: Authorization Violation", "--nats-nkey-file", str(other)
        )


def test_a_token(tmp_path: Path) -> None:
    """A token is accepted as an option and from a file."""
    file = tmp_path / "token"
    file.write_text(PASSWORD)
    with serving(tmp_path, f'authorization {{ token: "{PASSWORD}" }}') as server:
        assert_taken(server, "--nats-token-file", str(file))
        assert published(server.url, TICKERTAPE_NATS_TOKEN=PASSWORD).returncode == 0
        assert_rejected(server, "rejected the credentials", "--nats-token", WRONG)


def test_a_creds_file(tmp_path: Path) -> None:
    """A creds file with operator, account and user, as ``nsc`` creates it, is accepted."""
    operator, account = new_seed(OPERATOR), new_seed(ACCOUNT)
    operator_key, account_key = operator[1], account[1]
    user, user_key = new_seed()
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    plain = {**unlimited, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "wildcards": True}
    limits = {**plain, "mem_storage": 1 << 26, "disk_storage": 1 << 32, "streams": -1, "consumer": -1}
    operator_jwt = signed(
        operator, {"name": "o", "sub": operator_key, "nats": {"type": "operator", "version": 2}}
    )
    account_jwt = signed(
        operator,
        {"name": "a", "sub": account_key, "nats": {"type": "account", "version": 2, "limits": limits}},
    )
    user_jwt = signed(
        account, {"name": "u", "sub": user_key, "nats": {"type": "user", "version": 2, **unlimited}}
    )
    creds = tmp_path / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user}\n------END USER NKEY SEED------\n"
    )
    _, system_key = new_seed(ACCOUNT)
    system_jwt = signed(
        operator,
        {"name": "SYS", "sub": system_key, "nats": {"type": "account", "version": 2, "limits": plain}},
    )
    preload = f"resolver_preload: {{ {account_key}: {account_jwt}, {system_key}: {system_jwt} }}"
    resolver = f"system_account: {system_key}\nresolver: MEMORY\n{preload}"
    with serving(tmp_path, f"operator: {operator_jwt}", resolver) as server:
        assert_taken(server, "--nats-creds", str(creds))
        creds.write_text(creds.read_text().replace(user, new_seed()[0]))
        assert_rejected(server, "rejected the credentials", "--nats-creds", str(creds))


# --- TLS


def test_tls_with_an_authority_of_our_own(tmp_path: Path, authority: Authority) -> None:
    """Every program connects with the CA file; without it, or with another, nothing is sent."""
    other = Authority(tmp_path / "other")
    with serving(
        tmp_path, authority.tls(), f'authorization {{ user: app, password: "{PASSWORD}" }}'
    ) as server:
        given = ("--nats-ca", str(authority.ca), "--nats-user", "app", "--nats-password", PASSWORD)
        assert_taken(server, *given)
        wrong = "failed the TLS handshake: the server certificate is not trusted"
        assert_rejected(server, wrong)
        assert_rejected(server, wrong, "--nats-ca", str(other.ca))
        assert "Authorization" not in server.log

        async def feed(relay: Relay) -> None:
            access = Access(ca=authority.ca, user="app", password=PASSWORD)
            async with follow(relay.ws_url) as client, Publisher(server.url, access=access) as publisher:
                await publisher.publish(line("over TLS"))
                assert await client.texts(1) == ["over TLS"]

        with Relay(server.url, *given) as relay:
            run_feed(feed(relay))
        with SyncPublisher(server.url, access=Access(ca=authority.ca, user="app", password=PASSWORD)) as sync:
            assert sync.publish(SystemLog(level="INFO", message="m", source="x")).seq == 3


def test_the_name_in_the_certificate_counts(tmp_path: Path, authority: Authority) -> None:
    """A certificate of the right authority for another host is rejected."""
    with serving(tmp_path, authority.tls(host="nats.example")) as server:
        assert_rejected(
            server,
            "failed the TLS handshake: the server certificate is not trusted",
            "--nats-ca",
            str(authority.ca),
        )


def test_a_client_certificate(tmp_path: Path, authority: Authority) -> None:
    """A server that requires client certificates accepts ours, and rejects none and one of another
    authority.
    """
    cert, key = authority.issue("client", "relay@tickertape")
    other_cert, other_key = Authority(tmp_path / "other").issue("client", "relay@tickertape")
    ca = ("--nats-ca", str(authority.ca))
    with serving(tmp_path, authority.tls("verify: true")) as server:
        assert_taken(server, *ca, "--nats-cert", str(cert), "--nats-key", str(key))
        assert_rejected(
            server,
            "failed the TLS handshake: the server requires a client certificate; set --nats-cert",
            *ca,
        )
        given = (*ca, "--nats-cert", str(other_cert), "--nats-key", str(other_key))
        assert_rejected(server, "failed the TLS handshake: ", *given)


@pytest.mark.parametrize("options", [("--nats-ca",), ()], ids=["a CA is given", "tls://"])
def test_credentials_do_not_travel_in_the_clear(
    tmp_path: Path, authority: Authority, options: tuple[str, ...]
) -> None:
    """A server without TLS does not receive the password of a program that requires TLS."""
    listening: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","headers":true,"max_payload":1048576}\r\n')
        while data := await reader.read(4096):
            listening.append(data)
        writer.close()

    async def check() -> str:
        server = await asyncio.start_server(pretend, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = f"{'nats' if options else 'tls'}://127.0.0.1:{port}"
        ca = [*options, str(authority.ca)] if options else []
        child = await asyncio.create_subprocess_exec(
            *command("check", "--nats-url", url, *ca, "--nats-user", "app", "--nats-password", PASSWORD),
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(child.communicate(), PATIENCE)
        assert child.returncode == 1
        server.close()
        return output.decode()

    assert "failed the TLS handshake: the server does not offer TLS; " in asyncio.run(check())
    assert listening == []


def test_tls_that_is_only_offered_is_used(tmp_path: Path, authority: Authority) -> None:
    """A server with optional TLS gets TLS from a program with a CA."""
    with serving(tmp_path, authority.tls(), "allow_non_tls: true") as server:
        assert_taken(server, "--nats-ca", str(authority.ca))
        received: list[bool] = []

        async def check() -> None:
            client = await connection.connect_once(server.url, name="t", access=Access(ca=authority.ca))
            received.append(client._transport._io_writer.get_extra_info("ssl_object") is not None)  # type: ignore[union-attr]
            await connection.close(client)

        asyncio.run(check())
        assert received == [True]


# --- options


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("creds", "nkey-file"), "credentials are set as creds and as nkey_file; set only one"),
        (("user", "password", "password-file"), "password and password_file are both set"),
        (("user",), "user is set without password"),
        (("password",), "password is set without user"),
        (("cert",), "cert is set without key"),
        (("key",), "key is set without cert"),
        (("token", "creds"), "credentials are set as creds and as token"),
        (("token", "token-file"), "token and token_file are both set"),
    ],
)
@pytest.mark.parametrize("name", ["serve", "monitor", "ship", "publish", "streams", "check"])
def test_contradictions_are_one_line(
    name: str, options: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Contradicting options are a one-line usage error."""
    from tickertape.cli.main import main

    arguments = [text for option in options for text in (f"--nats-{option}", "s3cret")]
    assert main([name, *arguments]) == 2
    output = capsys.readouterr().err
    assert line in output
    assert output.count("\n") == 1
    assert "s3cret" not in output


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: Access(creds=path), "credentials file {} does not exist"),
        (lambda path: Access(nkey_file=path), "nkey file {} does not exist"),
        (lambda path: Access(user="x", password_file=path), "password file {} does not exist"),
        (lambda path: Access(ca=path), "CA file {} does not exist"),
        (lambda path: Access(cert=path, key=path), "certificate file {} does not exist"),
        (lambda path: Access(creds=path), "credentials file {} contains no USER NKEY SEED"),
        (lambda path: Access(nkey_file=path), "nkey file {} contains no user seed"),
        (lambda path: Access(ca=path), "CA file {} contains no certificate"),
        (lambda path: Access(cert=path, key=path), "certificate {} and key {} do not form a usable pair"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, make: Callable[[Path], Access], line: str
) -> None:
    """An unusable file is reported by its path before anything is sent, without its contents."""
    path = tmp_path / "file"
    if "does not exist" not in line:
        path.write_text("s3cret text that is none of these")
    with pytest.raises(AccessError) as caught:
        asyncio.run(connection.connect(f"nats://127.0.0.1:{free_port()}", name="t", access=make(path)))
    assert str(caught.value).startswith(line.format(path, path))
    assert "s3cret" not in str(caught.value) + repr(caught.value)


def test_nothing_shows_a_secret() -> None:
    """Settings, access, publisher and URL errors never show a secret."""
    url = f"nats://app:{PASSWORD}@127.0.0.1:1"
    for text in (
        repr(NatsSettings(nats_url=url)),
        str(ServeSettings(nats_url=url)),
        repr(NatsSettings(nats_user="x", nats_password=PASSWORD)),
        repr(NatsSettings(nats_token=PASSWORD)),
        repr(Access(user="x", password=PASSWORD)),
        repr(Access(token=PASSWORD)),
        repr(Publisher(url)),
        repr(Publisher(access=Access(token=PASSWORD))),
    ):
        assert PASSWORD not in text


@pytest.mark.parametrize(
    "url", ["nats://app:s3cret/x@h", "nats://app:s3cret,x@h", "app:s3cret@h", "nats://app:s3cret"]
)
def test_an_invalid_url_does_not_show_its_password(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A password with a slash or comma makes a URL invalid; the error shows no part of that password."""
    from tickertape.cli.main import main

    assert main(["check", "--nats-url", url]) == 2
    output = capsys.readouterr().err
    assert "is not a valid address" in output
    assert "s3cret" not in output
