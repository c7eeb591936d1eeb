"""The nats-server of ``deploy/nats/nats-server.conf``, with its users and permissions.

The file itself is used, with another port and folder: there is no second copy of the permissions.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from nats.aio.client import Client

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import run
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.names import Names
from tickertape.nats import connection, streams
from tickertape.nats.credentials import Access

CONFIG: Final = ROOT / "deploy" / "nats" / "nats-server.conf"
SHIPPER: Final = "shipper-web1"
USERS: Final = ("operator", "relay", "monitor", SHIPPER, "publisher")


class Deployed:
    """A server with the deployment's users.

    Attributes:
        server: the process.
        url: its URL.
    """

    def __init__(self, server: NatsServer, folder: Path) -> None:
        self.server = server
        self._folder = folder

    @property
    def url(self) -> str:
        """URL for clients."""
        return self.server.url

    @property
    def violations(self) -> list[str]:
        """Lines of the server's log about permission violations."""
        return [line for line in self.server.log.splitlines() if "Violation" in line]

    def access(self, user: str) -> Access:
        """Return the credentials of a user."""
        inbox = f"_INBOX_{user.removeprefix('shipper-')}"
        return Access(user=user, password_file=self._folder / user, inbox_prefix=inbox)

    def options(self, user: str) -> list[str]:
        """Return the same as command-line options, without the URL."""
        access = self.access(user)
        options = ["--nats-user", user, "--nats-password-file", str(access.password_file)]
        return [*options, "--nats-inbox-prefix", access.inbox_prefix]

    def apply(self) -> None:
        """Create the streams as the operator."""

        async def work() -> None:
            async with self.client("operator") as (client, _):
                await streams.provision(client, Names())

        asyncio.run(work())

    def command_apply(self) -> None:
        """Create the streams as the operator, with the command."""
        done = run("streams", "apply", "--nats-url", self.url, *self.options("operator"))
        assert done.returncode == 0, done.stdout + done.stderr

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[tuple[Client, list[str]]]:
        """Connect as a user; yield the connection and the server's errors."""
        output: list[str] = []

        async def failed(error: Exception) -> None:
            output.append(str(error))

        client = await connection.connect_once(
            self.url, name=f"test-{user}", access=self.access(user), on_error=failed
        )
        try:
            yield client, output
        finally:
            await client.close()


async def ask(client: Client, subject: str, body: object = b"", **headers: str) -> dict[str, Any]:
    """Send a JetStream request, or a message to acknowledge; return the reply."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = await client.request(subject, data, timeout=PATIENCE, headers=named or None)
    answer: dict[str, Any] = orjson.loads(reply.data)
    return answer


@contextmanager
def deployed(folder: Path, without: str | None = None, more: str = "") -> Iterator[Deployed]:
    """Start the deployment's server.

    Args:
        folder: a folder of the test.
        without: text of the permissions to leave out.
        more: further lines of the configuration.
    """
    text = f"{CONFIG.read_text(encoding='utf-8')}\n{more}\n"
    for line, instead in {
        r"^listen: .*$": "",
        r"^http: .*$": f'http: "127.0.0.1:{free_port()}"',
        r"^  store_dir: .*$": f'  store_dir: "{folder / "store"}"',
    }.items():
        text, found = re.subn(line, instead, text, flags=re.MULTILINE)
        assert found == 1
    (folder / "nats").mkdir(parents=True, exist_ok=True)
    permissions = CONFIG.with_name("permissions.conf").read_text(encoding="utf-8")
    if without is not None:
        permissions = re.sub(rf'"[^"\n]*{without}[^"\n]*",?', "", permissions)
    (folder / "nats" / "permissions.conf").write_text(permissions, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for user in USERS:
            password = f"{user}-{folder.name}"
            file = folder / user
            file.touch(0o600)
            file.write_text(password)
            patch.setenv(f"NATS_{user.replace('-', '_').upper()}_PASSWORD", f'"{password}"')
        with NatsServer(folder / "nats", jetstream=False, config=text) as server:
            yield Deployed(server, folder)


__all__ = ["SHIPPER", "USERS", "Deployed", "ask", "deployed"]
