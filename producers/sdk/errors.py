"""The errors of an event on its way to JetStream."""

from tickertape.contracts.events import Rejection

from tickertape.errors import TickertapeError


class InvalidEvent(TickertapeError, ValueError):
    """An event breaks the contract; it was not sent.

    Args:
        subject: where it was to go, without the deployment's prefix.
        rejection: the kind of fault, and what is wrong.
    """

    def __init__(self, subject: str, rejection: Rejection) -> None:
        super().__init__(subject, rejection)
        self.subject = subject
        self.rejection = rejection

    def __str__(self) -> str:
        return f"event for {self.subject[:80]!r} breaks the contract: {self.rejection}"


class PublishError(TickertapeError):
    """An event was not acknowledged; it may or may not be in the stream.

    Publishing it again under the same ``msg_id`` is safe within the stream's duplicate window.

    Args:
        subject: where it was to go.
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
    """JetStream answered with an error; the event is not in the stream.

    Args:
        subject: where it was to go.
        code: JetStream's ``err_code``, such as 10071 (wrong last sequence of the subject).
        description: JetStream's words.
    """

    def __init__(self, subject: str, code: int, description: str) -> None:
        super().__init__(subject, f"JetStream refused it: {description} (code {code})", _hint(code))
        self.code = code
        self.description = description


class PublishDropped(PublishError):
    """The oldest event of a full window, given up for a newer one; the policy was ``drop_oldest``."""


class PublisherFull(PublishError):
    """The window is full, and the policy was ``raise``; this event was not sent."""


def _hint(code: int) -> str:
    match code:
        case 10070 | 10071 | 10164:
            return "another producer was first; read the subject's newest event and decide again"
        case 10054:
            return "make the event smaller, or raise the stream's max_msg_size"
        case 10077 | 10047 | 10023:
            return "look at the stream's limits and the server's disk"
    return "look at the stream's settings ('tickertape streams show')"
