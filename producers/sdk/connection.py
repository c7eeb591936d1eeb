"""A link's connection to NATS: opened in the background, with one inbox for all answers, and its state.

Invariants:

1. Waiting for NATS never ends by itself; what ends is what waiting cannot mend, and then ``fatal`` says so.
2. A connection that was made anew is told once, since the old one may have lost what was on its way.
3. Who brought a client closes it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from tickertape.producers.sdk.ack_window import Entry
from tickertape.producers.sdk.drop_report import LOGGER
from tickertape.producers.sdk.errors import PublishError
from tickertape.producers.sdk.publish_ack import NO_STREAM

from tickertape.nats import connection as connect
from tickertape.nats.credentials import Access, AccessError
from tickertape.urls import shown

SOCKET_BACKLOG: Final = 1024 * 1024
"""Bytes that may wait for the socket before the sweep takes over sending. nats-py waits for the socket beyond
2 MiB, and swallows a cancellation while it does: a caller must never wait there."""


_log = logging.getLogger(LOGGER)


class Connection:
    """Arguments as of ``Publisher``.

    Attributes:
        client: None until there is one.
        inbox: first tokens of the reply subjects.
        trouble: what was heard last of a connection that fails; empty while it is well.
        fatal: set when there will never be a connection.
    """

    def __init__(
        self,
        url: str,
        *,
        access: Access | None,
        name: str,
        client: Client | None,
        on_down: Callable[[str], None] | None,
        on_up: Callable[[], None] | None,
    ) -> None:
        self.url = url
        self.name = name
        self.client = client
        self.inbox = ""
        self.trouble = ""
        self.fatal: Exception | None = None
        self._access = access
        self._owns_client = client is None
        self._on_down = on_down
        self._on_up = on_up
        self._subscription: Subscription | None = None
        self._reconnects = 0
        self._ready = asyncio.Event()  # set at the first connection, and when there will be none
        self._closed = False

    def __repr__(self) -> str:
        return f"<Connection {shown(self.url)} {'online' if self.online else 'away'}>"

    @property
    def online(self) -> bool:
        """True while NATS is reached."""
        return self._subscription is not None and self.client is not None and self.client.is_connected

    def can_take(self, size: int) -> bool:
        """Tell whether an event can be handed over without waiting, and in its turn."""
        if self._subscription is None or self.client is None or not self.client.is_connected:
            return False
        # A new connection first gets what the old one may have lost.
        return (
            self.client.stats["reconnects"] == self._reconnects
            and self.client.pending_data_size + size < SOCKET_BACKLOG
        )

    def renewed(self) -> bool:
        """Tell, once, that the connection was made anew."""
        if self.client is None or self.client.stats["reconnects"] == self._reconnects:
            return False
        self._reconnects = self.client.stats["reconnects"]
        return True

    async def ready(self) -> Client:
        """Wait until NATS was reached; raises when it never will be."""
        await self._ready.wait()
        if self.fatal is not None:
            raise self.fatal
        assert self.client is not None
        return self.client

    async def open(self, answered: Callable[[Msg], Awaitable[None]]) -> None:
        """Connect, for as long as it takes, and subscribe to the inbox; look at ``fatal`` afterwards.

        Args:
            answered: gets each answer.
        """
        try:
            if self.client is None:
                self.client = await connect.connect(
                    self.url,
                    name=self.name,
                    access=self._access,
                    on_up=self._is_up,
                    on_down=self._is_down,
                    on_error=self._has_trouble,
                )
            client = self.client
            self.inbox = client.new_inbox()
            self._reconnects = client.stats["reconnects"]
            self._subscription = await client.subscribe(f"{self.inbox}.*", cb=answered)
        except (OSError, ValueError, NatsError) as error:
            # Waiting for NATS is nats-py's own business; what ends here is no matter of waiting.
            self.fatal = error
        self._ready.set()

    def gave_up(self, entry: Entry[Any], seconds: float) -> PublishError:
        """Make the error of an event whose deadline has passed."""
        if not self.online:
            if connect.refused(self.trouble):
                what = f"not sent within {seconds:g} s"
                return PublishError(entry.subject, what, connect.trouble(self.url, self.trouble))
            reason = f" ({self.trouble})" if self.trouble else ""
            what = f"NATS at {shown(self.url)} was away{reason} for {seconds:g} s"
            return PublishError(entry.subject, what, "start it, or check the address and the credentials")
        if entry.trouble:
            what = f"{entry.trouble}, for {seconds:g} s and {entry.tries} tries"
            remedy = "look at the server's log and its load"
            if entry.trouble == NO_STREAM:
                remedy = "create the streams with 'tickertape streams apply'"
            return PublishError(entry.subject, what, remedy)
        what = f"no answer from JetStream for {seconds:g} s and {entry.tries} tries"
        remedy = self.trouble or "look at the server's log, and at the permissions of this user"
        return PublishError(entry.subject, what, remedy)

    def no_link(self, subject: str) -> PublishError:
        """Make the error of an event that cannot be sent at all."""
        if isinstance(self.fatal, AccessError):
            return PublishError(subject, self.fatal.what, self.fatal.remedy)
        if self.fatal is not None:
            return PublishError(subject, str(self.fatal), "check the address")
        return PublishError(subject, "the publisher is closed", "keep it open until everything is published")

    def no_news(self) -> None:
        """From now on, do not tell that NATS is away: the program is closing."""
        self._closed = True

    async def close(self) -> None:
        """Leave the inbox, and close the client if it is our own."""
        if self._subscription is not None and self.client is not None and self.client.is_connected:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()
        if self._owns_client and self.client is not None:
            await connect.close(self.client)

    async def _is_up(self) -> None:
        self.trouble = ""
        if self._on_up:
            self._on_up()

    async def _is_down(self, reason: str) -> None:
        self.trouble = reason
        if self._on_down and not self._closed:
            self._on_down(reason)
        elif connect.refused(reason) and not self._closed:
            # A program that looks at nothing but its log must not wait for ever without a word.
            _log.error("%s: %s; waiting until it is mended", self.name, connect.trouble(self.url, reason))

    async def _has_trouble(self, error: Exception) -> None:
        self.trouble = str(error) or type(error).__name__
