"""Replacement for the parser of nats-py, which cannot read every message that a server forwards."""

from collections.abc import Awaitable, Callable, Mapping

from nats.aio.client import Client

from tickertape.nats.wire.protocol_parser import Info, Message, Ping, ProtocolParser, ServerError

RawHandler = Callable[[Message], Awaitable[object] | None]
"""Receives each message in the loop that reads the connection, which waits for what it returns."""


class OperationParser:
    """Parser that passes operations to a client, and messages with a handler of their own to that.

    Args:
        client: client of nats-py, whose private methods process the operations.
        handlers: handlers by id of the subscription; a live view.
    """

    def __init__(self, client: Client, handlers: Mapping[int, RawHandler]) -> None:
        self._client = client
        self._handlers = handlers
        self._protocol = ProtocolParser()

    def reset(self) -> None:
        """Discard all state at the start of a connection."""
        self._protocol = ProtocolParser()

    async def parse(self, data: bytes) -> None:
        client, protocol, handlers = self._client, self._protocol, self._handlers
        for operation in protocol.receive_data(data):
            # Messages come first, because nearly all operations are messages.
            if type(operation) is Message:
                sid, subject, reply, headers, body = operation
                if (handle := handlers.get(sid)) is None:
                    await client._process_msg(sid, subject, reply, body, headers)  # type: ignore[arg-type]
                else:
                    try:
                        if (rest := handle(operation)) is not None:
                            await rest
                    except Exception as error:  # as in nats-py, it does not end the connection
                        await client._error_cb(error)
            elif type(operation) is Ping:
                await client._process_ping()
            elif type(operation) is Info:
                await client._process_info(operation.parse())
            elif type(operation) is ServerError:
                await client._process_err(operation.text.decode(errors="replace"))
            else:
                await client._process_pong()
            if protocol is not self._protocol:
                return  # the connection ended in the meantime


__all__ = ["OperationParser", "RawHandler"]
