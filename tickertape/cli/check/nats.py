"""NATS as the relay would meet it: each address, version, JetStream, streams, room, clock, round trip.

Nothing is published and nothing is altered. A user who may not ask a question gets a warning in place of an
answer, as the relay of ``deploy/nats`` may not ask for the account's limits.

**The clock** is compared with the time ``ts`` that a server puts into its answer about a stream: the answer
was made between our question and its arrival, so the difference is known to half of the round trip. The
quickest of ``SAMPLES`` questions counts, and only what lies beyond that uncertainty is told. In a cluster
it is the clock of the stream's leader, whose times the events carry.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.cli.check.finding import Finding
from tickertape.cli.check.ports import program_on
from tickertape.cli.check.storage import replicas, storage
from tickertape.nats import connection
from tickertape.nats.client import server_info
from tickertape.nats.connect_errors import ConnectError
from tickertape.nats.direct_get import parse_time_ns
from tickertape.nats.embedded_server import SERVER_NAME
from tickertape.nats.streams import (
    Names,
    PermissionDenied,
    StreamsError,
    differences,
    missing_features,
    request,
    server_version,
    stream_info,
)
from tickertape.process.listeners import ListenError
from tickertape.relay.settings import RelaySettings
from tickertape.relay.transport.http_server import listen
from tickertape.urls import redact_url

SAMPLES: Final = 5

SKEW_NOTE: Final = 0.5
"""Seconds of clock difference that are told: ages and delays of events are wrong by as much."""

SKEW_ERROR: Final = 5.0
"""Seconds past which tokens and the monitors' dead man's switch go wrong; the default ``--jwt-leeway``."""

FAR: Final = 0.05
"""Seconds of a round trip that are told: starting, resuming and history ask several times in a row."""

Clock = Callable[[], float]


REJECTED_LONG_AGO: Final = 3600.0
"""Seconds after which a rejected event is no news any more."""


@dataclass(frozen=True, slots=True)
class Skew:
    """How far this machine's clock is ahead of NATS, in seconds; the truth lies ``within`` on either side."""

    ahead: float
    within: float

    @property
    def proven(self) -> float:
        """Seconds of difference that no delay on the way explains."""
        return max(0.0, abs(self.ahead) - self.within)


async def nats(settings: RelaySettings, now: Clock = time.time) -> list[Finding]:
    """Ask NATS.

    Args:
        settings: of the relay; without an address its own NATS is looked for on its port.
        now: UNIX seconds of this machine.
    """
    url = settings.nats_url
    if url is None:
        return await _own(settings, now)
    parts = [part.strip() for part in url.split(",")]
    reached = await asyncio.gather(*(_reach(part, settings) for part in parts))
    clients = [one for one in reached if isinstance(one, Client)]
    try:
        found = [
            _answers(part, one) if isinstance(one, Client) else one
            for part, one in zip(parts, reached, strict=True)
        ]
        if clients:
            found += _alone(clients)
            found += await _asked(clients, settings.names(), now)
        return found
    finally:
        await asyncio.gather(*map(connection.close, clients))


async def skew(client: Client, stream: str, now: Clock) -> Skew | None:
    """Compare the clocks; None when the stream is absent, or the server says no time."""
    best: Skew | None = None
    for _ in range(SAMPLES):
        before = now()
        answer = await stream_info(client, stream)
        after = now()
        if answer is None or not isinstance(answer.get("ts"), str):
            return None
        theirs = datetime.fromisoformat(answer["ts"]).timestamp()
        # A clock that is set meanwhile may go backwards.
        seen = Skew((before + after) / 2 - theirs, abs(after - before) / 2)
        if best is None or seen.within < best.within:
            best = seen
    return best


def judged(found: Skew) -> Finding:
    """What a difference of the clocks means."""
    way = "ahead of" if found.ahead > 0 else "behind"
    text = (
        f"this machine's clock is {abs(found.ahead):.3f} s {way} NATS, to within {found.within * 1000:.1f} ms"
    )
    if found.proven > SKEW_ERROR:
        return Finding.error(
            "clock", text, "let NTP set both clocks; tokens and silent monitors are judged wrongly"
        )
    if found.proven > SKEW_NOTE:
        return Finding.warn("clock", text, "let NTP set both clocks; ages of events are wrong by as much")
    agrees = (abs(found.ahead) + found.within) * 1000
    return Finding.ok("clock", f"the clocks of this machine and of NATS agree to {agrees:.1f} ms")


async def _own(settings: RelaySettings, now: Clock) -> list[Finding]:
    """Look for the relay's own NATS, whose files are looked at with the other files."""
    if settings.nats_port == 0:
        return [Finding.ok("nats", "the relay starts a NATS of its own on a free port; it is not asked here")]
    url = f"nats://127.0.0.1:{settings.nats_port}"
    client = await _reach(url, settings)
    if isinstance(client, Finding):
        return [_own_port(settings, client)]
    try:
        if server_info(client).get("server_name") != SERVER_NAME:
            return [
                Finding.error(
                    "nats",
                    f"a NATS that is not the relay's own has port {settings.nats_port}, which that needs",
                    f"connect to it with --nats-url {url}, or give another --nats-port",
                )
            ]
        return [_answers(url, client), *await _asked([client], settings.names(), now)]
    finally:
        await connection.close(client)


def _own_port(settings: RelaySettings, refused: Finding) -> Finding:
    port = settings.nats_port
    try:
        listen("127.0.0.1", port, "--nats-port").close()
    except ListenError as error:
        who = program_on(port)
        return Finding.error(
            "nats",
            f"{error.message}{f' ({who})' if who else ''}, and the relay's own NATS needs it: {refused.text}",
            "give another --nats-port, or connect to a NATS with --nats-url",
        )
    return Finding.ok(
        "nats", f"the relay starts a NATS of its own at 127.0.0.1:{port}, which is free; it does not run now"
    )


async def _reach(url: str, settings: RelaySettings) -> Client | Finding:
    try:
        return await connection.connect_once(url, name="tickertape-check", access=settings.access())
    except (ConnectError, connection.AccessError) as error:
        return Finding.of("nats", error)


def _answers(url: str, client: Client) -> Finding:
    said = server_info(client)
    name = str(said.get("server_name") or said.get("server_id"))
    cluster = said.get("cluster")
    return Finding.ok(
        "nats",
        f"NATS {said.get('version')} answers at {redact_url(url)}: server {name[:24]}"
        + (f" of cluster {cluster}" if cluster else ""),
    )


def _alone(clients: list[Client]) -> list[Finding]:
    servers = {server_info(client).get("server_id"): server_info(client) for client in clients}
    if len(servers) > 1 and not all(said.get("cluster") for said in servers.values()):
        return [
            Finding.error(
                "nats",
                f"{len(servers)} servers answer that are no cluster, so each has streams of its own",
                "give the addresses of one cluster in --nats-url",
            )
        ]
    return []


async def _asked(clients: list[Client], names: Names, now: Clock) -> list[Finding]:
    client = clients[0]
    found = [_version(clients)]
    try:
        account = await _account(client)
        found.append(Finding.ok("jetstream", "JetStream is on") if account else _not_allowed("jetstream"))
        found += await _streams(client, names)
        there = {
            name: await stream_info(client, names.stream(name))
            for name in ("EVENTS", "LATEST", "CHECKPOINTS", "WATCHDOG", "REJECTED")
        }
        found += replicas(there, clustered=bool(server_info(client).get("cluster")))
        found.append(storage(account, there, names) if account else _not_allowed("storage"))
        found.append(rejected(there["REJECTED"], now()))
        seen = await skew(client, names.stream("EVENTS"), now)
        found.append(
            judged(seen)
            if seen is not None
            else Finding.warn(
                "clock",
                "NATS tells its time only with a stream, and EVENTS is absent",
                "check again when it is there",
            )
        )
    except StreamsError as error:
        found.append(Finding.of("streams" if isinstance(error, PermissionDenied) else "jetstream", error))
    found.append(await _round_trip(client))
    return found


def rejected(there: dict[str, Any] | None, now: float) -> Finding:
    """Judge what producers sent that breaks the contract.

    Args:
        there: information on REJECTED; None while it is absent.
        now: UNIX seconds.
    """
    state = (there or {}).get("state") or {}
    if not state.get("messages"):
        return Finding.ok("rejected", "no event was rejected")
    age = max(0.0, now - (parse_time_ns(state.get("last_ts", "")) or 0) / 1e9)
    text = f"{state['messages']} rejected events are kept, the newest from {age:.0f} s ago"
    if age > REJECTED_LONG_AGO:
        return Finding.ok("rejected", text)
    return Finding.warn("rejected", text, "'tickertape streams rejected' lists them with their reasons")


async def _account(client: Client) -> dict[str, Any] | None:
    """Limits and use of the account; None when this user may not ask."""
    try:
        return await request(client, "INFO")
    except PermissionDenied:
        return None


def _not_allowed(name: str) -> Finding:
    what = (
        "whether JetStream is on is seen by its streams"
        if name == "jetstream"
        else "the account's limits are not seen"
    )
    return Finding.warn(
        name, f"this NATS user may not ask for its account: {what}", "check as an operator to see it"
    )


def _version(clients: list[Client]) -> Finding:
    version = min(map(server_version, clients))
    lines = missing_features(version)
    if lines:
        return Finding.warn("nats_version", " ".join(lines), "update nats-server to 2.12 or later")
    return Finding.ok(
        "nats_version", f"NATS {version[0]}.{version[1]} has all that is used: schedules, atomic batches"
    )


async def _streams(client: Client, names: Names) -> list[Finding]:
    found = []
    for difference in await differences(client, names):
        if difference.setting == "name":
            found.append(
                Finding.warn(
                    "streams", f"stream {difference.stream} is absent", "the relay makes it when it starts"
                )
            )
        elif difference.is_breaking:
            found.append(Finding.error("streams", str(difference), "run 'tickertape streams apply'"))
        else:
            found.append(Finding.warn("streams", str(difference), "kept as it is"))
    return found or [Finding.ok("streams", "all streams are as the contract has them")]


async def _round_trip(client: Client) -> Finding:
    times = []
    try:
        for _ in range(SAMPLES):
            began = time.perf_counter()
            await client.flush(timeout=2)
            times.append(time.perf_counter() - began)
    except (NatsError, TimeoutError, OSError):
        return Finding.error(
            "round_trip", "NATS does not answer a ping within 2 s", "look at the server's log and load"
        )
    middle = statistics.median(times)
    text = f"a question to NATS and back takes {middle * 1000:.1f} ms"
    if middle > FAR:
        return Finding.warn("round_trip", text, "run the relay nearer to NATS, or join a leaf node there")
    return Finding.ok("round_trip", text)
