"""When a message cannot be parsed at all: find it, so that it is passed over.

The parser takes every message that a server forwards, so this is for faults of our own. Such a message ends
the connection whenever it is delivered; the one after the last that was parsed, when that happens twice, is
it.
"""

import asyncio
import logging
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.events import Reason, Rejected
from tickertape.contracts.subjects import matches
from tickertape.relay.ingest.dead_letters import DeadLetter

from tickertape.nats import direct_get
from tickertape.nats.client import faults
from tickertape.nats.direct_get import Stored
from tickertape.nats.names import Names
from tickertape.nats.streams import StreamsError

log = logging.getLogger("tickertape.intake")

TRIES: Final = 2
"""Times that a message ends the connection before it is passed over: once can be the network's fault."""

MOST_LOOKED_AT: Final = 10_000
"""Sequences that are looked at: other subjects, and holes, may lie before the one that is looked for."""

POLL: Final = 0.05


class Stumbles:
    """Counts how often a reader's connection has ended at the same place.

    Args:
        nc: its client.
    """

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._faults = faults(nc)
        self._place = -1
        self._times = 0

    def again(self, place: int) -> bool:
        """Note that reading begins again after a place; True when the message behind it is to be left out."""
        seen = faults(self._nc)
        if seen == self._faults:
            return False
        self._faults = seen
        self._times = self._times + 1 if place == self._place else 1
        self._place = place
        return self._times >= TRIES


class Unparsed(NamedTuple):
    """A message that cannot be parsed; ``stored`` is None when direct get ends the connection, too."""

    seq: int
    stored: Stored | None


async def find(
    nc: Client, stream: str, after: int, last: int, patterns: tuple[str, ...] = ()
) -> Unparsed | None:
    """Find the next message that a consumer would deliver; None when there is none up to ``last``.

    Args:
        nc: a client that has connected again.
        stream: name in NATS.
        after: sequence of the last message that was parsed.
        last: sequence to look up to.
        patterns: of the consumer; none means all.

    Raises:
        StreamsError: NATS does not answer.
    """
    for seq in range(after + 1, min(last, after + MOST_LOOKED_AT) + 1):
        before = faults(nc)
        asking = asyncio.ensure_future(direct_get.get(nc, stream, seq=seq))
        try:
            while not (await asyncio.wait({asking}, timeout=POLL))[0]:
                if faults(nc) != before:
                    return Unparsed(seq, None)
            found = asking.result()
        except (NatsError, OSError, TimeoutError) as error:
            raise StreamsError(
                f"message {seq} of stream {stream} cannot be read: {error or type(error).__name__}",
                "it is tried again",
                passing=True,
            ) from None
        finally:
            asking.cancel()
        if found is not None and (not patterns or any(matches(one, found.subject) for one in patterns)):
            return Unparsed(seq, found)
    return None


def dead_letter(found: Unparsed, epoch: str, names: Names) -> DeadLetter:
    """Make the dead letter of a message that is passed over, and log that it is."""
    seq, stored = found
    why = "it has ended the connection to NATS twice" + ("" if stored else ", and cannot be fetched")
    log.error("event %d cannot be parsed and is passed over: %s; report it as a bug of the relay", seq, why)
    return DeadLetter(
        f"{epoch}-{stored.stored_ns}-{seq}" if stored else f"{epoch}-{seq}",
        names.bare(stored.subject) if stored else "unreadable",
        stored.data if stored else None,
        Rejected(Reason.UNREADABLE, why),
        stored.header_block if stored else None,
    )


__all__ = ["Stumbles", "Unparsed", "dead_letter", "find"]
