"""Tells changes so that of many monitors exactly one tells each: on the condition of the last word.

Every change is published with ``Nats-Expected-Last-Subject-Sequence``. Of two monitors that tell the same one
wins; the other is refused (10071), reads what was said, and adopts it.

Invariants:

1. Probing never waits for NATS: changes are kept, in order per subject, until they are acknowledged.
2. A change is told once: it keeps its message id through every try.
3. What is kept is bounded: per subject the newest ``MAX_KEPT`` changes.
4. Once another's word is heard on a subject, nothing that was to be told before it is told any more.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.events import EventModel
from tickertape.producers.sdk.errors import InvalidEvent, PublishError, PublishRejected
from tickertape.producers.sdk.publisher import Publisher

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.provisioning import RETRY_DELAY

MAX_KEPT: Final = 64
"""Changes on one subject that wait for NATS; beyond that the oldest is given up, and that is said."""

WRONG_LAST_SEQUENCE: Final = 10071
_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"


class StatusPublisher:
    """What is still to be told, and where each subject stands in EVENTS.

    Args:
        publisher: entered; the caller closes it.
        names: the deployment.
        overruled: called with subject, sequence and body of what stands where our word was to; True when
            it is another's, which it has then taken over.
        say: gets lines for the operator.
    """

    def __init__(
        self,
        publisher: Publisher,
        names: Names,
        overruled: Callable[[str, int, bytes], bool],
        say: Callable[[str], None],
    ) -> None:
        self.told = 0
        self._publisher = publisher
        self._names = names
        self._overruled = overruled
        self._say = say
        self._sequences: dict[str, int] = {}
        self._waiting: dict[str, deque[tuple[str, EventModel]]] = {}
        self._something = asyncio.Event()
        self._complained = False

    @property
    def pending(self) -> int:
        """Changes that NATS has not acknowledged."""
        return sum(map(len, self._waiting.values()))

    def waits(self, subject: str) -> bool:
        """True while something on a subject is not acknowledged."""
        return subject in self._waiting

    def heard(self, subject: str, sequence: int) -> bool:
        """Note where a subject stands; False when that was known, as it is of our own words."""
        if sequence <= self._sequences.get(subject, 0):
            return False
        self._sequences[subject] = sequence
        return True

    def expects(self, subject: str) -> int:
        """Sequence of the last word on a subject; 0 when EVENTS has none."""
        return self._sequences.get(subject, 0)

    def keep(self, event: EventModel) -> None:
        """Have an event told, after those on its subject that wait already."""
        kept = self._waiting.setdefault(event.subject, deque())
        if len(kept) == MAX_KEPT:
            kept.popleft()
            self._say(f"{event.subject}: more than {MAX_KEPT} changes wait for NATS; the oldest is lost")
        kept.append((secrets.token_hex(12), event))
        self._something.set()

    def drop(self, subject: str) -> None:
        """Another has spoken: what was to be told on a subject is old."""
        self._waiting.pop(subject, None)

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            await self._something.wait()
            if not await self.tell_once():
                await asyncio.sleep(RETRY_DELAY)
            if not self._waiting:
                self._something.clear()

    async def tell_once(self) -> bool:
        """Publish the oldest change of each subject, all at once; False when one has to be tried again."""
        heads = {subject: kept[0] for subject, kept in self._waiting.items()}
        # The condition is taken with the change: a word that is heard between the two overrules the change.
        outcomes = await asyncio.gather(
            *(
                self._tell(subject, self.expects(subject), msg_id, event)
                for subject, (msg_id, event) in heads.items()
            )
        )
        for (subject, head), done in zip(heads.items(), outcomes, strict=True):
            kept = self._waiting.get(subject)
            if done and kept and kept[0] is head:
                kept.popleft()
            if kept is not None and not kept:
                del self._waiting[subject]
        return all(outcomes)

    async def _tell(self, subject: str, expected: int, msg_id: str, event: EventModel) -> bool:
        """Publish one change; False when it has to be tried again."""
        headers = {_EXPECTED: str(expected)}
        try:
            ack = await self._publisher.publish(event, msg_id=msg_id, headers=headers)
        except PublishRejected as error:
            if error.code == WRONG_LAST_SEQUENCE:
                return await self._reread(subject, event)
            self._say(f"a change is lost: {error}")
        except InvalidEvent as error:
            self._say(f"a change is lost: {error}")
        except PublishError as error:
            if not self._complained:
                self._say(f"{error}; trying on")
            self._complained = True
            return False
        else:
            self.heard(subject, ack.seq)
            self.told += 1
            self._complained = False
        return True

    async def _reread(self, subject: str, event: EventModel) -> bool:
        """See what stands on a subject where an event of ours was to; True when that settles it."""
        client: Client = await self._publisher.connected()
        try:
            answer = await direct_get.get_last_message(
                client, self._names.stream("EVENTS"), self._names.subject(subject)
            )
        except (NatsError, OSError, TimeoutError):
            return False
        if answer is None:
            self._sequences.pop(subject, None)  # the last word has expired: ours is the first again
            return False
        self.heard(subject, answer.seq)
        return answer.data == event.encode() or self._overruled(subject, answer.seq, answer.data)
