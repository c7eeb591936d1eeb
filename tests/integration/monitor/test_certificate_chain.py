"""The expiry of a gateway's certificates covers those of the authorities between it and the root."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from websockets.asyncio.server import serve

from tests.support.probing import answering, probe_once, serving


def chain(folder: Path, monkeypatch: pytest.MonkeyPatch, expiry: datetime) -> tuple[ssl.SSLContext, str]:
    """Return a server's context, whose intermediate certificate expires first, and the file of its root."""
    root = trustme.CA()
    root.cert_pem.write_to_path(folder / "ca.pem")
    monkeypatch.setattr(trustme, "DEFAULT_EXPIRY", expiry)
    intermediate = root.create_child_ca()
    certificate = intermediate.issue_cert("127.0.0.1", not_after=datetime.now(UTC) + timedelta(days=90))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context, str(folder / "ca.pem")


@pytest.mark.parametrize("skip_verify", [False, True])
@pytest.mark.parametrize("kind", ["tls", "http", "websocket"])
def test_the_earliest_expiry_of_the_chain_counts(
    kind: str, skip_verify: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the intermediate certificate here, also if certificates are not verified."""
    expiry = datetime.now(UTC).replace(microsecond=0, tzinfo=None) + timedelta(days=3)
    context, ca = chain(tmp_path, monkeypatch, expiry)
    options: dict[str, Any] = {"skip_verify": True} if skip_verify else {"ca": ca}

    async def main() -> Result | None:
        if kind == "websocket":
            async with serve(
                lambda connection: connection.wait_closed(), "127.0.0.1", 0, ssl=context
            ) as server:
                port = next(iter(server.sockets)).getsockname()[1]
                return await probe_once(kind=kind, url=f"wss://127.0.0.1:{port}/", **options)
        async with serving(answering(b"ok"), context) as port:
            if kind == "tls":
                return await probe_once(kind=kind, address=f"127.0.0.1:{port}", **options)
            return await probe_once(kind=kind, url=f"https://127.0.0.1:{port}/", **options)

    result = asyncio.run(main())
    assert result is not None
    assert result.expires == expiry.replace(tzinfo=UTC).timestamp()
    if kind == "tls":
        assert result.outcome is Outcome.DEGRADED
        assert "certificate expires in" in str(result.error)


def test_the_earliest_expiry_of_all_servers_that_redirect_counts(tmp_path: Path) -> None:
    """The certificate of the server that redirects is that of the gateway, too."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    now = datetime.now(UTC).replace(microsecond=0)

    def context(days: int) -> ssl.SSLContext:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1", not_after=now + timedelta(days=days)).configure_cert(found)
        return found

    async def main() -> Result | None:
        async with serving(answering(b"ok"), context(30)) as port:
            head = f"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:{port}/\r\n".encode()
            async with serving(answering(b"", head), context(3)) as first:
                url, ca_file = f"https://127.0.0.1:{first}/", str(tmp_path / "ca.pem")
                return await probe_once(kind="http", url=url, ca=ca_file, follow_redirects=True)

    result = asyncio.run(main())
    assert result is not None
    assert (result.outcome, result.expires) == (Outcome.OK, (now + timedelta(days=3)).timestamp())
