"""Requests and conditions of the probe ``http``."""

import asyncio
import contextlib
import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.probes import Probe
from tickertape.producers.monitor.probes.http import _Request

from tests.support.patience import PATIENCE
from tests.support.probing import Handler, answering, outcome_and_error, probe_once, serving

HEAD = b"HTTP/1.1 200 OK\r\nX-Version: 4.2\r\nContent-Type: application/json\r\n"
DOCUMENT = b'{"state": "up", "lag": 12.5, "queues": [{"n": 1}, {"n": 20}], "ok": true, "none": null}'


def path(query: str, **condition: Any) -> dict[str, Any]:
    return {"json_path": [{"path": query, **condition}]}


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"status": "2xx"}, None),
        ({"status": ["3xx", 404]}, "status is 200, expected 3xx or 404"),
        ({"header_matches": {"x-version": r"^4\."}}, None),
        ({"header_matches": {"X-Version": r"^5\."}}, r"header X-Version is '4.2', expected '^5\\.'"),
        ({"header_matches": {"X-None": "."}}, "header X-None is absent, expected '.'"),
        ({"header_not_matches": {"Content-Type": "json"}},
         "header Content-Type is 'application/json', expected not 'json'"),
        ({"body_matches": ["state", r'"lag": \d+\.']}, None),
        ({"body_matches": "^up"}, """response does not match '^up': '{"state": "up", "lag": 12.5, """),
        ({"body_not_matches": "error|fail"}, None),
        ({"body_not_matches": ["error", "u[a-z]"]}, "response matches 'u[a-z]': "),
        (path("$.lag", below=13, above=12.4), None),
        (path("$.lag", at_most=12.5, at_least=12.5), None),
        (path("$.lag", below=12.5), "$.lag is 12.5, expected below 12.5"),
        (path("$.state", equals="up", not_equals="down"), None),
        (path("$.state", equals="down"), '$.state is "up", expected "down"'),
        (path("$.state", above=1), '$.state is "up", expected above 1'),
        (path("$.ok", equals=1), "$.ok is true, expected 1"),
        (path("$.none", equals=None), None),
        (path("$.none", above=0), "$.none is null, expected above 0"),
        (path("$.queues[*].n", below=10), "$.queues[*].n is 20, expected below 10"),
        (path("$.queues[*].n", count=2, below=21), None),
        (path("$..n", count=3), "$..n selects 2 values, expected 3"),
        (path("$.queues[?@.n > 10].n", matches="^2"), None),
        (path("$.queues[?search(@.n, '(x+x+)+y')]", count=0), None),
        (path("$.state", matches="^(down|closed)$"), '$.state is "up", expected matches "^(down|closed)$"'),
        (path("$.absent"), "$.absent is absent, expected a value"),
        (path("$.absent", equals=None), "$.absent is absent, expected null"),
        (path("$.absent", count=0), None),
    ],
)  # fmt: skip
def test_conditions(settings: dict[str, Any], error: str | None) -> None:
    """Conditions on status, headers, body and JSON values hold, or are named with what was received."""

    async def main() -> tuple[Outcome, str]:
        async with serving(answering(DOCUMENT, HEAD)) as port:
            return outcome_and_error(
                await probe_once(kind="http", url=f"http://127.0.0.1:{port}/", **settings)
            )

    outcome, text = asyncio.run(main())
    assert (outcome is Outcome.OK) is (error is None), text
    assert error is None or text.startswith(error)


@pytest.mark.parametrize(
    ("body", "settings", "error"),
    [
        (b"[" * 900 + b"]" * 900, path("$..x", count=0), "nested too deeply"),
        (b"[" + b"1," * 2_000 + b"1]", path("$[*]"), "selects more than 1000 values"),
        (b"[" * 100_000, path("$[0]"), "response is not JSON: '[[[["),
        (b"x" * 1_100_000, {"body_not_matches": "y"}, "response is larger than 1048576 bytes"),
        (b'"' + b"x" * 1_100_000 + b'"', path("$"), "response is larger than 1048576 bytes"),
        (b"\xff\x00\x1b[0m", {"body_matches": "^ok"}, r"does not match '^ok': '�\x00\x1b[0m'"),
        (b"[]" + b"," * 500_000, path("$..a"), "response is not JSON: '[],,,"),
    ],
)
def test_hostile_bodies(body: bytes, settings: dict[str, Any], error: str) -> None:
    """Huge, deep and binary bodies are failures with a short, printable reason."""

    async def main() -> tuple[Outcome, str]:
        async with serving(answering(body)) as port:
            return outcome_and_error(
                await probe_once(kind="http", url=f"http://127.0.0.1:{port}/", **settings)
            )

    outcome, text = asyncio.run(main())
    assert outcome is Outcome.FAILED
    assert error in text
    assert text.isprintable() or "�" in text


class Recorder:
    """Server that redirects as it is told, and records requests.

    Args:
        replies: status and location by path.
    """

    def __init__(self, replies: dict[str, tuple[int, str]]) -> None:
        self.replies = replies
        self.requests: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (
                int(line.split(":")[1])
                for line in head.split("\r\n")
                if line.lower().startswith("content-length:")
            ),
            0,
        )
        body = (await reader.readexactly(length)).decode()
        method, target, _ = head.split(" ", 2)
        private = "private" if "hunter22" in head else "public"
        self.requests.append(f"{method} {target} {private} {body}".strip())
        status, location = self.replies.get(target, (200, ""))
        field = f"Location: {location}\r\n" if location else ""
        writer.write(f"HTTP/1.1 {status} Reply\r\n{field}Content-Length: 0\r\n\r\n".encode())


def redirected(settings: dict[str, Any], *replies: dict[str, tuple[int, str]]) -> tuple[str, list[list[str]]]:
    """Probe the first of several servers, in whose locations ``{1}`` is the address of the second."""
    servers = [Recorder(dict(each)) for each in replies]

    async def main() -> str:
        async with contextlib.AsyncExitStack() as stack:
            ports = [await stack.enter_async_context(serving(server)) for server in servers]
            addresses = [f"http://127.0.0.1:{port}" for port in ports]
            for server in servers:
                server.replies = {
                    key: (status, location.format(*addresses))
                    for key, (status, location) in server.replies.items()
                }
            result = await probe_once(kind="http", url=f"{addresses[0]}/a", **settings)
            return outcome_and_error(result)[1]

    error = asyncio.run(main())
    return error, [server.requests for server in servers]


def test_redirects_are_followed_up_to_a_bound() -> None:
    """Redirects are followed if that is configured, and a loop ends."""
    chain = {"/a": (302, "/b?x=1"), "/b?x=1": (307, "c"), "/loop": (301, "/loop")}
    assert redirected({}, chain) == ("status is 302, expected 200", [["GET /a public"]])
    ends = [["GET /a public", "GET /b?x=1 public", "GET /c public"]]
    assert redirected({"follow_redirects": True}, chain) == ("None", ends)
    error, requests = redirected({"follow_redirects": 1}, chain)
    assert error.startswith("more than 1 redirects, the last to http://127.0.0.1:")
    assert requests == [ends[0][:2]]
    error, requests = redirected({"follow_redirects": True}, {"/a": (301, "/a")})
    assert error.startswith("more than 10 redirects")
    assert len(requests[0]) == 11
    assert redirected({"follow_redirects": True}, {"/a": (302, "gopher://x/")})[0] == (
        "redirect to an invalid address: 'gopher://x/'"
    )
    assert redirected({"follow_redirects": True}, {"/a": (302, "http://[::1")})[0] == (
        "redirect to an invalid address: 'http://[::1'"
    )


@pytest.mark.parametrize(
    ("status", "second"),
    [
        (302, "GET /b private"),
        (303, "GET /b private"),
        (307, "POST /b private order"),
        (308, "POST /b private order"),
    ],
)
def test_a_body_is_sent(status: int, second: str) -> None:
    """The body of a request is sent, and sent again where HTTP says so."""
    settings = {
        "method": "POST",
        "send": "order",
        "headers": {"Authorization": "hunter22"},
        "follow_redirects": 5,
    }
    assert redirected(settings, {"/a": (status, "/b")}) == ("None", [["POST /a private order", second]])


def test_another_host_receives_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to another origin is followed without the secrets of the probe."""
    monkeypatch.setenv("KEY", "hunter22")
    monkeypatch.setenv("BODY", "secret body")
    settings = {
        "method": "PUT", "send_env": "BODY", "headers_env": {"X-Key": "KEY"}, "follow_redirects": True,
    }  # fmt: skip
    assert redirected(settings, {"/a": (307, "{1}/b")}, {}) == (
        "None",
        [["PUT /a private secret body"], ["PUT /b public"]],
    )
    settings = {"headers": {"Cookie": "hunter22"}, "follow_redirects": True}
    assert redirected(settings, {"/a": (301, "{1}/b")}, {})[1] == [["GET /a private"], ["GET /b public"]]


@pytest.mark.parametrize("name", ["X-Api-Key", "X-Auth-User", "Proxy-Authorization", "Session", "Host"])
def test_another_host_receives_no_header_that_says_that_it_is_secret(name: str) -> None:
    """A secret header in the file is not sent to another origin either, nor is the name of the host."""
    settings = {"headers": {name: "hunter22"}, "follow_redirects": True}
    replies = {"/a": (302, "/b"), "/b": (302, "{1}/c")}
    assert redirected(settings, replies, {})[1] == [["GET /a private", "GET /b private"], ["GET /c public"]]
    settings = {"headers": {"X-Tenant": "hunter22"}, "follow_redirects": True}
    assert redirected(settings, {"/a": (302, "{1}/c")}, {})[1][1] == ["GET /c private"]


@pytest.mark.parametrize("head", [b"%b", b"HTTP/1.1 200 OK\r\n%b : x\r\n\r\n"])
def test_a_peer_that_repeats_a_secret_does_not_get_it_shown(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """The error of a response that is not HTTP quotes what was received, without secrets."""
    monkeypatch.setenv("KEY", "hunter22")

    async def main() -> str:
        async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found = re.search(rb"hunter\d+", await reader.readuntil(b"\r\n\r\n"))
            assert found is not None
            writer.write(head % found[0])

        async with serving(repeat) as port:
            probe: dict[str, Any] = {"url": f"http://127.0.0.1:{port}/", "bearer_token_env": "KEY"}
            return outcome_and_error(await probe_once(kind="http", **probe))[1]

    error = asyncio.run(main())
    assert error.startswith("response is not HTTP: ")
    assert "***" in error
    assert "hunter" not in error


def test_addresses_of_redirects_are_encoded_as_browsers_do() -> None:
    """Spaces and characters in UTF-8 are sent percent-encoded, and what is encoded already stays."""
    target = "/b%20c%20d/%C3%BC?e=%C3%BC&f=%5Cg"
    replies = {"/a": (302, "/b%20c d/ü?e=%C3%BC&f=\\g#h")}
    assert redirected({"follow_redirects": True}, replies) == (
        "None", [["GET /a public", f"GET {target} public"]],
    )  # fmt: skip


def test_a_default_port_is_the_same_origin() -> None:
    """The same host with and without the default port, or in other letters, is sent the secrets."""
    request = _Request("http://gw.test/a", "GET", {"X-Key": "1"}, b"", True, "name.test")
    for location in ("http://gw.test:80/b", "http://GW.test/b", "/b"):
        same = request.redirect(302, location, {"X-Key"})
        assert (same.headers, same.server_name) == ({"X-Key": "1"}, "name.test")
    for location in ("https://gw.test/b", "http://gw.test:81/b", "//x.test/b"):
        other = request.redirect(302, location, {"X-Key"})
        assert (other.headers, other.server_name) == ({}, None)


def test_other_probes_run_while_a_large_body_is_inspected() -> None:
    """The event loop turns while a query searches a large document."""
    body = b"[" + b'{"a":[1,2,3]},' * 30_000 + b"0]"

    async def main() -> int:
        turns = 0
        async with serving(answering(body)) as port:
            url = f"http://127.0.0.1:{port}/"
            probing = asyncio.create_task(probe_once(kind="http", url=url, **path("$..b", count=0)))
            async with asyncio.timeout(PATIENCE):
                while not probing.done():
                    turns += 1
                    await asyncio.sleep(0)
            assert outcome_and_error(await probing) == (Outcome.OK, "None")
        return turns

    assert asyncio.run(main()) > len(body) // (16 * 1024)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"method": "HEAD", "body_matches": "x"}, "a response to HEAD has no body"),
        ({"send": "a", "send_env": "B"}, "'send' and 'send_env' are both set"),
        ({"status": "2x"}, "is not a status"),
        ({"follow_redirects": 21}, "less than or equal to 20"),
        (path("lag"), "JSONPath 'lag' is not valid"),
        (path("$..a..b"), "has several '..'; write the names on the path"),
        (path("$.a", count=0, equals=1), "has no values to compare"),
        (path("$.a", below="1"), "valid"),
        ({"body_matches": "(?=x)"}, "not valid in RE2"),
    ],
)
def test_invalid_settings(settings: dict[str, Any], error: str) -> None:
    """Settings that cannot work are rejected."""
    with pytest.raises(ValidationError, match=error):
        TypeAdapter(Probe).validate_python({"kind": "http", "url": "http://127.0.0.1/", **settings})


def test_every_method_is_sent() -> None:
    """Methods with and without a body reach the server."""
    handler: Handler = Recorder({})
    assert isinstance(handler, Recorder)

    async def main() -> None:
        async with serving(handler) as port:
            for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"):
                result = await probe_once(kind="http", url=f"http://127.0.0.1:{port}/", method=method)
                assert outcome_and_error(result) == (Outcome.OK, "None")

    asyncio.run(main())
    assert [request.split(" ")[0] for request in handler.requests] == [
        "GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE",
    ]  # fmt: skip
