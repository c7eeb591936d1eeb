"""Events that the stream let go from its middle: with a life of their own (``Nats-TTL``), or deleted by hand.

Retention moves the stream's first sequence; these leave no trace in what is read but a jump, and a jump may
as well be a subject that the relay does not take in. So the stream is asked.
"""

from collections.abc import Iterable
from typing import Any

from nats.aio.client import Client

from contracts.streams import StreamsError, info, request

Range = tuple[int, int]
"""First and last sequence."""


async def vanished(nc: Client, stream: str, first: int, last: int, seen: Iterable[int] = ()) -> list[Range]:
    """Ranges of sequences that the stream holds no more.

    Args:
        nc: a connected client.
        stream: name in NATS.
        first: sequence to begin with; what lies before the stream's first is not told.
        last: sequence to end with.
        seen: that were read before they went.

    Raises:
        StreamsError: the stream cannot be asked.
    """
    there = await info(nc, stream)
    if there is None:
        raise StreamsError(f"stream {stream} is gone", "it is made again", passing=True)
    if not there["state"].get("num_deleted"):
        return []  # nearly always
    answer: dict[str, Any] = await request(nc, f"STREAM.INFO.{stream}", {"deleted_details": True})
    read = set(seen)
    gone = [
        seq
        for seq in answer.get("state", {}).get("deleted") or ()
        if first <= seq <= last and seq not in read
    ]
    return ranges(gone)


def ranges(sequences: Iterable[int]) -> list[Range]:
    """Sequences as ranges, in order."""
    found: list[Range] = []
    for seq in sorted(sequences):
        if found and found[-1][1] == seq - 1:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return found
