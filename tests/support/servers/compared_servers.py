"""Real and faulty servers, at which the probes and those of blackbox_exporter are compared."""

import asyncio
import base64
import contextlib
import datetime
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final

import asyncssh
import trustme
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP

from tests.support.browser.browser_desk import missing
from tests.support.probing import Handler, serving, silent
from tests.support.programs.relay_process import eventually
from tests.support.servers.dns_server import dns_server
from tests.support.servers.grpc_server import grpc_server
from tests.support.servers.nats_server import free_port

USER: Final = "Basic " + base64.b64encode(b"me:hunter22").decode()
_DAY: Final = datetime.timedelta(days=1)


async def _reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve the pages of the HTTP targets."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, path, _ = head.split(" ", 2)
    fields = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if ": " in line)
    sent = await reader.readexactly(int(fields.get("content-length", "0")))
    status, more, body = "200 OK", "", b'{"state": "up", "lag": 12}'
    match path:
        case "/500":
            status = "500 Internal Server Error"
        case "/404":
            status = "404 Not Found"
        case "/204":
            status, body = "204 No Content", b""
        case "/redirect":
            status, more = "302 Found", "Location: /ok\r\n"
        case "/loop":
            status, more = "301 Moved Permanently", "Location: /loop\r\n"
        case "/echo":
            body = method.encode() + b" " + sent
        case "/private" if base64_of(fields) != USER.lower():
            status = "401 Unauthorized"
        case "/slow":
            await reader.read()
        case "/short":
            more = "X-Short: yes\r\n"
    length = len(body) + (10 if path == "/short" else 0)
    framing = "" if path == "/204" else f"Content-Length: {length}\r\n"
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}{framing}\r\n".encode() + body
    )
    await writer.drain()


def base64_of(fields: Mapping[str, str]) -> str:
    """Return the credentials of a request."""
    return fields.get("authorization", "")


def sending(data: bytes, *, ends: bool = False) -> Handler:
    """Return a server that sends data, and then keeps the connection open unless it ``ends``."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if not ends:
            await silent(reader, writer)

    return handle


@contextlib.contextmanager
def _full_backlog() -> Iterator[int]:
    """Yield a port to which no further connection is established: its packets are dropped."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def _redis(folder: Path, *options: str) -> Iterator[int]:
    """Run redis; the package without a service has the server under the name of a tool that it is, too."""
    program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if program is None:
        missing("needs redis; 'apt-get install redis-tools' brings it")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder), *options]
    process = subprocess.Popen(command, executable=program, stdout=subprocess.DEVNULL)
    try:

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        eventually(answers, "redis has started")
        yield port
    finally:
        process.kill()
        process.wait()


class Certificates:
    """Certificates of servers, and the files of their authority and of a client."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.client = str(folder / "client.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        self.authority.issue_cert("monitor").private_key_and_cert_chain_pem.write_to_path(self.client)

    def context(
        self, name: str = "localhost", days: int = 90, *, begins: int = -60, client: bool = False
    ) -> ssl.SSLContext:
        """Return the context of a server whose certificate begins and expires after some days."""
        now = datetime.datetime.now(datetime.UTC)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(
            name, not_before=now + begins * _DAY, not_after=now + days * _DAY
        ).configure_cert(context)
        if client:
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@contextlib.asynccontextmanager
async def compared_servers(folder: Path, certificates: Certificates) -> AsyncIterator[Mapping[str, int]]:
    """Run all servers; yield their ports by name."""
    ports: dict[str, int] = {"closed": free_port()}
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        handlers: dict[str, tuple[Handler, ssl.SSLContext | None]] = {
            "silent": (silent, None),
            "dismissing": (sending(b"", ends=True), None),
            "prompt": (sending(b"login: "), None),
            "flood": (sending(b"x" * 2_000_000), None),
            "banner": (sending(b"220 ready\r\n"), None),
            "http": (_reply, None),
            "https": (_reply, certificates.context()),
            "https expired": (_reply, certificates.context(days=-1)),
            "https other name": (_reply, certificates.context("other.test")),
            "tls": (silent, certificates.context()),
            "tls expired": (silent, certificates.context(days=-1)),
            "tls expires": (silent, certificates.context(days=3)),
            "tls other name": (silent, certificates.context("other.test")),
            "tls client": (sending(b"220 ready\r\n"), certificates.context(client=True)),
        }
        for name, (handler, context) in handlers.items():
            ports[name] = await stack.enter_async_context(serving(handler, context))
        mail = await loop.create_server(
            lambda: SMTP(Sink(), tls_context=certificates.context(), loop=loop), "127.0.0.1", 0
        )
        ports["smtp"] = (await stack.enter_async_context(mail)).sockets[0].getsockname()[1]
        key = asyncssh.generate_private_key("ssh-ed25519")
        shell = await stack.enter_async_context(asyncssh.listen("127.0.0.1", 0, server_host_keys=[key]))
        ports["ssh"] = shell.get_port()
        ports["black hole"] = stack.enter_context(_full_backlog())
        ports["redis"] = stack.enter_context(_redis(folder))
        ports["redis locked"] = stack.enter_context(_redis(folder, "--requirepass", "hunter22"))
        ports["dns"] = stack.enter_context(dns_server())
        quiet = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        quiet.bind(("127.0.0.1", 0))
        ports["dns silent"] = quiet.getsockname()[1]
        ports["grpc"], ports["grpcs"] = stack.enter_context(grpc_server(certificates.authority))
        yield ports
