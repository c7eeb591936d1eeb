"""The probes and those of blackbox_exporter at servers that use rare parts of protocols, or break them."""

import asyncio
import contextlib
import gzip
import shutil
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import trustme

from tests.support.browser.browser_desk import missing
from tests.support.probing import Handler, serving, silent
from tests.support.programs.relay_process import eventually
from tests.support.servers.blackbox_exporter import Target, find_faults
from tests.support.servers.compared_servers import Certificates, sending
from tests.support.servers.nats_server import free_port

Run = Callable[[Handler, ssl.SSLContext | None], Awaitable[int]]
STATE = b'{"state": "up"}'
UP = "up"


def reply(content: bytes = STATE, *fields: str, status: str = "200 OK") -> bytes:
    """Return a response."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *fields])
    return head.encode() + b"\r\n\r\n" + content


PAGES = {
    "/gzip": reply(gzip.compress(STATE), "Content-Encoding: gzip"),
    "/deflate": reply(zlib.compress(STATE)[2:-4], "Content-Encoding: deflate"),
    "/repeated": reply(STATE, "Set-Cookie: sid=1", "Set-Cookie: lang=de"),
    "/hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(),
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nup\r\n0\r\nX: y\r\n\r\n",
    "/cut": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nup\r\n",
    "/old": b"HTTP/1.0 200 OK\r\n\r\n" + STATE,
    "/feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nup",
    "/304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "/head": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
    "/gbk": reply("\u6b63\u5e38".encode("gbk"), "Content-Type: text/plain; charset=gbk"),
    "/mark": reply(b"\xef\xbb\xbf" + STATE),
    "/long": reply(STATE, "X-Long: " + "y" * 40_000),
    "/moved": reply(b"", "Location: /a b", status="302 Found"),
    "/a%20b": reply(),
}


async def pages(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve the pages, and end the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(PAGES[head.split(b" ")[1].decode()])


async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a text that the client must repeat, as IRC does."""
    writer.write(b"PING :42a7\r\n")
    answer = await reader.readline()
    writer.write(b"001 welcome\r\n" if answer == b"PONG 42a7\r\n" else b"ERROR\r\n")
    await silent(reader, writer)


def http_targets(port: int) -> Iterator[Target]:
    """Yield the targets of HTTP."""

    def http(path: str, good: bool, ours: Any = None, theirs: Any = None, **more: Any) -> Target:
        url = f"http://localhost:{port}{path}"
        module = {"prober": "http", "http": {"preferred_ip_protocol": "ip4", **(theirs or {})}}
        return Target(path, {"kind": "http", "url": url, **(ours or {})}, module, url, good, **more)

    def body(pattern: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"body_matches": pattern}, {"fail_if_body_not_matches_regexp": [pattern], **more}

    cookie = [{"header": "Set-Cookie", "regexp": "^sid="}]
    yield http("/gzip", True, *body(UP, compression="gzip"))
    yield http(
        "/gzip",
        False,
        {"body_not_matches": UP},
        {"fail_if_body_matches_regexp": [UP]},
        difference="it looks for the bad word in the compressed response",
    )
    yield http("/deflate", True, *body(UP, compression="deflate"))
    yield http(
        "/repeated",
        True,
        {"header_matches": {"Set-Cookie": "^sid="}},
        {"fail_if_header_not_matches": cookie},
    )
    yield http(
        "/repeated",
        False,
        {"header_not_matches": {"Set-Cookie": "^sid="}},
        {"fail_if_header_matches": cookie},
    )
    for path in ("/hints", "/chunked", "/old", "/feeds"):
        yield http(path, True, *body(UP))
    yield http("/cut", False, *body(UP))
    yield http("/304", True, {"status": 304}, {"valid_status_codes": [304]})
    yield http("/head", True, {"method": "HEAD"}, {"method": "HEAD"})
    yield http("/moved", True, {"follow_redirects": True}, {"follow_redirects": True})
    yield http("/gbk", True, *body("\u6b63"), difference="it ignores the character set")
    yield http("/mark", True, *body("^{"), difference="it matches the byte order mark")
    yield http("/long", False, difference="it reads longer heads than 16 KiB")


async def tcp_targets(run: Run, files: Certificates, required: int) -> AsyncIterator[Target]:
    """Yield the targets of TCP and TLS.

    Args:
        run: starts a server.
        files: certificates.
        required: port of a server that requires a client certificate.
    """

    def tcp(name: str, port: int, good: bool, ours: Any, theirs: Any, **more: Any) -> Target:
        address = f"{more.pop('host', 'localhost')}:{port}"
        module = {"prober": "tcp", "tcp": {"preferred_ip_protocol": "ip4", **theirs}}
        return Target(name, {"kind": "tcp", "address": address, **ours}, module, address, good, **more)

    def tls(name: str, port: int, good: bool, server_name: str | None = None, **more: Any) -> Target:
        ours: dict[str, Any] = {"kind": "tls", "ca": files.ca}
        theirs: dict[str, Any] = {"ca_file": files.ca}
        if server_name is not None:
            ours["server_name"] = theirs["server_name"] = server_name
        if cert := more.pop("cert", None):
            ours["cert"] = theirs["cert_file"] = theirs["key_file"] = cert
        return tcp(name, port, good, ours, {"tls": True, "tls_config": theirs}, **more)

    late = "it reads nothing after the handshake"
    yield tls("TLS 1.3, certificate accepted", required, True, cert=files.client)
    yield tls("TLS 1.3, no certificate", required, False, difference=late)
    foreign = str(Path(files.client).with_name("foreign.pem"))
    trustme.CA().issue_cert("monitor").private_key_and_cert_chain_pem.write_to_path(foreign)
    yield tls("TLS 1.3, certificate rejected", required, False, cert=foreign, difference=late)
    wildcard = await run(silent, files.context("*.gw.test"))
    yield tls("wildcard", wildcard, True, "a.gw.test")
    yield tls("wildcard of another level", wildcard, False, "a.b.gw.test")
    yield tls("wildcard without a label", wildcard, False, "gw.test")
    yield tls("IP address", await run(silent, files.context("127.0.0.1")), True, host="127.0.0.1")
    yield tls("name in place of the IP address", await run(silent, files.context()), False, host="127.0.0.1")
    child = files.authority.create_child_ca().issue_cert("localhost")
    whole, cut = (ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) for _ in range(2))
    child.configure_cert(whole)
    part = Path(files.client).with_name("cut.pem")
    part.write_bytes(child.private_key_pem.bytes() + child.cert_chain_pems[0].bytes())
    cut.load_cert_chain(part)
    yield tls("intermediate authority", await run(silent, whole), True)
    yield tls("intermediate authority missing", await run(silent, cut), False)
    old = files.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    yield tls("TLS 1.2", await run(silent, old), True)
    yield tls("not yet valid", await run(silent, files.context(begins=1)), False)
    expect = "^ready$"
    ends = await run(sending(b"ready", ends=True), None)
    yield tcp(
        "end in place of a break", ends, True, {"expect": expect}, {"query_response": [{"expect": expect}]}
    )
    steps = [{"expect": r"^PING :(\w+)"}, {"send": "PONG ${1}\r\n"}, {"expect": "^001"}]
    theirs = [{"expect": r"^PING :(\w+)", "send": "PONG ${1}\r"}, {"expect": "^001"}]
    yield tcp("captured text", await run(greeting, None), True, {"steps": steps}, {"query_response": theirs})


@contextlib.contextmanager
def openssl_server(files: Certificates, folder: Path) -> Iterator[int]:
    """Run OpenSSL's server, which requires a client certificate; asyncio would send no alert."""
    if shutil.which("openssl") is None:
        missing("needs openssl")
    own = str(folder / "server.pem")
    files.authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(own)
    port = free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", own, "-CAfile", files.ca]
    log = folder / "openssl.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "-Verify", "1", "-verify_return_error"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: b"ACCEPT" in log.read_bytes(), "openssl has started")
        yield port
    finally:
        process.kill()
        process.communicate()


def test_each_verdict_is_right_and_each_difference_is_explained(tmp_path: Path) -> None:
    """Our verdict is right at every target; where blackbox_exporter's is another one, the table says why."""

    async def main() -> list[str]:
        files = Certificates(tmp_path)
        async with contextlib.AsyncExitStack() as stack:

            async def run(handler: Handler, context: ssl.SSLContext | None) -> int:
                return await stack.enter_async_context(serving(handler, context))

            required = stack.enter_context(openssl_server(files, tmp_path))
            targets = [target async for target in tcp_targets(run, files, required)]
            targets += http_targets(await run(pages, None))
            return await find_faults(tmp_path, targets)

    assert asyncio.run(main()) == []
