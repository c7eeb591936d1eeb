"""``tickertape check``: say what is wrong with a configuration, or with what the relay would meet here."""

import sys
from pathlib import Path

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from contracts import connect
from contracts.connect import NatsSettings, shown
from contracts.streams import Names, StreamsError, differences, request, server_version, too_old


class CheckSettings(NatsSettings):
    """Checks a monitor's file when one is given, else NATS and its streams."""

    model_config = SettingsConfigDict(env_prefix="TICKERTAPE_", frozen=True, extra="ignore")

    file: CliPositionalArg[Path | None] = None


async def reach(url: str, creds: Path | None) -> Client | None:
    """Connect once, without waiting for NATS to come; says in one line when it is not there."""
    client = Client()
    options = {"user_credentials": str(creds)} if creds else {}
    seen: list[Exception] = []

    async def quiet(error: Exception) -> None:
        seen.append(error)

    try:
        await client.connect(
            servers=[part.strip() for part in url.split(",")],
            connect_timeout=2,
            allow_reconnect=False,
            error_cb=quiet,
            **options,  # type: ignore[arg-type]
        )
    except (NatsError, OSError, TimeoutError) as error:
        reason = str(error) or (str(seen[-1]) if seen else type(error).__name__)
        print(
            f"NATS at {shown(url)} does not answer: {reason}; start it, or give --nats-url", file=sys.stderr
        )
        return None
    return client


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

    client = await reach(settings.nats_url, settings.nats_creds)
    if client is None:
        return 1
    try:
        version = server_version(client)
        print(f"ok    NATS {version[0]}.{version[1]} answers at {shown(settings.nats_url)}")
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
