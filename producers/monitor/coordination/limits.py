"""Limits per hour that hold over all monitors and their restarts.

Slot k of N is the message ``watchdog.limit.<kind>.<first>.<second>.<k>`` in WATCHDOG, which NATS deletes
after an hour. To take a slot is to publish it with the expected sequence 0, at which only one succeeds.

Invariants:

1. At most N slots are taken within any hour, whatever the number of monitors.
2. Without an acknowledgement, no slot counts as taken by this monitor.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from tickertape.contracts import subjects
from tickertape.producers.monitor.coordination.status_publisher import EXPECTED_SEQUENCE, WRONG_LAST_SEQUENCE

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.errors import DENIAL_REPORT_INTERVAL
from tickertape.nats.jetstream_api import describe_publish_error
from tickertape.nats.streams import StreamsError
from tickertape.rate_limit import RepeatFilter

ACK_TIMEOUT: Final = 2.0
"""Seconds for JetStream to store a slot."""


class Limits:
    """Limits of a deployment.

    Args:
        client: NATS client.
        names: subject and stream names of the deployment.
        report: receives lines for the operator.
    """

    def __init__(self, client: Client, names: Names, report: Callable[[str], None]) -> None:
        self._client = client
        self._names = names
        self._report = report
        self._reports = RepeatFilter(DENIAL_REPORT_INTERVAL)

    async def take(self, kind: str, owner: tuple[str, str], slots: int) -> bool | None:
        """Take a slot; return False if none is free, and None if NATS is unreachable or denies the slots.

        Args:
            kind: what is limited, such as ``recovery``.
            owner: two names that identify whom the limit concerns.
            slots: number of slots per hour.
        """
        prefix = f"watchdog.limit.{kind}.{_token(owner[0])}.{_token(owner[1])}"
        if not self._client.is_connected:
            return None
        try:
            while (slot := await self._find_free(prefix, slots)) is not None:
                if await self._publish(f"{prefix}.{slot}"):
                    return True
        except (NatsError, StreamsError, TimeoutError, OSError) as error:
            text = f"a limit cannot be checked, so nothing is attempted: {describe_publish_error(error)}"
            if self._reports.allow(text, time.monotonic()):
                self._report(text)
            return None
        return False

    async def _find_free(self, prefix: str, slots: int) -> int | None:
        pattern = self._names.subject(f"{prefix}.*")
        taken = await direct_get.list_subjects(self._client, self._names.stream("WATCHDOG"), pattern)
        numbers = {subject.rpartition(".")[2] for subject in taken}
        # A limit that was lowered counts the slots beyond it, too.
        if len(numbers) >= slots:
            return None
        return next(slot for slot in range(1, slots + 1) if str(slot) not in numbers)

    async def _publish(self, subject: str) -> bool:
        headers = {EXPECTED_SEQUENCE: "0", "Nats-TTL": "1h"}
        try:
            await self._client.jetstream().publish(
                self._names.subject(subject), b"", timeout=ACK_TIMEOUT, headers=headers
            )
        except APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                return False  # another monitor was faster
            raise
        return True


def _token(name: str) -> str:
    try:
        return subjects.escape(name)
    except subjects.SubjectError:
        return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=16).hexdigest()
