"""uvicorn on the main and the ops port, on listeners of our own."""

import asyncio
import contextlib
import errno
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp
from tickertape.relay.transport.http_protocol import RESPONSE_TIMEOUT, GuardedHttp
from tickertape.relay.transport.listener import BACKLOG, Listener, bind

from tickertape.process.listeners import ListenError, listener_lost
from tickertape.urls import host_port


def listen(host: str, port: int, option: str, *, shared: bool = False) -> Listener:
    """Take a port at all addresses of a host, before anything else starts.

    It is listened on right away: until then Linux gives it to the next program, or the next option, too.

    Args:
        host: name or address.
        port: 0 takes a free one.
        option: name of the option to change, for the error.
        shared: with other processes of the same user, among whom the system spreads the connections; the
            one that accepts them begins to listen.

    Raises:
        ListenError: the address cannot be had.
    """
    try:
        return bind(host, port, shared=shared)
    except OSError as error:
        where = host_port(host, port)
        if error.errno == errno.EADDRINUSE:
            raise ListenError(f"{where} is in use by another program", f"give another {option}") from None
        # A port can be reserved for others; all else is wrong with the host.
        other = option if error.errno == errno.EACCES else option.replace("port", "host")
        raise ListenError(
            f"{where} cannot be listened on: {error.strerror or error}", f"give another {other}"
        ) from None


def same_port_error(error: ListenError, port: int, taken: int) -> ListenError:
    """Explain an error of ``listen`` where the main and the ops port are the same.

    Args:
        error: of the second of the two.
        port: that it asked for.
        taken: port of the first.
    """
    if port != taken:
        return error
    return ListenError(f"--port and --ops-port are both {port}", "give another --ops-port")


class HttpServer(uvicorn.Server):
    """One listener with its pages; signals are the application's own business.

    Args:
        app: the pages.
        listener: bound sockets; they are closed at the end.
        websocket: builds what an upgrade is handed to; None serves no WebSocket.
        http: builds what a socket is handed to.

    Attributes:
        address: ``host:port`` that it listens on.
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
                proxy_headers=False,  # relay/auth/client_address.py reads them, for WebSockets too
                backlog=BACKLOG,
                timeout_graceful_shutdown=2,
            )
        )
        self._listener = listener
        self.address = listener.address
        self.servers: list[asyncio.Server] = []
        self._leaving = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __repr__(self) -> str:
        return f"HttpServer({self.address})"

    def stop_accepting(self) -> None:
        """Close the listener; connections that are open stay."""
        self._leaving = True
        for server in self.servers:
            server.close()

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does every tenth of a second; end when one of the listener's sockets is lost."""
        if not self._leaving and not self._listener.is_listening():
            return True
        return await super().on_tick(counter)

    async def run_until_stopped(self) -> None:
        """Serve until ``should_exit`` is set.

        Raises:
            ListenError: the address cannot be listened on, or is not any more.
        """
        try:
            await self.serve(sockets=self._listener.sockets)
        except OSError as error:
            what = f"{self.address} cannot be listened on: {error.strerror or error}"
            raise ListenError(what, "start the program again") from None
        if not self.should_exit:
            raise listener_lost(self.address)


__all__ = ["BACKLOG", "RESPONSE_TIMEOUT", "GuardedHttp", "HttpServer", "ListenError", "listen"]
