"""URLs: validation and redaction."""

import re

import pytest

from tickertape.urls import host_port, is_loopback, parse_url, redact_url

WEB = ("http", "https")
EXAMPLE = "https://a.example/x"


@pytest.mark.parametrize(
    "text", ["http://a", "https://a.example:8443/x?y=1#z", "http://[::1]:1/", "https://xn--a.example/%C3%A9"]
)
def test_addresses_are_taken(text: str) -> None:
    """Host names and addresses are accepted, with and without a port."""
    assert parse_url(text, WEB, EXAMPLE).geturl() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.example",
        "ftp://a",
        "https://",
        "https://:1/",
        "https://[::1",
        "https://a:0/",
        "https://a:99999/",
        "https://a:x/",
        "https://a b/",
        "https://a/\n",
        "https://ä.example",
    ],
)
def test_other_addresses_are_rejected(text: str) -> None:
    """Other URLs are rejected, and the error shows a valid example."""
    with pytest.raises(ValueError, match=f"is not a valid address; write it as {EXAMPLE}"):
        parse_url(text, WEB, EXAMPLE)


def test_credentials_are_accepted_only_where_allowed() -> None:
    """User and password are accepted where credentials are allowed, with any characters."""
    assert parse_url("nats://ü:p w@h:1", ("nats",), "nats://h", user=True).hostname == "h"
    with pytest.raises(ValueError, match="holds a user"):
        parse_url("https://me@a/", WEB, EXAMPLE)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter2@a/",
        "https://me:hunter2/x@a",
        "https://me:hunter2,x@a",
        "https://me:hunter2@a:99999/",
        "https://me:hunter2",
        "me:hunter2@a",
        "https://a:0/?key=hunter2",
    ],
)
def test_an_error_shows_no_password(text: str) -> None:
    """No error shows a password, or a part of one, even if it makes the URL invalid."""
    with pytest.raises(ValueError, match="address") as caught:
        parse_url(text, WEB, EXAMPLE)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://h:4222", "nats://h:4222"),
        ("nats://user:secret@h:4222", "nats://***@h:4222"),
        ("nats://token@h", "nats://***@h"),
        ("nats://u:secret@a, tls://u:secret@b", "nats://***@a,tls://***@b"),
        ("nats://u:sec,ret@a,nats://b", "nats://***@a,nats://b"),
        ("nats://u:sec/ret@a", "nats://***@a"),
        ("nats://u:sec@ret@a", "nats://***@a"),
        ("nats://u:sec?ret@a", "nats://***@a"),
        ("nats://u:sec#ret@a", "nats://***@a"),
        ("user:secret@h", "***@h"),
        ("https://a.example:8443/jwks?code=secret#x", "https://a.example:8443/jwks"),
    ],
)
def test_an_address_is_shown_without_secrets(url: str, expected: str) -> None:
    """A redacted URL contains no secret."""
    assert redact_url(url) == expected


def test_a_port_follows_its_host() -> None:
    """An IPv6 address is bracketed before its port."""
    assert host_port("a.example", 1) == "a.example:1"
    assert host_port("::1", 1) == "[::1]:1"


@pytest.mark.parametrize(
    ("host", "answer"), [("127.0.0.2", True), ("::1", True), ("localhost", True), ("10.0.0.1", False)]
)
def test_loopback(host: str, answer: bool) -> None:
    """Loopback addresses are recognized."""
    assert is_loopback(host) is answer


@pytest.mark.parametrize(
    ("text", "character"), [("https://a/ ", " "), ("https://a/ü", "ü"), ("https://a/\n", "\n")]
)
def test_a_character_that_urls_do_not_have_is_named(text: str, character: str) -> None:
    """The address in the error may look right, as it does without white space at its end."""
    with pytest.raises(ValueError, match=re.escape(f"{EXAMPLE}, without the character {character!r}")):
        parse_url(text, WEB, EXAMPLE)
