"""A relay's components run and end together."""

import asyncio
from typing import Any

import pytest
from tickertape.relay.flush_loop import FlushLoop
from tickertape.relay.relay import Components
from tickertape.relay.transport.connections import Connections

from tests.support.clients.fake_link import Stage
from tests.support.programs.relay_process import PATIENCE


class EndingIngest:
    """Ingest that ends.

    Args:
        error: exception to raise; None returns.
    """

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    async def run(self, ready: asyncio.Event) -> None:
        """Return or raise."""
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("error", [None, asyncio.CancelledError(), OSError("gone")], ids=repr)
def test_an_ending_component_ends_all(error: BaseException | None) -> None:
    """A component that ends stops all others, so that no client stays connected to a broken relay."""

    async def scenario() -> None:
        stage = Stage()
        connections = Connections(stage.hub, lambda: stage.now)
        flush = FlushLoop(
            stage.hub.fanout, stage.hub.stats, asyncio.Event(), lambda: stage.now, lambda _: None
        )
        ingest: Any = EndingIngest(error)
        history: Any = None
        components = Components(stage.hub, connections, ingest, flush, history, history, None, None)
        running = asyncio.create_task(components.run(asyncio.Event()))
        done, _ = await asyncio.wait([running], timeout=PATIENCE)
        assert done == {running}
        if isinstance(error, asyncio.CancelledError):
            assert running.cancelled()
        elif error is None:
            running.result()
        else:
            with pytest.raises(OSError, match="gone"):
                running.result()

    asyncio.run(scenario())
