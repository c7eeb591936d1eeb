"""Checks of NATS from the relay's point of view: addresses, version, JetStream, streams, clock, round trip.

Nothing is stored or changed. A user who may not request the limits of the account, such as the relay user of
``deploy/nats``, gets warnings instead of the findings about them; one who may not request the streams gets an
error, since a relay could not run as that user. Its other permissions are tried, too.

**Clock**: the local clock is compared with the time ``ts`` in a server's reply about a stream. The server
produced the reply between the request and its arrival, so the difference is known to within half of the round
trip. The fastest of ``SAMPLES`` requests counts, and only a difference beyond this uncertainty is reported.
In a cluster, the clock is that of the stream leader, which also timestamps the events.
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

from tickertape.cli.check.finding import Finding, Name
from tickertape.cli.check.permissions import check_permissions
from tickertape.cli.check.ports import program_on
from tickertape.cli.check.storage import check_replicas, check_states, check_storage, check_store
from tickertape.cli.check.streams import check_streams
from tickertape.nats import connection
from tickertape.nats.client import server_info
from tickertape.nats.connect_errors import ConnectError
from tickertape.nats.direct_get import parse_time_ns
from tickertape.nats.storage.embedded_config import SERVER_NAME, find_monitoring_url
from tickertape.nats.stream_sizes import DEFAULT_SIZES
from tickertape.nats.streams import (
    PermissionDenied,
    StreamsError,
    missing_features,
    request,
    server_version,
    stream_info,
)
from tickertape.net.listeners import ListenError
from tickertape.net.loopback import LOOPBACK, loopback_url
from tickertape.relay.settings import RelaySettings
from tickertape.relay.transport.http.server import listen
from tickertape.text import count
from tickertape.urls import host_port, redact_url

SAMPLES: Final = 5
"""Number of requests for each measurement."""

SKEW_WARN: Final = 0.5
"""Seconds of clock difference for a warning: ages and delays of events are wrong by that much."""

SKEW_ERROR: Final = 5.0
"""Seconds of clock difference that break tokens (default ``--jwt-leeway``) and the dead man's switch."""

ROUND_TRIP_WARN: Final = 0.05
"""Seconds of a round trip for a warning: startup, resume and history send several requests in sequence."""

Clock = Callable[[], float]


REJECTED_MAX_AGE: Final = 3600.0
"""Seconds after which a rejected event no longer causes a warning."""


@dataclass(frozen=True, slots=True)
class Skew:
    """Measured difference between the local clock and that of NATS.

    Attributes:
        ahead: seconds by which the local clock is ahead.
        within: uncertainty of ``ahead`` in either direction, in seconds.
    """

    ahead: float
    within: float

    @property
    def proven(self) -> float:
        """Seconds of difference that network delay cannot explain."""
        return max(0.0, abs(self.ahead) - self.within)


async def check_nats(settings: RelaySettings, now: Clock = time.time) -> list[Finding]:
    """Check NATS.

    Args:
        settings: settings of the relay; without an address, the embedded NATS server is checked.
        now: clock of this machine, in UNIX seconds.
    """
    url = settings.nats_url
    if url is None:
        return await _check_embedded(settings, now)
    parts = [part.strip() for part in url.split(",")]
    results = await asyncio.gather(*(_connect(part, settings) for part in parts))
    clients = [result for result in results if isinstance(result, Client)]
    try:
        found = [
            _connected(part, result) if isinstance(result, Client) else result
            for part, result in zip(parts, results, strict=True)
        ]
        if clients:
            found += _check_cluster(clients)
            found += await _check_server(clients, settings, now)
            found.append(await check_store(settings.store_watch() if settings.nats_monitoring_url else None))
        return found
    finally:
        await asyncio.gather(*map(connection.close, clients))


async def measure_skew(client: Client, stream: str, now: Clock) -> Skew | None:
    """Measure the clock difference; return None if the stream does not exist, or the reply has no time."""
    best: Skew | None = None
    for _ in range(SAMPLES):
        before = now()
        info = await stream_info(client, stream)
        after = now()
        if info is None or not isinstance(info.get("ts"), str):
            return None
        server_time = datetime.fromisoformat(info["ts"]).timestamp()
        # abs(): the local clock may be set back between the two readings.
        sample = Skew((before + after) / 2 - server_time, abs(after - before) / 2)
        if best is None or sample.within < best.within:
            best = sample
    return best


def clock_finding(difference: Skew) -> Finding:
    """Return the finding for a clock difference."""
    direction = "ahead of" if difference.ahead > 0 else "behind"
    text = (
        f"the clock of this machine is {abs(difference.ahead):.3f} s {direction} NATS, "
        f"accurate to {difference.within * 1000:.1f} ms"
    )
    if difference.proven > SKEW_ERROR:
        return Finding.error(
            "clock", text, "synchronize both clocks with NTP; tokens and silent monitors are misjudged"
        )
    if difference.proven > SKEW_WARN:
        return Finding.warn(
            "clock", text, "synchronize both clocks with NTP; ages of events are wrong by this difference"
        )
    agrees = (abs(difference.ahead) + difference.within) * 1000
    return Finding.ok("clock", f"the clocks of this machine and NATS agree to within {agrees:.1f} ms")


async def _check_embedded(settings: RelaySettings, now: Clock) -> list[Finding]:
    """Check the embedded NATS server; its files are checked by ``check_files``."""
    if settings.nats_port == 0:
        return [
            Finding.ok(
                "nats", "the relay starts an embedded NATS server on a free port, which cannot be checked"
            )
        ]
    url = loopback_url("nats", settings.nats_port)
    client = await _connect(url, settings)
    if isinstance(client, Finding):
        return [_check_embedded_port(settings, client)]
    try:
        if server_info(client).get("server_name") != SERVER_NAME:
            return [
                Finding.error(
                    "nats",
                    f"another NATS server uses port {settings.nats_port} of the embedded NATS server",
                    f"connect to it with --nats-url {url}, or choose another --nats-port",
                )
            ]
        monitoring_url = find_monitoring_url(settings.data_dir)
        watched = settings.model_copy(update={"nats_monitoring_url": monitoring_url})
        return [
            _connected(url, client),
            *await _check_server([client], settings, now),
            await check_store(watched.store_watch() if monitoring_url else None),
        ]
    finally:
        await connection.close(client)


def _check_embedded_port(settings: RelaySettings, failure: Finding) -> Finding:
    port = settings.nats_port
    try:
        listen(LOOPBACK, port, "--nats-port").close()
    except ListenError as error:
        program = program_on(port)
        return Finding.error(
            "nats",
            f"{error.message}{f' ({program})' if program else ''}; "
            f"the embedded NATS server needs the port: {failure.text}",
            "choose another --nats-port, or connect to a NATS server with --nats-url",
        )
    return Finding.ok(
        "nats", f"the relay starts an embedded NATS server at {host_port(LOOPBACK, port)}, which is available"
    )


async def _connect(url: str, settings: RelaySettings) -> Client | Finding:
    try:
        return await connection.connect_once(url, name="tickertape-check", access=settings.access())
    except (ConnectError, connection.AccessError) as error:
        return Finding.from_error("nats", error)


def _connected(url: str, client: Client) -> Finding:
    server = server_info(client)
    name = str(server.get("server_name") or server.get("server_id"))
    cluster = server.get("cluster")
    return Finding.ok(
        "nats",
        f"NATS {server.get('version')} at {redact_url(url)}: connected to server {name[:24]}"
        + (f" of cluster {cluster}" if cluster else ""),
    )


def _check_cluster(clients: list[Client]) -> list[Finding]:
    servers = {server_info(client).get("server_id"): server_info(client) for client in clients}
    if len(servers) > 1 and not all(server.get("cluster") for server in servers.values()):
        return [
            Finding.error(
                "nats",
                f"{len(servers)} servers do not form a cluster, so each has its own streams",
                "set --nats-url to the addresses of one cluster",
            )
        ]
    return []


async def _check_server(clients: list[Client], settings: RelaySettings, now: Clock) -> list[Finding]:
    client, names = clients[0], settings.names()
    found = [_check_version(clients)]
    try:
        account = await _account_info(client)
        found.append(
            Finding.ok("jetstream", "JetStream is enabled") if account else _not_permitted("jetstream")
        )
        found += await check_permissions(client, names, audit=settings.audit, control=settings.control)
        found += await check_streams(client, names)
        streams = {name: await stream_info(client, names.stream(name)) for name in DEFAULT_SIZES}
        found += check_replicas(streams, clustered=bool(server_info(client).get("cluster")))
        found.append(check_storage(account, streams, names) if account else _not_permitted("storage"))
        found += check_states(streams)
        found.append(check_rejected(streams["REJECTED"], now()))
        difference = await measure_skew(client, names.stream("EVENTS"), now)
        found.append(
            clock_finding(difference)
            if difference is not None
            else Finding.warn(
                "clock",
                "the clock of NATS is unknown, because stream EVENTS does not exist",
                "check again when the stream exists",
            )
        )
    except StreamsError as error:
        found.append(
            Finding.from_error("permissions" if isinstance(error, PermissionDenied) else "jetstream", error)
        )
    found.append(await _check_round_trip(client))
    return found


def check_rejected(stream: dict[str, Any] | None, now: float) -> Finding:
    """Check for events that violated the contract.

    Args:
        stream: information of the stream REJECTED; None if it does not exist.
        now: UNIX seconds.
    """
    state = (stream or {}).get("state") or {}
    if not state.get("messages"):
        return Finding.ok("rejected", "no rejected events")
    age = max(0.0, now - (parse_time_ns(state.get("last_ts", "")) or 0) / 1e9)
    text = f"{count(state['messages'], 'rejected event')}, the last {age:.0f} s ago"
    if age > REJECTED_MAX_AGE:
        return Finding.ok("rejected", text)
    return Finding.warn("rejected", text, "list them with 'tickertape streams rejected'")


async def _account_info(client: Client) -> dict[str, Any] | None:
    """Return limits and usage of the account; None if this user may not request them."""
    try:
        return await request(client, "INFO")
    except PermissionDenied as error:
        # Without an inbox, nothing can be requested.
        if error.inbox:
            raise
        return None


def _not_permitted(name: Name) -> Finding:
    consequence = (
        "the stream checks show whether JetStream is enabled"
        if name == "jetstream"
        else "its limits are unknown"
    )
    return Finding.warn(
        name,
        f"this NATS user may not request account information: {consequence}",
        "run the check as a user with that permission",
    )


def _check_version(clients: list[Client]) -> Finding:
    # The relay may connect to any server of a cluster, so the oldest one decides.
    version = min(map(server_version, clients))
    lines = missing_features(version)
    if lines:
        return Finding.warn("nats_version", " ".join(lines), "upgrade nats-server to 2.14 or later")
    return Finding.ok("nats_version", f"NATS {version[0]}.{version[1]} supports all required features")


async def _check_round_trip(client: Client) -> Finding:
    times = []
    try:
        for _ in range(SAMPLES):
            start = time.perf_counter()
            await client.flush(timeout=2)  # sends a PING and waits for the PONG
            times.append(time.perf_counter() - start)
    except (NatsError, TimeoutError, OSError):
        return Finding.error(
            "round_trip", "NATS did not answer a ping within 2 s", "check the log and the load of the server"
        )
    median = statistics.median(times)
    text = f"round trip to NATS: {median * 1000:.1f} ms"
    if median > ROUND_TRIP_WARN:
        return Finding.warn(
            "round_trip", text, "run the relay closer to NATS, or add a leaf node near the relay"
        )
    return Finding.ok("round_trip", text)
