"""Origins that may connect."""

import pytest
from tickertape.relay.auth.origins import Origins, parse_origin

from tickertape.net.host_names import split_host

LIST = Origins("https://app.example.com, https://*.example.org/,http://[2001:db8::1]:8080,http://x.test:81")


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "https://app.example.com:443",
        "HTTPS://APP.example.COM",
        "https://a.example.org",
        "https://xn--bcher-kva.example.org",
        "http://[2001:db8::1]:8080",
        "http://x.test:81",
    ],
)
def test_a_listed_origin_may_connect(origin: str) -> None:
    """A listed origin may connect, in any case, with or without the default port."""
    assert LIST.is_listed(origin)
    assert LIST.allows(origin, "relay.internal", https=False)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com.",
        "https://app.example.com.evil.test",
        "https://evil.test/app.example.com",
        "https://evil.test#app.example.com",
        "https://evil.test?app.example.com",
        "https://evilapp.example.com",
        "https://app.example.com@evil.test",
        "https://evil.test@app.example.com",
        "https://example.com",
        "https://example.org",
        "https://a.b.example.org",
        "https://evilexample.org",
        "https://.example.org",
        "https://-.example.org",
        "https://a_b.example.org",
        "https://*.example.org",
        "https://a.example.org.evil.test",
        "http://a.example.org",
        "https://a.example.org:8443",
        "http://[2001:db8::2]:8080",
        "http://2001:db8::1:8080",
        "http://x.test",
        "http://x.test:81000",
        "http://x.test:81x",
        "file://",
        "ftp://app.example.com",
        "wss://app.example.com",
        "https://app.example.com https://evil.test",
        "https://app.ex\u0430mple.com",
    ],
)
def test_similar_origins_may_not_connect(origin: str) -> None:
    """An origin with another prefix, suffix, port, scheme or a user name does not match a listed one."""
    assert not LIST.is_listed(origin)
    assert not LIST.allows(origin, "relay.internal", https=True)


@pytest.mark.parametrize(
    "text",
    ["app.example.com", "https://*", "*", "https://*.*.example.com", "https://a.*.com", "https://ex*.com",
     "https://x/path", "https://user@x", "NULL", "file:///", "file://x", "ftp://x", "wss://*", "*://x",
     "app://", "app://x/path", "app://*.x", "app://a*", "app://*:1", "app://u@x", "app:x", "1app://x", "app://b\u00fccher",
     "https://b\u00fccher.example", "ws://x", "https://x:99999"],
)  # fmt: skip
def test_an_invalid_origin_cannot_be_listed(text: str) -> None:
    """Text that is not an origin is an error instead of being ignored."""
    with pytest.raises(ValueError, match="is not an origin; write it as"):
        Origins(text)


APPS = Origins("app://., tauri://localhost/,vscode-webview://*,CAPACITOR://localhost,app://Desk:81")


@pytest.mark.parametrize(
    "origin",
    ["app://.", "tauri://localhost", "TAURI://localhost", "vscode-webview://1a2b-3c", "vscode-webview://.x_Y",
     "capacitor://localhost", "app://Desk:81"],
)  # fmt: skip
def test_a_listed_app_may_connect(origin: str) -> None:
    """The origin of an app is compared as written; a star stands for any host of its scheme."""
    assert APPS.is_listed(origin)
    assert APPS.allows(origin, "relay.internal", https=True)


@pytest.mark.parametrize(
    "origin",
    ["null", "file://", "app://", "app://localhost", "app://desk:81", "app://Desk", "tauri://localhost:1420",
     "tauri://localhost.evil.test", "tauri://localhost/", "https://localhost", "http://localhost", "xtauri://localhost",
     "vscode-webview://", "vscode-webview://a/b", "vscode-webview://a:1", "vscode-webview://[::1]",
     "vscode-webview://a@b", "vscode-webview://a vscode-webview://b", "vscode-webview://\u0430",
     "vscode-webviewx://a", "vscode-webview:a", "*", "vscode-webview://*"],
)  # fmt: skip
def test_other_apps_may_not_connect(origin: str) -> None:
    """An origin of another host, scheme or port, or an invalid origin, does not match a listed app."""
    assert not APPS.is_listed(origin)
    assert not APPS.allows(origin, "relay.internal", https=False)


@pytest.mark.parametrize("origin", ["null", "file://"])
def test_an_origin_without_a_host_must_be_listed_explicitly(origin: str) -> None:
    """An origin that any page can have must be listed explicitly, since no star includes it."""
    assert Origins(f"https://app.example.com,{origin}").is_listed(origin)
    assert not Origins("https://app.example.com,app://*,nullx://*").is_listed(origin)


def test_the_host_of_an_app_is_not_a_host_of_the_relay() -> None:
    """The host of a listed app is not accepted as a host name of the relay."""
    guarded = Origins("app://evil.test,vscode-webview://*", rebinding=False)
    assert not guarded.is_own_host("evil.test")
    assert not guarded.allows("http://evil.test", "evil.test", https=False)


def test_a_client_without_an_origin_may_connect() -> None:
    """A client without an origin may connect: it is a program, which could send any origin."""
    assert LIST.allows(None, "whatever", https=False)


@pytest.mark.parametrize(
    ("origin", "host", "https", "allowed"),
    [
        ("http://relay.test:8080", "relay.test:8080", False, True),
        ("http://RELAY.test:8080", "Relay.Test:8080", False, True),
        ("http://relay.test", "relay.test", False, True),
        ("https://relay.test", "relay.test", True, True),
        ("https://relay.test", "relay.test:443", True, True),
        ("https://relay.test", "relay.test", False, True),
        ("http://relay.test", "relay.test", True, False),
        ("http://relay.test:8080", "relay.test", False, False),
        ("http://relay.test:8080", "relay.test:8081", False, False),
        ("http://evil.test:8080", "relay.test:8080", False, False),
        ("http://[::1]:8080", "[::1]:8080", False, True),
        ("http://[::1]:8080", "[::2]:8080", False, False),
        ("http://relay.test", "", False, False),
        ("http://relay.test", "relay.test:x", False, False),
        ("null", "relay.test", False, False),
        ("http://relay.test/", "relay.test", False, False),
    ],
)
def test_the_relays_own_page_may_connect(origin: str, host: str, *, https: bool, allowed: bool) -> None:
    """A page of the relay's own host may connect, also behind a proxy that terminates TLS."""
    assert Origins().allows(origin, host, https=https) is allowed


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("192.0.2.1", True),
        ("localhost:8080", True),
        ("LOCALHOST.", True),
        ("x.localhost", True),
        ("relay", True),
        ("", True),
        ("app.example.com", True),
        ("APP.example.com.:8080", True),
        ("evil.test", False),
        ("evil.test.", False),
        ("evil.test:8080", False),
        ("127.0.0.1.evil.test", False),
        ("127.0.0.1.nip.io", False),
        ("localhost.evil.test", False),
        ("a.example.org", False),
        ("a$b.evil.test:8080", False),
        ("evil.test:123456", False),
        ("a b", False),
    ],
)
def test_an_unknown_name_of_the_relay_is_rejected(host: str, *, known: bool) -> None:
    """Any name can resolve to the relay and be the origin of a page, so unknown names are rejected."""
    guarded = Origins("https://app.example.com,https://*.example.org", rebinding=False)
    assert guarded.is_own_host(host) is known
    assert guarded.allows(f"http://{host}", host, https=False) is (
        known and split_host(host) is not None and parse_origin(f"http://{host}") is not None
    )
    assert LIST.is_own_host(host)


def test_the_representation_counts_origins() -> None:
    """The representation counts the origins, since the list may be long."""
    assert repr(LIST) == "Origins(3 exact, 1 wildcards, 0 apps)"
