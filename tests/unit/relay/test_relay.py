"""A relay's parts run together, and end together."""

import asyncio
from typing import Any

import pytest
from tickertape.relay.relay import Components
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.flush_loop import FlushLoop

from tests.support.clients.fake_link import Stage
from tests.support.programs.relay_process import PATIENCE


class Ending:
    """An ingest that ends in one way or another.

    Args:
        how: what it raises; None returns.
    """

    def __init__(self, how: BaseException | None) -> None:
        self._how = how

    async def run(self, ready: asyncio.Event) -> None:
        """End."""
        if self._how is not None:
            raise self._how


@pytest.mark.parametrize("how", [None, asyncio.CancelledError(), OSError("gone")], ids=repr)
def test_a_part_that_ends_ends_all(how: BaseException | None) -> None:
    """Without it there is no relay, though its clients would still be pinged."""

    async def work() -> None:
        stage = Stage()
        connections = Connections(stage.hub, lambda: stage.now)
        flush = FlushLoop(
            stage.hub.fanout, stage.hub.stats, asyncio.Event(), lambda: stage.now, lambda _: None
        )
        ingest: Any = Ending(how)
        history: Any = None
        running = asyncio.create_task(
            Components(stage.hub, connections, ingest, flush, history, None).run(asyncio.Event())
        )
        done, _ = await asyncio.wait([running], timeout=PATIENCE)
        assert done == {running}
        if isinstance(how, asyncio.CancelledError):
            assert running.cancelled()
        elif how is None:
            running.result()
        else:
            with pytest.raises(OSError, match="gone"):
                running.result()

    asyncio.run(work())
