"""ASGI endpoint of ``GET /events``."""

from dataclasses import dataclass

from starlette.types import Scope
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import Grant
from tickertape.relay.endpoints.history import History, Query, parse
from tickertape.relay.endpoints.read_endpoint import ReadEndpoint
from tickertape.relay.transport.connections import Connections


@dataclass(frozen=True, slots=True)
class _Page:
    query: Query
    filter: Filter


class HistoryEndpoint(ReadEndpoint[_Page]):
    """Endpoint of ``/events`` as an ASGI application.

    Args:
        connections: connections whose authentication and limits apply.
        history: history to read.
    """

    def __init__(self, connections: Connections, history: History) -> None:
        super().__init__(connections, history.budget)
        self._history = history

    def parse(self, scope: Scope) -> _Page:
        """Parse a request."""
        return _Page(parse(scope["query_string"].decode("latin-1")), Filter(()))

    def authorize(self, page: _Page, grant: Grant) -> _Page:
        """Restrict a query to what a grant allows."""
        request = page.query.request
        return _Page(page.query, grant.intersect(request.subjects, request.level, request.where))

    async def read(self, page: _Page, client: str) -> bytes:
        """Return a page as JSON."""
        return await self._history.page(page.query, page.filter, self._connections.clock())
