"""Lock that one restore of a deployment holds, for as long as its process is connected.

It is a subscription rather than a stored value, so a process that was killed holds nothing: NATS ends its
subscription. Of two that start at the same moment, one wins.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from tickertape.names import Names
from tickertape.nats.backup.manifest import BackupError
from tickertape.nats.backup.transfer import subscribed
from tickertape.nats.client import watch_denials

SUBJECT: Final = "tickertape.restore"
"""Subject of the lock, without the prefix of the deployment."""

WAIT: Final = 1.0
"""Seconds to wait for the answer of another holder."""

_HOLDS: Final = b"0"
_STARTS: Final = b"1"


@contextlib.asynccontextmanager
async def restore_lock(nc: Client, names: Names) -> AsyncIterator[None]:
    """Lock the restore of a deployment while the context is active.

    Args:
        nc: a connected client.
        names: names of the deployment.

    Raises:
        BackupError: another process holds it.
        PermissionDenied: this user may not use the subject.
    """
    subject, inbox = names.subject(SUBJECT), nc.new_inbox()
    token = _STARTS + secrets.token_hex(16).encode()
    answers: list[bytes] = []

    async def answer(message: Msg) -> None:
        if message.data != token and message.reply:
            # This process may have asked before the other one listened, so a question counts as an answer.
            answers.append(message.data)
            await nc.publish(message.reply, token)

    async def receive(message: Msg) -> None:
        answers.append(message.data)

    with watch_denials(nc, [subject]) as denied:
        async with subscribed(nc, subject, answer), subscribed(nc, inbox, receive):
            await nc.flush()  # the server reports what it denies before its PONG
            await nc.publish(subject, token, reply=inbox)
            await nc.flush()
            if denied.done():
                denied.result()
            await asyncio.sleep(WAIT)
            if any(other < token for other in answers):
                raise BackupError(
                    "another restore is running", "wait until it has finished; nothing was changed"
                )
            token = _HOLDS + token[1:]
            yield


__all__ = ["SUBJECT", "restore_lock"]
