"""``tickertape check``: say what is wrong with a configuration, or with what the relay would meet here."""

import sys
from pathlib import Path

from nats.aio.client import Client
from pydantic_settings import CliPositionalArg

from contracts import connect
from contracts.access import Access
from contracts.connect import DEFAULT_URL, shown
from contracts.streams import Names, StreamsError, differences, request, server_version, too_old
from relay.config import RelaySettings
from relay.hardening import findings


class CheckSettings(RelaySettings):
    """Checks a monitor's file when one is given, else the relay's settings, NATS and its streams."""

    file: CliPositionalArg[Path | None] = None


async def reach(url: str, access: Access) -> Client | None:
    """Connect once, without waiting for NATS to come; says in one line when it is not there, or refuses."""
    try:
        return await connect.once(url, name="tickertape-check", access=access)
    except OSError as error:
        print(error, file=sys.stderr)
        return None


async def run(settings: CheckSettings) -> int:
    """Check, a line for each thing.

    Returns:
        0 when all is well, 1 when something has to be mended.
    """
    if settings.file is not None:
        from producers.monitor.check import check

        problems = check(settings.file)
        for problem in problems:
            print(problem)
        if not problems:
            print(f"ok    {settings.file}: nothing to mend")
        return 1 if problems else 0

    insecure = findings(settings)
    for finding in insecure:
        print(finding)
    code = 1 if any(finding.weight == "mend" for finding in insecure) else 0
    return max(code, await _check_nats(settings))


async def _check_nats(settings: CheckSettings) -> int:
    url = settings.nats_url or DEFAULT_URL
    client = await reach(url, settings.access())
    if client is None:
        return 1
    try:
        version = server_version(client)
        print(f"ok    NATS {version[0]}.{version[1]} answers at {shown(url)}")
        for line in too_old(version):
            print(f"note  {line}")
        await request(client, "INFO")
        print("ok    JetStream is on")
        found = await differences(client, Names(settings.subject_prefix))
        for difference in found:
            if difference.setting == "name":
                print(f"note  stream {difference.stream} is absent; the relay makes it when it starts")
            elif difference.breaks:
                print(f"mend  {difference}; run 'tickertape streams apply'")
            else:
                print(f"note  {difference}; kept as it is")
        if not found:
            print("ok    all streams are as the contract has them")
        return 1 if any(d.breaks and d.setting != "name" for d in found) else 0
    except StreamsError as error:
        print(f"mend  {error}")
        return 1
    finally:
        await connect.close(client)
