"""The command ``ship`` with the folders that kubelet writes, and a real server."""

import asyncio
from pathlib import Path

from tests.integration.shipper.test_shipper import settings_of
from tests.support.clients.shipped import listening
from tickertape.cli.ship import run

ID = "0123456789abcdef" * 4
UID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


def test_events_have_the_names_of_the_container(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """The names are those of the link, also after kubelet has rotated the log; other files have none."""
    logs = tmp_path / "var" / "log"
    folder = logs / "pods" / f"trading_orders-0_{UID}" / "app"
    folder.mkdir(parents=True)
    (folder / "0.log").write_text("2026-03-02T10:30:45.1Z stdout F one\n")
    (logs / "containers").mkdir()
    (logs / "containers" / f"orders-0_trading_app-{ID}.log").symlink_to(folder / "0.log")
    (logs / "containers" / "a_b_c.log").write_text("three\n")
    paths = ("var/log/containers/*.log",)
    settings = settings_of(nats_url, nats_prefix, tmp_path, *paths, root=[str(logs / "pods")], once=True)

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            with (folder / "0.log").open("a") as file:
                file.write("2026-03-02T10:30:45.2Z stdout F late\n")
            (folder / "0.log").rename(folder / "0.log.20260302-103045")
            (folder / "0.log").write_text("2026-03-02T10:30:46.1Z stderr F two\n")
            assert await run(settings) == 0
            await shipped.read()
            found = {event["message"]: (event["source"], event["metadata"]) for event in shipped.events}
            names = {"pod": "orders-0", "namespace": "trading", "container": "app"}
            assert found == {
                "one": ("app", {**names, "stream": "stdout"}),
                "late": ("app", {**names, "stream": "stdout"}),
                "two": ("app", {**names, "stream": "stderr"}),
                "three": ("a_b_c", {}),
            }

    asyncio.run(main())
