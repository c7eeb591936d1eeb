"""ASGI endpoints about gateways: ``/gateways``, their history, ``/incidents`` and ``/state``."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from starlette.routing import Route
from starlette.types import Scope
from tickertape.relay.core.grants import Grant
from tickertape.relay.endpoints.gateway_pages import GatewayPages
from tickertape.relay.endpoints.gateway_queries import (
    DEFAULT_LIMIT,
    HISTORY_KEYS,
    INCIDENT_KEYS,
    LISTING_KEYS,
    MAX_LIMIT,
    STATE_KEYS,
    GatewayQuery,
    gateway_of_path,
    parse_query,
)
from tickertape.relay.endpoints.page_budget import PageBudget
from tickertape.relay.endpoints.page_turns import PageTurns, Turn
from tickertape.relay.endpoints.read_endpoint import ReadEndpoint
from tickertape.relay.endpoints.silence_endpoint import METHODS, SilenceEndpoint
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.transport.connections import Connections

Page: TypeAlias = Callable[[GatewayQuery, Turn], Awaitable[bytes]]
"""Computes a page for an authorized query."""

_METHODS: Final = ["GET", "OPTIONS"]


class GatewayEndpoint(ReadEndpoint[GatewayQuery]):
    """Endpoint about gateways.

    Args:
        connections: connections whose authentication and limits apply.
        budget: budget of the pages in memory.
        keys: query parameters.
        limit: default number of results.
        page: returns a page for an authorized query.
        turns: turns of the pages.
    """

    def __init__(
        self,
        connections: Connections,
        budget: PageBudget,
        keys: tuple[str, ...],
        limit: int,
        page: Page,
        turns: PageTurns,
    ) -> None:
        super().__init__(connections, budget)
        self._keys = keys
        self._limit = limit
        self._page_of = page
        self._turns = turns

    def parse(self, scope: Scope) -> GatewayQuery:
        """Parse a request."""
        path = scope.get("path_params") or {}
        gateway = gateway_of_path(path) if "type" in path else None
        return parse_query(scope["query_string"].decode("latin-1"), self._keys, gateway, self._limit)

    def authorize(self, query: GatewayQuery, grant: Grant) -> GatewayQuery:
        """Restrict a query to what a grant allows."""
        return query.authorize(grant)

    async def read(self, query: GatewayQuery, client: str) -> bytes:
        """Return a page as JSON."""
        async with self._turns.take(client) as turn:
            return await self._page_of(query, turn)


def gateway_routes(connections: Connections, history: GatewayHistory, budget: PageBudget) -> list[Route]:
    """Return the routes about gateways.

    Args:
        connections: connections whose authentication and limits apply.
        history: history of gateways.
        budget: budget of the pages in memory.
    """
    pages = GatewayPages(history, lambda: connections.hub.stats.unix(connections.clock()))

    turns = PageTurns()

    def route(path: str, keys: tuple[str, ...], limit: int, page: Page) -> Route:
        return Route(path, GatewayEndpoint(connections, budget, keys, limit, page, turns), methods=_METHODS)

    silence = SilenceEndpoint(connections, history)
    control = [Route("/gateways/{type}/{id:path}/silence", silence, methods=METHODS)]
    return [
        *(control if history.control else []),
        route("/gateways", LISTING_KEYS, MAX_LIMIT, pages.listing),
        route("/gateways/{type}/{id:path}/history", HISTORY_KEYS, DEFAULT_LIMIT, pages.statuses),
        route("/incidents", INCIDENT_KEYS, DEFAULT_LIMIT, pages.incidents),
        route("/state", STATE_KEYS, MAX_LIMIT, pages.state),
    ]
