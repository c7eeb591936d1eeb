"""Client certificates at real relays: granted, rejected, revoked, expired, and together with tokens."""

import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.x509.oid import ExtendedKeyUsageOID
from tickertape.contracts.messages import Bye, Subscribed, Welcome
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.clients import forge
from tests.support.clients.feed_client import FeedClient, run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually, expect_rejection
from tests.support.servers.client_authority import ClientAuthority, fingerprint, replace
from tests.support.servers.nats_server import NatsServer

SERVER = trustme.CA()
RULES = [
    {"name": "uri:spiffe://desk/viewer/*", "grant": {"subjects": ["log.>"], "level": "WARN"}},
    {"name": "cn:crowd", "grant": {"subjects": [">"], "connections": 1}},
    {"name": "cn:desk", "grant": {"subjects": ["gateway.>", "log.>"], "deny": ["log.debug.>"]}},
]


class Scene:
    """Files of a relay that knows client certificates."""

    def __init__(self, folder: Path) -> None:
        self.authority = ClientAuthority(folder / "clients")
        self.stranger = ClientAuthority(folder / "strangers")  # the same name, another key
        self.grants, self.revoked = folder / "grants.json", folder / "revoked"
        self.grants.write_text(json.dumps(RULES))
        self.revoked.touch()
        leaf = SERVER.issue_cert("127.0.0.1")
        leaf.private_key_pem.write_to_path(folder / "key.pem")
        leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        self.options = [
            *("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")),
            *("--tls-client-ca", str(self.authority.ca), "--tls-client-grants", str(self.grants)),
            *("--jwt-revoked-file", str(self.revoked)),
        ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Write the files."""
    return Scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run a NATS server."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def strict(nats: NatsServer, scene: Scene) -> Iterator[Relay]:
    """Run two workers that require a certificate."""
    with Relay(nats.url, "--auth", "certificate", "--workers", "2", *scene.options) as relay:
        yield relay


@pytest.fixture(scope="module")
def mixed(nats: NatsServer, scene: Scene) -> Iterator[Relay]:
    """Run a relay that accepts tokens and certificates, and trusts a proxy at 127.0.0.9."""
    env = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": forge.public_pem("HS256").decode()}
    proxies = ("--trusted-proxies", "127.0.0.9")
    with Relay(nats.url, "--auth", "jwt", *proxies, *scene.options, **env) as relay:
        yield relay


def context(certificate: Path | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return the TLS context of a client with a certificate."""
    found = ssl.create_default_context()
    SERVER.configure_trust(found)
    if certificate is not None:
        found.load_cert_chain(certificate)
    if version is not None:
        found.maximum_version = version
    return found


def token(*subjects: str) -> str:
    """Return a token for subjects."""
    return forge.token("HS256", forge.claims(exp=time.time() + 600, tickertape={"subjects": subjects}))


@asynccontextmanager
async def feed(
    relay: Relay, certificate: Path | None, *, bearer: str = "", source: str = "127.0.0.1", **tls: Any
) -> AsyncIterator[FeedClient]:
    """Connect to the feed."""
    async with connect(
        relay.ws_url,
        ssl=context(certificate, **tls),
        proxy=None,
        subprotocols=["tickertape.v1"],  # type: ignore[list-item]
        additional_headers={"Authorization": f"Bearer {bearer}"} if bearer else {},
        local_addr=(source, 0),
        open_timeout=PATIENCE,
        close_timeout=2.0,
    ) as socket:
        yield FeedClient(socket)


def outcome(relay: Relay, certificate: Path | None, **options: Any) -> tuple[int, str] | list[str]:
    """Return the subjects that a client receives, or the close code and the reason."""

    async def check() -> tuple[int, str] | list[str]:
        async with feed(relay, certificate, **options) as client:
            message = await client.read()
            while not isinstance(message, Bye | Subscribed):
                message = await client.read()
            return message.subjects if isinstance(message, Subscribed) else (message.code, message.reason)

    return run(check())


def request(relay: Relay, certificate: Path | None, path: str = "/events", **headers: str) -> tuple[int, Any]:
    """Return status and body of an HTTP request."""
    link = HTTPSConnection(*relay.host_port, context=context(certificate), timeout=PATIENCE)
    try:
        link.request("GET", path, headers=headers)
        response = link.getresponse()
        return response.status, json.loads(response.read())
    finally:
        link.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_is_granted_what_its_rule_says(
    strict: Relay, scene: Scene, version: ssl.TLSVersion
) -> None:
    """A client with a certificate needs no token; its session expires with the certificate."""
    file = scene.authority.issue("uri:spiffe://desk/viewer/7", "cn:ignored", seconds=1_000)

    async def check() -> None:
        async with feed(strict, file, version=version) as client:
            welcome = await client.one(Welcome)
            assert (welcome.grant.subjects, welcome.grant.level) == (["log.>"], "WARN")
            assert welcome.expires_at is not None
            assert (await client.one(Subscribed)).subjects == ["log.>"]

    run(check())
    assert request(strict, file)[0] == 200
    assert request(strict, file, "/events?subjects=gateway.>")[0] == 403


@pytest.mark.parametrize("kind", ["none", "stranger", "expired", "server", "crl"])
def test_certificates_that_tls_rejects_do_not_reach_http(
    strict: Relay, mixed: Relay, scene: Scene, kind: str
) -> None:
    """Without a certificate, with one of another authority, expired, for servers or on the CRL, TLS fails."""
    issue = (scene.stranger if kind == "stranger" else scene.authority).issue
    file = None if kind == "none" else issue(
        "cn:desk",
        seconds=-60 if kind == "expired" else 600,
        usage=ExtendedKeyUsageOID.SERVER_AUTH if kind == "server" else ExtendedKeyUsageOID.CLIENT_AUTH,
    )  # fmt: skip
    if kind == "crl":
        assert file is not None
        good = scene.authority.issue("cn:desk")
        assert request(strict, file)[0] == 200
        before = _loads(strict), _loads(mixed)
        scene.authority.revoke(file)
        eventually(lambda: _loads(strict) == before[0] + 2, "the list is loaded by every worker")
        eventually(lambda: _loads(mixed) == before[1] + 1, "the list is loaded by the other relay")
        assert request(strict, good)[0] == 200
    for relay in (strict,) if file is None else (strict, mixed):
        for _ in range(4):  # both workers
            with pytest.raises((OSError, HTTPException)):
                request(relay, file)


def _loads(relay: Relay) -> int:
    return sum("loaded a new certificate from" in line for line in relay.log)


def _rejected(relay: Relay, file: Path) -> bool:
    try:
        return [request(relay, file)[0] for _ in range(4)] != [200] * 4
    except (OSError, HTTPException):
        return True


def test_a_certificate_without_a_rule_is_forbidden(strict: Relay, mixed: Relay, scene: Scene) -> None:
    """A certificate that no rule matches, such as a renamed one, gets 403 and 4403 with its names."""
    file = scene.authority.issue("cn:desk2", "uri:spiffe://desk/viewer/7/8")
    for relay in (strict, mixed):
        status, body = request(relay, file, Authorization=f"Bearer {token('log.>')}")
        assert status == 403
        assert "no rule matches the client certificate with uri:spiffe://desk/viewer/7/8, cn:desk2" in str(
            body
        )
        code, reason = outcome(relay, file)
        assert code == 4403
        assert "no rule matches" in str(reason)


def test_a_token_and_a_certificate_grant_what_both_grant(mixed: Relay, scene: Scene) -> None:
    """Either is enough; both together grant the intersection, also when a token comes later."""
    file = scene.authority.issue("cn:desk")
    assert outcome(mixed, None, bearer=token("log.>", "system.>")) == ["log.>", "system.>"]
    assert outcome(mixed, file) == ["gateway.>", "log.>"]
    assert outcome(mixed, file, bearer=token("log.>", "system.>")) == ["log.>"]
    assert outcome(mixed, file, bearer=token("system.>"))[0] == 4403
    assert request(mixed, None)[0] == 401
    assert request(mixed, None, Authorization=f"Bearer {token('log.>')}")[0] == 200
    assert request(mixed, file)[0] == 200
    assert (
        request(mixed, file, "/events?subjects=gateway.>", Authorization=f"Bearer {token('log.>')}")[0] == 403
    )

    async def renew() -> None:
        async with feed(mixed, file) as client:
            await client.one(Subscribed)
            await client.socket.send(json.dumps({"type": "auth", "token": token("log.>", "system.>")}))
            assert (await client.one(Subscribed)).subjects == ["log.>"]
            await client.socket.send(json.dumps({"type": "auth", "token": token(">")}))
            assert (await client.one(Subscribed)).subjects == ["gateway.>", "log.>"]

    run(renew())


def test_a_proxy_does_not_pass_its_certificate_on(mixed: Relay, scene: Scene) -> None:
    """The certificate of a trusted proxy, and headers about certificates, grant its clients nothing."""
    file = scene.authority.issue("cn:desk")
    headers = {"X-SSL-Client-Cert": "x", "X-SSL-Client-S-DN": "CN=desk", "X-SSL-Client-Verify": "SUCCESS"}
    assert request(mixed, None, **headers)[0] == 401
    link = HTTPSConnection(
        *mixed.host_port, context=context(file), timeout=PATIENCE, source_address=("127.0.0.9", 0)
    )
    link.request("GET", "/events")
    assert link.getresponse().status == 401
    link.close()
    assert outcome(mixed, file, source="127.0.0.9", bearer=token("system.>")) == ["system.>"]


def test_connections_are_counted_by_the_name_of_the_certificate(strict: Relay, scene: Scene) -> None:
    """The limit of a rule applies to all certificates with the name, on all workers."""

    async def check() -> None:
        async with feed(strict, scene.authority.issue("cn:crowd")) as client:
            await client.one(Subscribed)
            for _ in range(4):
                async with feed(strict, scene.authority.issue("cn:crowd")) as other:
                    assert (await other.one(Bye)).code == 4429

    run(check())


@pytest.mark.parametrize("means", ["fingerprint", "name", "rule"])
def test_a_session_ends_with_its_certificate(mixed: Relay, scene: Scene, means: str) -> None:
    """A session ends when its certificate is revoked or its rule changes; then there is no new one."""
    name = f"cn:desk-{means}"
    replace(scene.grants, json.dumps([*RULES, {"name": name, "grant": {"subjects": [">"]}}]).encode())
    file = scene.authority.issue(name)
    eventually(lambda: request(mixed, file)[0] == 200, "the new rule is loaded")

    async def check() -> None:
        async with feed(mixed, file) as client:
            await client.one(Subscribed)
            if means == "fingerprint":
                replace(scene.revoked, f"cert:{fingerprint(file)} # lost\n".encode())
            elif means == "name":
                replace(scene.revoked, f"sub:{name}\n".encode())
            else:
                replace(scene.grants, json.dumps(RULES).encode())
            bye = await client.one(Bye)
            assert (bye.code, bye.reason) == (4401, "the client certificate was revoked")

    run(check())
    assert request(mixed, file)[0] == (403 if means == "rule" else 401)


@pytest.mark.parametrize("seconds", [3])
def test_a_session_expires_with_its_certificate(mixed: Relay, scene: Scene, seconds: float) -> None:
    """A session ends at the expiry of its certificate, with which no new one can be opened."""

    async def check(lifetime: float) -> Path:
        file = scene.authority.issue("cn:desk", seconds=lifetime)
        async with feed(mixed, file) as client:
            await client.one(Subscribed)
            bye = await client.one(Bye)
            assert (bye.code, bye.reason) == (4401, "the client certificate has expired")
        return file

    try:
        file = run(check(seconds))
    except (OSError, ConnectionClosed):  # a busy machine took longer than that for the handshake
        file = run(check(10 * seconds))
    with pytest.raises((OSError, HTTPException)):
        request(mixed, file)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_connection_does_not_outlast_its_certificate(
    mixed: Relay, scene: Scene, version: ssl.TLSVersion
) -> None:
    """After the expiry, a connection that stays open is rejected, and so is a TLS session that is resumed."""

    def open_connection(seconds: float) -> tuple[ssl.SSLContext, HTTPSConnection]:
        tls = context(scene.authority.issue("cn:desk", seconds=seconds), version)
        link = HTTPSConnection(*mixed.host_port, context=tls, timeout=PATIENCE)
        assert status(link) == 200
        return tls, link

    def status(link: HTTPSConnection) -> int:
        link.request("GET", "/events")
        response = link.getresponse()
        response.read()
        return response.status

    try:
        tls, link = open_connection(2)
    except (OSError, HTTPException, AssertionError):  # a busy machine took longer than that for the handshake
        tls, link = open_connection(20)
    session = link.sock.session
    eventually(lambda: status(link) == 401, "the open connection is rejected")
    link.close()
    with pytest.raises(ConnectionError):
        _talk(mixed, tls, session)


def test_a_removed_authority_is_not_trusted_any_more(nats: NatsServer, tmp_path: Path) -> None:
    """After the CA file is replaced, a client of the former CA cannot connect, not even by resuming."""
    scene = Scene(tmp_path)
    file = scene.authority.issue("cn:desk")
    shared = context(file, ssl.TLSVersion.TLSv1_2)
    with Relay(nats.url, "--auth", "certificate", *scene.options) as relay:
        session, _ = _talk(relay, shared, None)
        assert _talk(relay, shared, session)[1], "the session is resumed"
        replace(scene.authority.ca, scene.stranger.ca.read_bytes())
        stranger = scene.stranger.issue("cn:desk")
        eventually(lambda: not _rejected(relay, stranger), "the CA is loaded")
        for candidate in (session, None):
            with pytest.raises((OSError, HTTPException)):
                _talk(relay, shared, candidate)


def _talk(
    relay: Relay, tls: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLSession | None, bool | None]:
    """Send a request over TLS; return the session, and whether it is the given one, resumed."""
    with (
        socket.create_connection(relay.host_port, PATIENCE) as link,
        tls.wrap_socket(link, server_hostname="127.0.0.1", session=session) as secured,
    ):
        secured.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        if not secured.recv(1_000).startswith(b"HTTP/1.1 200"):
            raise ConnectionError("no answer")
        return secured.session, secured.session_reused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--auth", "none"], "auth: --auth none accepts clients without a certificate"),
        (["--auth", "certificate", "--tls-client-grants", ""], "tls_client_grants: required"),
        (["--auth", "certificate", "--tls-client-ca", ""], "tls_client_ca: required"),
        (["--auth", "certificates"], "Input should be 'none', 'jwt' or 'certificate'"),
    ],
)
def test_settings_that_would_not_restrict_are_rejected(scene: Scene, options: list[str], words: str) -> None:
    """Settings of which one would be ignored, so that more clients could connect than meant, are rejected."""
    done = expect_rejection("serve", *scene.options, *options)
    assert done.returncode != 0
    assert words in done.stderr
