"""Errors of requests: JetStream cannot provide a stream, or NATS denies a permission.

NATS does not reply to what is denied; it reports the violation on the connection (``-ERR``), with the action
and the subject. ``tickertape.nats.wire.denial_tracker`` relates the report to the operations that wait for a
reply, which then fail immediately with ``PermissionDenied``. What only the hub denies to a leaf node is
reported nowhere: its subscribers are hidden, so that requests fail as if nothing received them.
"""

from typing import Final, Literal, Self

from nats.errors import Error as NatsError

from tickertape.errors import EXIT_DENIED, OperatorError
from tickertape.text import printable

Action = Literal["publish", "subscribe"]

MAX_SHOWN: Final = 200
"""Characters of a subject that are shown."""

DENIAL_REPORT_INTERVAL: Final = 60.0
"""Seconds between two reports of the same denied permission that no operation waits for."""


class StreamsError(OperatorError):
    """Failure of JetStream to provide a stream as the contract requires.

    Args:
        message: what happened, and to which stream.
        hint: what the operator can do.
        transient: whether the failure may resolve itself, as while a server starts or a cluster elects a
            leader.
    """

    def __init__(self, message: str, hint: str, *, transient: bool = False) -> None:
        super().__init__(message, hint)
        self.transient = transient


class StreamMissing(StreamsError):
    """Missing stream that this user may not create; another user has to create it.

    Args:
        stream: name of the stream in NATS.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"stream {stream} does not exist, and this NATS user may not create it",
            "run 'tickertape streams apply' as a user with that permission",
            transient=True,
        )


class UnfinishedRestore(StreamsError):
    """Stream that is being restored from a backup, or whose restore was interrupted.

    Args:
        stream: name of the stream in NATS.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"stream {stream} is not restored completely",
            "wait until 'tickertape streams restore' has finished, or run it again",
            transient=True,
        )


class PermissionDenied(StreamsError, NatsError):
    """Permission that NATS denies to this user; the connection stays open.

    Args:
        action: what is denied.
        subject: subject or pattern that the user may not use.
        user: how the program authenticated, such as ``NATS user 'relay'``; never contains a secret.
        inbox: whether replies to this program arrive on the subject.

    Attributes:
        action, subject, user, inbox: the arguments.
        reported: whether an operation that waited has failed with this error.
    """

    exit_code = EXIT_DENIED

    def __init__(self, action: Action, subject: str, user: str, *, inbox: bool = False) -> None:
        verb = "publish" if action == "publish" else "subscribe"
        shown = printable(subject)[:MAX_SHOWN]
        option = ", or set --nats-inbox-prefix to the inbox that it may use" if inbox else ""
        super().__init__(
            f'{user} may not {verb} to "{shown}"',
            f"grant it {verb} permission as in deploy/nats/permissions.conf{option}",
        )
        self.action = action
        self.subject = subject
        self.user = user
        self.inbox = inbox
        self.reported = False

    def copy(self) -> Self:
        """Return an equal error, because raising one error in several tasks mixes up their tracebacks."""
        return type(self)(self.action, self.subject, self.user, inbox=self.inbox)


__all__ = [
    "DENIAL_REPORT_INTERVAL",
    "Action",
    "PermissionDenied",
    "StreamMissing",
    "StreamsError",
    "UnfinishedRestore",
]
