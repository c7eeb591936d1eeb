"""uvicorn servers of the main and the ops port, on listeners that the relay binds itself."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp
from tickertape.relay.core.connection_limits import Admission, Limits
from tickertape.relay.transport.acceptor import Acceptor
from tickertape.relay.transport.http.protocol import GuardedHttp
from tickertape.relay.transport.listener import BACKLOG, Listener, bind

from tickertape.net.listeners import ListenError, listen_error, listener_lost
from tickertape.net.metrics_port import MAX_CONNECTIONS
from tickertape.urls import host_port


def listen(host: str, port: int, option: str, *, shared: bool = False) -> Listener:
    """Bind a port on all addresses of a host, and listen on it before anything else starts.

    Until a socket listens, Linux lets another program, or another option of this one, bind the same port.

    Args:
        host: name or address.
        port: port number; 0 selects a free port.
        option: name of the option to change, for the error.
        shared: whether to share the port with other processes of the same user, among which the kernel
            distributes connections. The socket is then only bound; the accepting process listens on it.

    Raises:
        ListenError: the address cannot be bound.
    """
    try:
        return bind(host, port, shared=shared)
    except OSError as error:
        address = host_port(host, port)
        raise listen_error(error, address, option) from None


def ops_server(app: ASGIApp, listener: Listener) -> "HttpServer":
    """Build the server of the ops port, which has few connections.

    Args:
        app: application of the ops port.
        listener: bound sockets.
    """
    # Beyond the limit, the oldest connection of the address with most of them is closed, so that clients that
    # hold connections do not keep a scrape out.
    admission = Admission(Limits(unauthenticated=MAX_CONNECTIONS))
    acceptor = Acceptor(admission, time.monotonic, GuardedHttp)
    return HttpServer(app, listener, http=acceptor.protocol)


def same_port_error(error: ListenError, port: int, bound_port: int) -> ListenError:
    """Return a clearer error if ``listen`` failed because the main and the ops port are the same.

    Args:
        error: error of the second of the two ports.
        port: requested second port.
        bound_port: first port, which is already bound.
    """
    if port != bound_port:
        return error
    return ListenError(f"--port and --ops-port are both {port}", "choose another --ops-port")


class HttpServer(uvicorn.Server):
    """uvicorn server on one listener; signals are left to the application.

    Args:
        app: ASGI application for HTTP requests.
        listener: bound sockets; closed when the server stops.
        websocket: factory of the protocol for upgrades; None disables WebSockets.
        http: factory of the protocol for new sockets.

    Attributes:
        address: ``host:port`` that the server listens on.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: Listener,
        websocket: Callable[..., asyncio.Protocol] | None = None,
        http: Callable[..., asyncio.Protocol] = GuardedHttp,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=http,  # type: ignore[arg-type]
                ws=websocket or "none",  # type: ignore[arg-type]
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # TLS is not configured here: the acceptor starts it once it has counted the connection.
                proxy_headers=False,  # relay/auth/client_address.py parses them, also for WebSockets
                backlog=BACKLOG,
                # For HTTP responses only: an upgraded connection is no longer among uvicorn's connections.
                timeout_graceful_shutdown=2,
            )
        )
        self._listener = listener
        self.address = listener.address
        # uvicorn sets this at startup; ``stop_accepting`` may be called earlier.
        self.servers: list[asyncio.Server] = []
        self._stopping = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        # uvicorn's handlers would replace those of the relay, and stop the server without a drain.
        yield

    def __repr__(self) -> str:
        return f"HttpServer({self.address})"

    def stop_accepting(self) -> None:
        """Close the listener; open connections stay open."""
        self._stopping = True
        for server in self.servers:
            server.close()

    async def on_tick(self, counter: int) -> bool:
        """Run uvicorn's periodic tasks; return True (stop) if a socket of the listener is lost."""
        if not self._stopping and not self._listener.is_listening():
            # ``should_exit`` stays False, from which ``run_until_stopped`` concludes that the socket was
            # lost.
            return True
        return await super().on_tick(counter)

    async def run_until_stopped(self) -> None:
        """Serve until ``should_exit`` is set.

        Raises:
            ListenError: the server cannot listen on the address, or has stopped listening on it.
        """
        try:
            await self.serve(sockets=self._listener.sockets)
        except OSError as error:
            message = f"cannot listen on {self.address}: {error.strerror or error}"
            raise ListenError(message, "restart the program") from None
        if not self.should_exit:
            raise listener_lost(self.address)
