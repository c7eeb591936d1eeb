"""Which pages may connect from a browser: those of the relay itself, and those on the allow list.

A browser sends ``Origin`` with every WebSocket handshake, and a page cannot forge it. Programs send none, and
are let through: they could send anything.

Desktop apps (Electron, Tauri, extensions, webviews) have a scheme of their own in place of http: a browser
engine writes their origin as ``scheme://host``, and that of a page without an origin as ``null``. They are
let in where they are listed, and say nothing about names of the relay.
"""

import re
from ipaddress import ip_address
from typing import Final

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HOST_PATTERN: Final = r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?"
_HOST: Final = re.compile(_HOST_PATTERN, re.IGNORECASE | re.ASCII)
_ORIGIN: Final = re.compile(f"(https?)://{_HOST_PATTERN}", re.IGNORECASE | re.ASCII)
_APP: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", re.IGNORECASE | re.ASCII
)
_WEB: Final = frozenset({"http", "https", "ws", "wss", "ftp", "file"})
"""Schemes of the web, which no app can have; an origin of theirs is http or https, or ``file://``."""

_BARE: Final = frozenset({"null", "file://"})
"""Origins without a host: that of a sandboxed page, and of files in an app. Pages that have nothing to do
with each other share them: listed as they stand here, or not let in."""

Origin = tuple[str, str, int]
"""Scheme, host in lower case, and port."""


def parse_origin(text: str) -> Origin | None:
    """Read an origin as a browser writes it; None when it is none, such as ``null``."""
    # Not urlsplit: it finds a host in what no browser would send, such as "http://x.[::1]".
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host, port = found[1].lower(), found[2].lower().strip("[]"), found[3]
    if port is not None and int(port) > 65_535:
        return None
    return scheme, host, _DEFAULT_PORTS[scheme] if port is None else int(port)


def split_host(text: str) -> tuple[str, int | None] | None:
    """Read a ``Host`` header; None when it is malformed."""
    found = _HOST.fullmatch(text.strip())
    if found is None:
        return None
    return found[1].lower().strip("[]"), None if found[2] is None else int(found[2])


class Origins:
    """The allow list.

    Args:
        text: origins with commas, exact or with ``*`` as the first label: ``https://*.example.com``. Those of
            apps are exact, or have ``*`` as the whole host: ``vscode-webview://*``.
        rebinding: whether a page of any name that leads here counts as the relay's own; on a loopback address
            without tokens it must not: whoever owns a name can point it at 127.0.0.1.

    Raises:
        ValueError: one of them is no origin.
    """

    def __init__(self, text: str = "", *, rebinding: bool = True) -> None:
        self._exact: set[Origin] = set()
        self._below: set[Origin] = set()
        self._apps: set[str] = set()  # as they are written, their schemes in lower case
        self._schemes: set[str] = set()  # of apps of which any host is let in
        self._rebinding = rebinding
        for part in filter(None, (part.strip() for part in text.split(","))):
            if self._add_app(part):
                continue
            # A star is no part of a host; it is put back as a label that no browser sends.
            starred = "://*." in part
            origin = parse_origin(part.replace("://*.", "://", 1).rstrip("/"))
            if origin is None or "*" in part.replace("://*.", "", 1):
                raise ValueError(
                    f"{part[:80]!r} is no origin; write it as https://app.example.com, "
                    "https://*.example.com, app://name, app://* or null"
                )
            (self._below if starred else self._exact).add(origin)

    def __repr__(self) -> str:
        apps = len(self._apps) + len(self._schemes)
        return f"Origins({len(self._exact)} exact, {len(self._below)} by their last labels, {apps} of apps)"

    def is_listed(self, origin: str) -> bool:
        """Tell whether an origin is on the allow list."""
        parsed = parse_origin(origin)
        if parsed is None:
            return self._lists_app(origin)
        scheme, host, port = parsed
        label, _, rest = host.partition(".")
        return parsed in self._exact or (
            (scheme, rest, port) in self._below and _LABEL.fullmatch(label) is not None
        )

    def allows(self, origin: str | None, host: str, *, https: bool) -> bool:
        """Tell whether a page may connect.

        Args:
            origin: of the page, as the browser says; None from a program.
            host: the request's ``Host``.
            https: whether the client's connection is encrypted.
        """
        if origin is None:
            return True
        return self.is_listed(origin) or self._same(origin, host, https=https)

    def is_own_host(self, host: str) -> bool:
        """Tell whether a ``Host`` is a name of this relay, as far as that can be told."""
        if self._rebinding:
            return True
        found = split_host(host)
        if found is None:
            # A browser may take names that we do not read, such as a$b.example; no name at all is no page's.
            return not host.strip()
        name = found[0].rstrip(".")
        if "." not in name or name.endswith(".localhost"):
            return True  # a name of one label is nobody's to buy
        try:
            ip_address(name)
        except ValueError:
            return any(name == own for _, own, _ in self._exact)
        return True

    def _add_app(self, text: str) -> bool:
        """Take in an origin that is no page's of the web; False when it is one, or none at all."""
        scheme, _, host = text.partition("://")
        if text in _BARE:
            self._apps.add(text)
        elif host == "*" and (app := _app(f"{scheme}://x")) is not None:
            self._schemes.add(app[0])
        elif (app := _app(text.rstrip("/"))) is not None:
            self._apps.add("://".join(app))
        else:
            return False
        return True

    def _lists_app(self, origin: str) -> bool:
        if origin in _BARE:
            return origin in self._apps
        app = _app(origin)
        return app is not None and (
            "://".join(app) in self._apps or (app[0] in self._schemes and ":" not in app[1])
        )

    def _same(self, origin: str, host: str, *, https: bool) -> bool:
        parsed, own = parse_origin(origin), split_host(host)
        if parsed is None or own is None or not self.is_own_host(host):
            return False
        scheme, name, port = parsed
        # A proxy that ends TLS and is not named as trusted leaves us with http: the page's scheme says more.
        expected = own[1] or _DEFAULT_PORTS["https" if https else scheme]
        return (name, port) == (own[0], expected)


def _app(text: str) -> tuple[str, str] | None:
    """Scheme, and host with its port, of an app's origin; None when it is none.

    The host is compared as it stands: browsers lower the case of hosts of the web only.
    """
    found = _APP.fullmatch(text)
    if found is None or found[1].lower() in _WEB:
        return None
    return found[1].lower(), found[2] + (found[3] or "")
