"""Identity of the stream that the relay reads: whether it is still the one that its cursors refer to.

A stream can be deleted and recreated, or restored from a backup, under the same name. A server that lost its
newest writes in a power failure assigns their sequences again.
"""

from typing import Any

from nats.aio.client import Client
from tickertape.relay.ingest.unparsable_messages import UnparsableMessageError, query_stored_ns

from tickertape.names import Names
from tickertape.nats.direct_get import parse_time_ns
from tickertape.nats.streams import StreamsError, epoch_of, provision, stream_info


class StreamIdentity:
    """Identity of a stream, by its creation time and its newest message.

    Args:
        stream: name of the stream.
        names: names of all streams of the deployment, to recreate a missing one.

    Attributes:
        newest: sequence and storage time of the newest message; None if unknown. Set for each message.
    """

    __slots__ = ("_names", "_stream", "newest")

    def __init__(self, stream: str, names: Names) -> None:
        self.newest: tuple[int, int] | None = None
        self._stream = stream
        self._names = names

    async def read_info(self, nc: Client) -> dict[str, Any]:
        """Return the server's description of the stream; a missing stream is created.

        Raises:
            StreamsError: the stream was deleted again, or violates the contract.
        """
        info = await stream_info(nc, self._stream)
        if info is None:
            await provision(nc, self._names)
            info = await stream_info(nc, self._stream)
            if info is None:
                raise StreamsError(f"stream {self._stream} was deleted", "recreating it", transient=True)
        return info

    def begin(self, info: dict[str, Any]) -> tuple[int, int | None]:
        """Adopt a stream; return its last sequence, and the storage time of that message if it is known."""
        state = info["state"]
        head = int(state["last_seq"])
        # If messages were deleted, the last stored one may not have the last sequence.
        complete = state.get("messages") and not state.get("num_deleted")
        stored_ns = parse_time_ns(state.get("last_ts", "")) if complete else None
        self.newest = None if stored_ns is None else (head, stored_ns)
        return head, stored_ns

    async def was_replaced(self, nc: Client, info: dict[str, Any], epoch: str, head: int) -> bool:
        """Return whether the stream was recreated, has lost its tail, or lost it and has grown since.

        Args:
            nc: client.
            info: the server's description of the stream.
            epoch: epoch of the adopted stream.
            head: last sequence that was received.
        """
        if epoch_of(info["created"]) != epoch or int(info["state"]["last_seq"]) < head:
            return True
        return await self._newest_was_replaced(nc)

    async def _newest_was_replaced(self, nc: Client) -> bool:
        """Return whether the stream now has another message at the sequence of the newest received one.

        A server that lost its newest writes in a power failure keeps the stream's creation time, and may
        since have stored more messages than it lost.
        """
        if self.newest is None:
            return False
        seq, known = self.newest
        try:
            # None proves nothing: the message is deleted, or direct reads are not allowed.
            return await query_stored_ns(nc, self._stream, seq) not in (None, known)
        except UnparsableMessageError:
            self.newest = None  # unknown until the next message arrives
            return False
