"""The cookie of a session."""

import pytest
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.transport.http_stream.session_cookie import clear_cookie, read_cookie, set_cookie


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("tickertape_session=a.b.c", "a.b.c"),
        ("x=1; tickertape_session=a.b=; y", "a.b="),
        ("x=tickertape_session=a", None),
        ("Tickertape_Session=a", None),
        ("tickertape_session=", None),
        ("", None),
        (";;=;", None),
    ],
)
def test_the_cookie_is_found_among_others(value: str, token: str | None) -> None:
    """Only the cookie of this name counts."""
    assert read_cookie([("host", "x"), ("cookie", value)]) == token
    assert read_cookie([("x-cookie", value)]) is None


def test_several_cookies_are_rejected() -> None:
    """A page of another subdomain cannot put its own token in the place of the user's."""
    for headers in (
        [("cookie", "tickertape_session=a; tickertape_session=b")],
        [("cookie", "tickertape_session=a"), ("cookie", "tickertape_session=a")],
    ):
        with pytest.raises(ProtocolError):
            read_cookie(headers)


@pytest.mark.parametrize(
    ("site", "origin", "accepted"),
    [
        (None, None, True), ("same-origin", None, True), ("none", None, True), ("same-site", None, False),
        ("cross-site", None, False), ("same-site", "https://app.example.com", True),
    ],
)  # fmt: skip
def test_another_page_cannot_use_the_cookie(site: str | None, origin: str | None, accepted: bool) -> None:
    """A request without ``Origin`` comes from a page of the relay, or from the user."""
    headers = [("cookie", "tickertape_session=a")]
    headers += [("sec-fetch-site", site)] if site else []
    headers += [("origin", origin)] if origin else []
    if accepted:
        assert read_cookie(headers) == "a"
    else:
        with pytest.raises(ProtocolError):
            read_cookie(headers)


def test_a_cookie_is_limited_to_what_browsers_store() -> None:
    """The largest cookie is 4 096 bytes with its name; a larger one is an error, not silently dropped."""
    name = len("tickertape_session")
    assert "Max-Age" not in set_cookie("x" * (4_096 - name), "", None)
    with pytest.raises(ProtocolError, match="4096"):
        set_cookie("x" * (4_097 - name), "", None)
    assert set_cookie("t", "/feed", 5) == (
        "tickertape_session=t; Path=/feed/sse; HttpOnly; Secure; SameSite=Strict; Max-Age=5"
    )
    assert clear_cookie("").startswith("tickertape_session=; Path=/sse;")
