"""Liveness of the task that runs a relay."""

import asyncio

from tickertape.relay.endpoints.liveness import Liveness
from tickertape.relay.endpoints.routes import ops_app
from tickertape.relay.workers.ipc import fetch


def test_a_task_that_has_ended_is_not_alive() -> None:
    """``/livez`` is 200 while the task serves, and 503 once it only cleans up, or is gone."""

    async def serve(then: str) -> Liveness:
        liveness = Liveness()
        assert liveness.check()
        if then == "ended":
            liveness.ended = True
            assert not liveness.check()
        return liveness

    async def check() -> None:
        for then in ("ended", "gone"):
            liveness = await asyncio.create_task(serve(then))
            assert not liveness.check()

    asyncio.run(check())


def test_livez_reports_it() -> None:
    """The status of ``/livez`` follows."""
    alive = True

    async def unused() -> None:
        raise AssertionError

    app = ops_app(unused, unused, unused, lambda: alive)  # type: ignore[arg-type]
    assert asyncio.run(fetch(app, "/livez")) == (200, "ok\n")
    alive = False
    assert asyncio.run(fetch(app, "/livez")) == (503, "ending\n")
