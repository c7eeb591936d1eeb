"""The ops port of a relay with several workers: the pages that each would have, for the whole."""

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from tickertape.relay.endpoints.routes import site
from tickertape.relay.metrics.catalog import ProcessMetrics, RelayCollector, render
from tickertape.relay.workers.aggregate import Whole


def supervisor_pages(whole: Whole) -> ASGIApp:
    """``/metrics``, ``/livez``, ``/readyz`` and ``/statusz``."""

    async def metrics(request: Request) -> Response:
        reading = await whole.collect()
        answer = CollectorRegistry(auto_describe=False)
        for collector in (RelayCollector(lambda: reading), ProcessMetrics(reading.process), whole.slots):
            answer.register(collector)
        body, content_type = render(answer, request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    async def live(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readiness(request: Request) -> Response:
        ready = await whole.ready()
        return PlainTextResponse("ready\n") if ready else PlainTextResponse("not ready\n", 503)

    async def status(request: Request) -> Response:
        return JSONResponse(await whole.status())

    return site(
        [
            Route("/metrics", metrics),
            Route("/livez", live),
            Route("/readyz", readiness),
            Route("/statusz", status),
        ]
    )
