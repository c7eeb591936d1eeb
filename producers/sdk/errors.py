"""Errors of publishing an event."""

from tickertape.contracts.events import Rejection

from tickertape.errors import EXIT_DENIED, TickertapeError
from tickertape.nats.errors import PermissionDenied


class InvalidEvent(TickertapeError, ValueError):
    """Event that violates the contract; it was not sent.

    Args:
        subject: subject of the event, without the deployment's prefix.
        rejection: rule that the event violates, and how.
    """

    def __init__(self, subject: str, rejection: Rejection) -> None:
        super().__init__(subject, rejection)
        self.subject = subject
        self.rejection = rejection

    def __str__(self) -> str:
        return f"event for {self.subject[:80]!r} violates the contract: {self.rejection}"


class PublishError(TickertapeError):
    """Event that was not acknowledged; it may or may not be in the stream.

    Publishing it again with the same ``msg_id`` is safe within the stream's duplicate window.

    Args:
        subject: subject of the event.
        message: what happened.
        hint: what to do about it.
    """

    def __init__(self, subject: str, message: str, hint: str) -> None:
        super().__init__(subject, message, hint)
        self.subject = subject
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"event for {self.subject[:80]!r} was not acknowledged: {self.message}; {self.hint}"


class PublishRejected(PublishError):
    """Event that JetStream rejected; it is not in the stream.

    Args:
        subject: subject of the event.
        code: JetStream's ``err_code``, such as 10071 (wrong last sequence of the subject).
        description: JetStream's description of the error.
    """

    def __init__(self, subject: str, code: int, description: str) -> None:
        super().__init__(subject, f"JetStream rejected it: {description} (code {code})", _hint(code))
        self.code = code
        self.description = description


class PublishDenied(PublishError):
    """Event that this NATS user may not publish, or whose acknowledgement it may not receive.

    While permissions are being changed, the event may be in the stream nevertheless.

    Args:
        subject: subject of the event.
        denied: permission that NATS denies.

    Attributes:
        denied_subject: subject that the user may not use; that of the event, or the inbox of the publisher.
        user: how the publisher authenticated; never contains a secret.
    """

    exit_code = EXIT_DENIED

    def __init__(self, subject: str, denied: PermissionDenied) -> None:
        super().__init__(subject, denied.message, denied.hint)
        self.denied_subject = denied.subject
        self.user = denied.user


class PublishDropped(PublishError):
    """Event that was dropped to admit a newer one; the policy is ``drop_oldest``."""


class PublisherFull(PublishError):
    """Event that was not sent because the publisher is at capacity; the policy is ``raise``."""


def closed_error(subject: str) -> PublishError:
    """Return the error of an event that cannot be published because the publisher is closed."""
    return PublishError(subject, "the publisher is closed", "keep it open until all events are acknowledged")


def _hint(code: int) -> str:
    match code:
        case 10070 | 10071 | 10164:
            return "another producer published first; read the newest event of the subject before retrying"
        case 10054:
            return "make the event smaller, or raise the stream's max_msg_size"
    return "check the stream's settings ('tickertape streams show')"
