"""What is said of NATS when it is not reached."""

import ssl

import pytest
from nats.errors import Error as NatsError

from tickertape.nats.client import TlsRefused
from tickertape.nats.connect_errors import ConnectError, reason_of, refused, trouble
from tickertape.nats.credentials import Access, AccessError

URL = "nats://127.0.0.1:4222"
SOMEBODY = Access(token="t")


@pytest.mark.parametrize(
    ("error", "access", "expected"),
    [
        (
            NatsError("nats: 'Authorization Violation'"),
            SOMEBODY,
            "refuses the credentials: Authorization Violation",
        ),
        (
            NatsError("nats: 'User Authentication Expired'"),
            SOMEBODY,
            "refuses the credentials: User Authentication",
        ),
        (NatsError("nats: 'Authorization Violation'"), Access(), "refuses a connection without credentials"),
        (TlsRefused("it offers none"), Access(), "refuses TLS: it offers none"),
        (ssl.SSLError(1, "[SSL: UNKNOWN_CA] unknown ca"), Access(), "refuses TLS: the handshake failed"),
    ],
)
def test_what_waiting_does_not_mend(error: Exception, access: Access, expected: str) -> None:
    """It is said as NATS' own act, after its address."""
    reason = reason_of(error, URL, access)
    assert reason.startswith(expected)
    assert refused(reason)
    assert trouble(URL, reason) == str(ConnectError(URL, reason)) == f"NATS at {URL} {reason}"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (TimeoutError(), "TimeoutError"),
        (NatsError("nats: empty response from server"), "empty response from server"),
        (
            AccessError("credentials file x is not there", "check its path"),
            "credentials file x is not there; ",
        ),
    ],
)
def test_what_waiting_may_mend(error: Exception, expected: str) -> None:
    """The reason as it is; files of our own included, which may be put back."""
    reason = reason_of(error, URL, Access())
    assert reason.startswith(expected)
    assert not refused(reason)
    assert trouble(URL, reason) == f"NATS at {URL} is away ({reason})"
    assert str(ConnectError(URL, reason)) == (
        f"NATS at {URL} does not answer: {reason}; start it, or give --nats-url"
    )
