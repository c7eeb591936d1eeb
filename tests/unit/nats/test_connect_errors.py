"""Errors that are reported when NATS cannot be reached."""

import ssl

import pytest
from nats.errors import Error as NatsError
from nats.errors import StaleConnectionError

from tickertape.nats.connect_errors import (
    ConnectError,
    ConnectFailureKind,
    CredentialsRejected,
    PermissionsViolation,
    TlsError,
    classify_failure,
    parse_server_error,
    unreachable,
)
from tickertape.nats.credentials import Access, AccessError

GIVEN = Access(token="t")


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        ("'Authorization Violation'", CredentialsRejected, "Authorization Violation"),
        ("'User Authentication Expired'", CredentialsRejected, "User Authentication Expired"),
        ("'Authentication Timeout'\r\n", CredentialsRejected, "Authentication Timeout"),
        ("'Stale Connection'", StaleConnectionError, "nats: stale connection"),
        ("'Maximum Connections Exceeded'", NatsError, "Maximum Connections Exceeded"),
        ("'Permissions Violation for a thing'", PermissionsViolation, "Permissions Violation for a thing"),
    ],
)
def test_the_texts_of_a_server_become_types(words: str, kind: type[Exception], text: str) -> None:
    """Only this function parses the server's error texts."""
    error = parse_server_error(words)
    assert type(error) is kind
    assert str(error) == text


@pytest.mark.parametrize(
    ("error", "access", "kind", "message", "hint"),
    [
        (
            CredentialsRejected("Authorization Violation"), GIVEN, ConnectFailureKind.AUTH,
            "rejected the credentials: Authorization Violation",
            "check the user and password, the nkey, or the .creds file",
        ),
        (
            CredentialsRejected("Authorization Violation"), Access(), ConnectFailureKind.AUTH,
            "requires credentials: Authorization Violation",
            "set --nats-creds or --nats-user",
        ),
        (
            TlsError("the server does not offer TLS", "enable it there"), Access(), ConnectFailureKind.TLS,
            "failed the TLS handshake: the server does not offer TLS", "enable it there",
        ),
        (
            ssl.SSLError(1, "[SSL: UNKNOWN_CA] unknown ca"), Access(), ConnectFailureKind.TLS,
            "failed the TLS handshake: [ssl: unknown ca] unknown ca",
            "check --nats-cert, --nats-key and the log of the server",
        ),
        (
            ConnectionRefusedError(111, "Connection refused"), Access(), ConnectFailureKind.UNREACHABLE,
            "unreachable: Connection refused", "check that it is running and that --nats-url is correct",
        ),
        (
            TimeoutError(), Access(), ConnectFailureKind.UNREACHABLE,
            "unreachable: TimeoutError", "check that it is running and that --nats-url is correct",
        ),
        (
            NatsError("nats: empty response from server"), Access(), ConnectFailureKind.UNREACHABLE,
            "unreachable: empty response from server",
            "check that it is running and that --nats-url is correct",
        ),
        (
            AccessError("credentials file x does not exist", "check its path"), GIVEN,
            ConnectFailureKind.UNREACHABLE,
            "unreachable: credentials file x does not exist", "check its path",
        ),
    ],
)  # fmt: skip
def test_a_failure_has_a_kind_a_reason_and_a_hint(
    error: Exception, access: Access, kind: ConnectFailureKind, message: str, hint: str
) -> None:
    """A single attempt reports reason and hint; a retrying program reports the hint only if waiting does not
    help.
    """
    failure = classify_failure(error, "nats://h:4222", access)
    assert failure.kind is kind
    assert failure.message == f"NATS at nats://h:4222 {message}"
    assert failure.hint == hint
    assert str(failure) == str(ConnectError(failure)) == f"{failure.message}; {hint}"
    summary, _, reason = message.partition(": ")
    more = "" if kind.is_transient else f"; {hint}"
    assert failure.retry_message == f"NATS at nats://h:4222 {summary}, retrying: {reason}{more}"


def test_a_user_in_the_address_is_given_and_not_shown() -> None:
    """A user in the URL counts as credentials, and no text of the failure shows the password."""
    failure = classify_failure(CredentialsRejected("Authorization Violation"), "nats://u:secret@h", Access())
    assert failure.message == "NATS at nats://***@h rejected the credentials: Authorization Violation"
    assert "secret" not in repr(failure)


def test_waiting_helps_with_one_kind() -> None:
    """Waiting helps only if NATS is unreachable: credentials and certificates do not change by themselves."""
    assert [kind for kind in ConnectFailureKind if kind.is_transient] == [ConnectFailureKind.UNREACHABLE]


def test_a_connect_error_is_an_oserror_without_a_number() -> None:
    """A connect error is an OSError whose message is not mistaken for an errno."""
    error = ConnectError(unreachable("nats://h", "timed out"))
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror) == (None, None)
