"""Check of the streams: those that are missing, and settings that differ from the contract."""

from nats.aio.client import Client

from tickertape.cli.check.finding import Finding
from tickertape.names import Names
from tickertape.nats.errors import PermissionDenied, StreamMissing, StreamsError
from tickertape.nats.jetstream_api import request
from tickertape.nats.streams import differences


async def check_streams(client: Client, names: Names) -> list[Finding]:
    """Compare the streams with the contract.

    Args:
        client: connected client.
        names: names and sizes of the deployment.

    Raises:
        StreamsError: JetStream does not reply, or this user may not see the streams.
    """
    found = []
    for difference in await differences(client, names):
        if difference.setting == "name":
            found.append(await _check_missing(client, difference.stream))
        elif difference.setting == "storage":
            hint = "NATS cannot change it: back up and delete the stream, then run 'tickertape streams apply'"
            found.append(Finding.error("streams", str(difference), hint))
        elif difference.is_breaking:
            found.append(Finding.error("streams", str(difference), "run 'tickertape streams apply'"))
        elif difference.problem:
            found.append(Finding.warn("streams", str(difference), "run 'tickertape streams apply'"))
        else:
            hint = f"left unchanged; if it is not intended, use 'nats stream edit {difference.stream}'"
            found.append(Finding.warn("streams", str(difference), hint))
    return found or [Finding.ok("streams", "all streams match the contract")]


async def _check_missing(client: Client, stream: str) -> Finding:
    try:
        # Without a configuration, JetStream creates nothing.
        await request(client, f"STREAM.CREATE.{stream}")
    except PermissionDenied:
        return Finding.from_error("streams", StreamMissing(stream))
    except StreamsError:
        pass  # granted, but not served
    return Finding.warn("streams", f"stream {stream} does not exist", "the relay creates it on startup")
