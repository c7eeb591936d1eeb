"""An exception while serving one session of a real relay or host ends only that session."""

import sys
from collections.abc import Iterator
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
import pytest
from tickertape.contracts.messages import Bye
from websockets.exceptions import InvalidStatus

from tests.support.clients.feed_client import PATIENCE, follow, jetstream, line, publish, run
from tests.support.programs.asgi_host import Host
from tests.support.programs.faulty_program import READERS, SINCE, TARGETS, subject
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

HANDSHAKES: Final = (
    "tickertape.relay.transport:handshake.decide",
    "tickertape.relay.transport:handshake._authorize",
)
PAGES: Final = (
    "tickertape.relay.endpoints.history:History.page",
    "tickertape.relay.endpoints.read_endpoint:ReadEndpoint.__call__",
)
IN_THE_PAST: Final = (
    "tickertape.relay.core.session.session_start:SessionStart.start_located",
    "tickertape.relay.ingest.replay_readers:ReplayReaders._locate",
    "tickertape.relay.core.fanout.catch_up:CatchUp._serve",
)  # fmt: skip
OF_ONE_KIND: Final = {
    "relay": ("tickertape.relay.asgi.connection:",),
    "host": ("tickertape.relay.transport.websocket.connection:",),
}
"""Prefixes of places that a kind of program does not have."""


class Program:
    """A relay, or a host with a feed, in which every place fails for its own victim."""

    def __init__(self, kind: str, nats_url: str) -> None:
        self.kind = kind
        self.nats_url = nats_url
        self.targets = [one for one in TARGETS if not one.startswith(OF_ONE_KIND[kind])]
        self.process: Relay | Host
        if kind == "relay":
            self.process = Relay(nats_url, "--log-size", "10")
            self.process.program = [sys.executable, "-m", "tests.support.programs.faulty_program", "relay"]
        else:
            self.process = Host({"/feed": {"nats_url": nats_url}}, env={"TICKERTAPE_LOG_SIZE": "10"})
            self.process.program = ["tests.support.programs.faulty_program", "host"]

    @property
    def feed(self) -> str:
        """URL of its feed."""
        return self.process.ws_url if isinstance(self.process, Relay) else self.process.ws()

    def page(self, query: str, method: str = "GET") -> tuple[int, dict[str, str], dict[str, str]]:
        """Return status, headers and body of a page of history."""
        process = self.process
        url = f"{process.url}/events" if isinstance(process, Relay) else process.url("/feed/events")
        try:
            with urlopen(Request(f"{url}?{query}", method=method), timeout=PATIENCE) as found:
                return found.status, dict(found.headers), orjson.loads(found.read())
        except HTTPError as error:
            with error:
                return error.code, dict(error.headers), orjson.loads(error.read())


@pytest.fixture(scope="module", params=["relay", "host"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Run one of each kind for all tests, with a stream that is larger than its memory."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        made = Program(request.param, server.url)
        with made.process:
            if isinstance(made.process, Host):
                made.process.until_ready()
            run(fill(server.url))
            yield made
            assert made.process.stop() in (0, -15)


async def fill(url: str) -> None:
    """Publish more than a relay keeps in memory."""
    async with jetstream(url) as js:
        for number in range(60):
            await publish(js, line(f"{number}"))


def query_of(target: str) -> dict[str, Any]:
    """Return the query of the victim of a place."""
    query: dict[str, Any] = {"subjects": subject(target)}
    if target == READERS[0]:
        return {**query, "since": SINCE}
    if target == READERS[1] or target in IN_THE_PAST:
        return {**query, "since": "earliest", "mode": "complete"}
    return query


def test_the_victim_ends_and_its_neighbour_lives_on(program: Program) -> None:
    """At every place the victim gets 1011, its neighbour the next event, and the log one report."""

    async def part() -> int:
        count = 0
        async with (
            follow(program.feed, subjects="log.info.neighbour") as neighbour,
            jetstream(program.nats_url) as js,
        ):
            for target in program.targets:
                if target in HANDSHAKES or target in PAGES:
                    continue
                count += 1
                async with follow(program.feed, live=False, **query_of(target)) as victim:
                    if target.endswith(("._parse", "._handle_message")):
                        await victim.send_message(type="ping", id=1)
                    await publish(js, line("for the victim", "CRITICAL", subject(target).rpartition(".")[2]))
                    assert await victim.closed() == 1011, target
                    goodbyes = [one.code for one in victim.messages if isinstance(one, Bye)]
                    assert goodbyes == [1011] or target.endswith("._send_outbox"), target
                await publish(js, line(target, "INFO", "neighbour"))
                assert (await neighbour.texts(count))[-1] == target
        return count

    count = run(part(), 4 * PATIENCE)
    log = program.process.log
    ends = [one for one in log if "ended with an internal error" in one and "session" in one]
    assert len(ends) == count
    eventually(lambda: sum("InjectedError: " in one for one in log) >= count, "each has its traceback")
    if isinstance(program.process, Relay):
        with urlopen(f"{program.process.ops_url}/metrics", timeout=PATIENCE) as metrics:
            numbers = metrics.read().decode()
        assert f'tickertape_internal_errors_total{{kind="session"}} {count}.0' in numbers
        assert f'tickertape_disconnects_total{{code="1011"}} {count}.0' in numbers


@pytest.mark.parametrize("target", HANDSHAKES)
def test_a_handshake_is_answered(target: str, program: Program) -> None:
    """Before a session exists, an internal error is 500 in the format of all rejections."""

    async def part() -> None:
        async with follow(program.feed, subjects="log.info.neighbour") as neighbour:
            with pytest.raises(InvalidStatus) as rejected:
                async with follow(program.feed, live=False, **query_of(target)):
                    pass
            assert rejected.value.response.status_code == 500
            assert orjson.loads(rejected.value.response.body or b"")["code"] == "internal"
            async with jetstream(program.nats_url) as js:
                await publish(js, line("still here", "INFO", "neighbour"))
            assert await neighbour.texts(1) == ["still here"]

    run(part())


@pytest.mark.parametrize("target", PAGES)
def test_a_page_of_history_is_rejected_in_the_documented_form(target: str, program: Program) -> None:
    """An internal error of the history endpoint is JSON with ``code`` and ``message``, wherever it is
    raised.
    """
    status, headers, body = program.page(f"subjects={subject(target)}")
    assert (status, body["code"], sorted(body)) == (500, "internal", ["code", "message"])
    assert headers["content-type"] == "application/json"
    assert program.page("since=2262-12-31T00:00:00Z")[0] == 200


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_other_methods_are_rejected_in_that_form_too(method: str, program: Program) -> None:
    """Other methods are rejected as JSON, also by a host whose server passes them to the page."""
    status, headers, body = program.page("", method)
    assert (status, sorted(body)) == (405, ["code", "message"])
    assert headers.get("allow") or headers.get("Allow") or program.kind == "relay"
