"""Subclass of nats-py's client that enforces TLS where it is required, and always reconnects.

No message can stop the client: its parser accepts every subject, reply subject and header block that a server
forwards. Subjects that are not UTF-8 contain their bytes as lone surrogates (``surrogateescape``); code
that receives subjects from untrusted producers must validate them first, as ``decode`` does.

The class overrides private methods of nats-py (2.16), because it offers no other hook, to ensure that:

* credentials are never sent in the clear: if TLS is required and the server does not offer it, the connection
  fails (nats-py would continue without TLS);
* credentials and certificate files are read at each connection;
* the reason for which a server rejects a client is reported;
* errors after which the server closes the connection, such as expired credentials, lead to a reconnect
  (nats-py would close the client permanently, and its user would wait forever);
* an exception in the read loop counts as a lost connection (nats-py would end the loop and stay "connected"),
  and one while reconnecting is a failed attempt (nats-py would never try again);
* what NATS denies fails immediately (``DenialTracker``; nats-py would wait for a reply until the timeout).
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from nats.aio.client import DEFAULT_BUFFER_SIZE, Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import StaleConnectionError, UnexpectedEOF

from tickertape.nats.connect_errors import (
    PermissionsViolation,
    ServerProtocolError,
    TlsError,
    parse_server_error,
)
from tickertape.nats.credentials import Access
from tickertape.nats.wire.batch_messages import BatchMessages
from tickertape.nats.wire.denial_tracker import DenialTracker
from tickertape.nats.wire.denials import PendingOperations
from tickertape.nats.wire.headers import Headers
from tickertape.nats.wire.operation_parser import OperationParser, RawHandler
from tickertape.nats.wire.transport import WireTransport
from tickertape.process.tasks import cancel_and_wait

RETRY_WAIT: Final = 0.25
"""Seconds before the next attempt to reconnect after an unexpected error."""


class SafeClient(Client):
    """NATS client, initially not connected.

    Args:
        access: credentials and certificates.
        url: one address, or several separated by commas.

    Attributes:
        access: the argument.
        url: the argument.
        protocol_error_count: number of connections that ended because the server sent invalid data.
        denials: permissions that NATS denies, and the operations that wait for a reply.
    """

    def __init__(self, access: Access, url: str) -> None:
        super().__init__()
        self.access = access
        self.url = url
        self.protocol_error_count = 0
        self.denials = DenialTracker(self)
        self._raw_handlers: dict[int, RawHandler] = {}
        # Replaces the parser of nats-py, which calls only reset() on it.
        self._ps = OperationParser(self, self._raw_handlers)  # type: ignore[assignment]
        # One ``tls://`` address makes TLS mandatory for all addresses: a failover to another one must not
        # send the credentials in the clear.
        self._tls_required = access.requires_tls or any(
            part.strip().startswith("tls:") for part in url.split(",")
        )
        # A server that does not require credentials may still grant more permissions to a known user.
        self._auth_configured = access.has_credentials
        self._certificate_checked = False  # whether this connection's server verifies client certificates
        # For WebSocket addresses nats-py creates its own transport.
        if "ws://" not in url and "wss://" not in url:
            self._transport = WireTransport()

    def connect_options(self) -> dict[str, Any]:
        """Return the arguments of ``connect`` that follow from the credentials."""
        return self.access.connect_options(self._sign)

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """TLS context, created for each connection so that renewed certificates take effect."""
        return self.access.ssl_context()

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Publish a message; if it is a request, it fails when NATS denies its subject or its inbox.

        Raises:
            PermissionDenied: replies to requests cannot arrive.
        """
        prefix = self._resp_sub_prefix
        if reply and prefix and reply.startswith(prefix.decode()):
            future = self._resp_map.get(reply[len(prefix) :])
            if (denied := self.denials.find(self.request_inbox())) is not None:
                if future is not None:
                    future.cancel()
                raise denied
            if future is not None:
                self.denials.pending.add(subject, future)
        await super().publish(subject, payload, reply, headers)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._raw_handlers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    # The methods of ``TrackedClient``.

    async def flush(self, timeout: int = 10) -> None:  # noqa: ASYNC109
        """Wait until the server has processed what was sent; nats-py's PING overtakes what is buffered."""
        if self._pending and self.is_connected and self._transport is not None:
            pending, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(pending)
        await super().flush(timeout)

    def inbox_prefix(self) -> str:
        """Return the first tokens of all inboxes."""
        return self._inbox_prefix.decode()

    def request_inbox(self) -> str:
        """Return the subject on which the replies to all requests arrive."""
        return f"{(self._resp_sub_prefix or bytearray()).decode()}*"

    def pending_requests(self) -> "list[asyncio.Future[Any]]":
        """Return the futures of the requests that wait for a reply."""
        return list(self._resp_map.values())

    def subscribed_subjects(self) -> dict[int, str]:
        """Return the subject of each subscription by its id."""
        return {sid: subscription.subject for sid, subscription in self._subs.items()}

    async def repeat_subscription(self, sid: int) -> None:
        """Send a subscription again, unless it has ended."""
        if (subscription := self._subs.get(sid)) is not None:
            await self._send_subscribe(subscription)
            if subscription._max_msgs:
                await self._send_unsubscribe(sid, limit=subscription._max_msgs)

    def _sign(self, nonce: str) -> bytes:
        keys = self.access.read_key_pair()
        if self.access.nkey_file is not None:
            # nats-py reads this attribute right after it calls the signature callback.
            self._public_nkey = keys.public_key
        return base64.b64encode(keys.sign(nonce.encode()))

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self.denials.stop()
        # nats-py cancels its reconnection task only once; a task that misses it would reconnect a closed
        # client.
        task = self._reconnection_task
        if task is not None and task is not asyncio.current_task():
            await cancel_and_wait(task)
        if isinstance(self._transport, WireTransport):
            self._transport.closing = True
        await super()._close(status, do_cbs)

    async def drain(self) -> None:
        """Drain and close; asyncio would report the future of nats-py's own method if it is cancelled."""
        draining = [asyncio.create_task(subscription._drain()) for subscription in self._subs.values()]
        await asyncio.sleep(0)  # they begin while the client is connected
        self._status = Client.DRAINING_SUBS
        try:
            if draining:
                await asyncio.wait(draining, timeout=self.options["drain_timeout"])
        finally:
            await cancel_and_wait(*draining)
            self._status = Client.DRAINING_PUBS
            await self.flush()
            await self._close(Client.CLOSED)

    async def _attempt_reconnect(self) -> None:
        """Reconnect, whatever goes wrong: an error that nats-py does not expect would end this task."""
        while True:
            try:
                await super()._attempt_reconnect()
            except asyncio.InvalidStateError:
                pass  # this attempt is over; one that it has replaced has set the same future
            except Exception as error:
                if self._reconnection_task is asyncio.current_task() and not self.is_closed:
                    self._status = Client.RECONNECTING
                    with contextlib.suppress(Exception):  # it may be the callback that failed
                        await self._error_cb(error)
                    await asyncio.sleep(RETRY_WAIT)
                    continue
            return

    async def _read_loop(self) -> None:
        try:
            while self._transport is not None and not (self.is_closed or self.is_reconnecting):
                if self._transport.at_eof():
                    raise UnexpectedEOF
                await self._ps.parse(await self._transport.read(DEFAULT_BUFFER_SIZE))
        except asyncio.CancelledError:
            pass  # by nats-py, which does not wait for the task
        # A lost network is not counted: from the count, readers infer that a message ended the connection.
        except (UnexpectedEOF, OSError) as error:
            await self._end_connection(error)
        except Exception as error:
            try:
                await self._end_connection(
                    ServerProtocolError(f"invalid data from the server: {str(error) or type(error).__name__}")
                )
            finally:
                # Counted after the disconnect: a reader that sees the new count waits for a reconnect.
                self.protocol_error_count += 1

    async def _end_connection(self, error: Exception) -> None:
        """Start to reconnect, even if the error callback raises."""
        try:
            await self._error_cb(error)
        finally:
            await self._process_op_err(error)

    # The originals of these two decode strictly within the read loop, which one illegal byte would end.
    async def _process_headers(self, headers: bytes | None) -> Headers | None:
        return None if headers is None else Headers(headers)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return self.msg_class(
            self, subject.decode(errors="surrogateescape"), reply.decode(errors="surrogateescape"),
            data, headers, _sid=sid,
        )  # fmt: skip

    async def _process_connect_init(self) -> None:
        self._certificate_checked = False
        self.denials.forget()
        try:
            await super()._process_connect_init()
        except OSError as error:
            # Comes before ValueError, because the error for an untrusted certificate is of both types.
            if not self._certificate_checked or not isinstance(error, ConnectionError):
                raise
            # With TLS 1.3 the server rejects a client certificate after the handshake, and the reset that
            # follows hides its alert.
            raise TlsError(
                "the server closed the connection after the handshake", "check that it trusts --nats-cert"
            ) from error
        except NatsError as error:
            # nats-py raises the base class for the text of an ``-ERR``; the
            # subclasses are classified already.
            if type(error) is not NatsError:
                raise
            raise parse_server_error(str(error).removeprefix("nats: ")) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # An exception of another type would end the reconnection task of nats-py for good.
            raise ServerProtocolError(f"invalid INFO from the server: {error}") from error

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        assert self._current_server is not None
        # A WebSocket address decides about TLS by its own scheme, before INFO arrives.
        if initial_connection and self._current_server.uri.scheme in ("nats", "tls"):
            if self._tls_required:
                if not info.get("tls_required") and not info.get("tls_available"):
                    raise TlsError(
                        "the server does not offer TLS",
                        "enable TLS on the server; nothing is sent in the clear",
                    )
                info["tls_required"] = True  # the only field that nats-py checks
            if info.get("tls_required") and info.get("tls_verify"):
                if self.access.cert is None:
                    raise TlsError(
                        "the server requires a client certificate", "set --nats-cert and --nats-key"
                    )
                self._certificate_checked = True
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        error = parse_server_error(err_msg)
        if isinstance(error, PermissionsViolation) and error.report.subject:
            self._err = self.denials.handle(error.report, self.access.describe_user(self.url))
            await self._error_cb(self._err)
            return
        # A stale connection is an ordinary loss of the connection, which the disconnect callback reports.
        if not isinstance(error, StaleConnectionError):
            self._err = error
            await self._error_cb(error)
        # The server closes the connection after nearly all other errors, and
        # reconnecting is harmless after the rest.
        if not isinstance(error, PermissionsViolation):
            await self._process_op_err(error)

    def pause_reading(self) -> None:
        """Stop reading from the socket until ``resume_reading``, unless it is a WebSocket."""
        if isinstance(self._transport, WireTransport):
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading after ``pause_reading``."""
        if isinstance(self._transport, WireTransport):
            self._transport.resume_reading()


def server_info(client: Client) -> Mapping[str, Any]:
    """Return the INFO that the server sent when the client connected."""
    return client._server_info


def watch_denials(client: Client, subjects: Iterable[str]) -> "AbstractContextManager[asyncio.Future[Any]]":
    """Yield a future that fails with ``PermissionDenied`` when NATS denies one of these subjects.

    Args:
        client: the client that publishes; for one of another class, the future stays pending.
        subjects: subjects of messages that have no reply of their own.
    """
    pending = client.denials.pending if isinstance(client, SafeClient) else PendingOperations()
    return pending.watch(subjects)


def protocol_errors(client: Client) -> int:
    """Return how many connections ended because of invalid data; 0 for a client of another class."""
    return client.protocol_error_count if isinstance(client, SafeClient) else 0


async def publish_batch(client: Client, messages: BatchMessages) -> None:
    """Publish the messages of a batch in one go, as nats-py takes long for each."""
    await client._send_command(messages.encode())
    await client._flush_pending()


async def subscribe_raw(client: Client, subject: str, handle: RawHandler) -> Subscription:
    """Subscribe without the queue, the task and the parsed headers of nats-py, which take most of its time.

    Args:
        client: client of this package.
        subject: subject or pattern.
        handle: receives each message in the loop that reads the connection, which waits for what it returns.
    """
    assert isinstance(client, SafeClient)
    subscription = await client.subscribe(subject)
    client._raw_handlers[subscription._id] = handle
    return subscription


__all__ = ["SafeClient", "protocol_errors", "publish_batch", "server_info", "subscribe_raw", "watch_denials"]
