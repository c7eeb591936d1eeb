"""What is insecure about a relay's settings: one line for each, with what to do about it.

Nothing is connected to and nothing is changed; of files it is only looked who may read and write them.
"""

import stat
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tickertape.cli.check.finding import Finding
from tickertape.relay.settings import RelaySettings
from tickertape.urls import is_loopback, redact_url

_WIDE_PREFIX: Final = {4: 8, 6: 32}
"""Lengths of prefixes below which a network is no list of proxies any more."""

_LONG_LEEWAY: Final = 60.0


def findings(settings: RelaySettings) -> list[Finding]:
    """Look at all settings of a relay.

    Args:
        settings: as ``tickertape serve`` would read them.
    """
    found = list(_who_may_read(settings))
    found += _tokens(settings)
    found += _transport(settings)
    found += _pages_and_proxies(settings)
    found += _limits(settings)
    found += _nats(settings)
    found += _files(settings)
    return found


def _who_may_read(settings: RelaySettings) -> Iterator[Finding]:
    problem = settings.problem()
    if problem is not None:
        yield Finding.of("settings", problem)
    if settings.auth == "none":
        if not is_loopback(settings.host):
            if settings.insecure:
                yield Finding.error(
                    "readers",
                    f"--insecure: whoever reaches {settings.host}:{settings.port} reads all",
                    "use --auth jwt",
                )
        else:
            yield Finding.warn(
                "readers", "--auth none: every user and program of this machine reads everything"
            )
    if not is_loopback(settings.ops_host):
        yield Finding.warn(
            "ops_host",
            f"--ops-host {settings.ops_host}: metrics and status need no token",
            "let only Prometheus reach it",
        )


def _tokens(settings: RelaySettings) -> Iterator[Finding]:
    if settings.auth != "jwt" or settings.problem() is not None:
        return
    if settings.jwt_algorithm == "HS256":
        yield Finding.warn(
            "token_rules",
            "--jwt-algorithm HS256: whoever can verify a token can mint one",
            "EdDSA keeps these apart",
        )
    if settings.jwt_audience is None:
        yield Finding.warn(
            "token_rules",
            "no --jwt-audience: tokens without one, minted for any other service, are taken too",
        )
    if settings.jwt_issuer is None:
        yield Finding.warn("token_rules", "no --jwt-issuer: a token of any issuer that has the key is taken")
    if settings.jwt_revoked_file is None:
        yield Finding.warn(
            "token_rules",
            "no --jwt-revoked-file: a token that leaks is good until it ends",
            "keep them short",
        )
    if settings.jwt_leeway > _LONG_LEEWAY:
        yield Finding.warn(
            "token_rules",
            f"--jwt-leeway {settings.jwt_leeway:g}: correct the clocks (NTP) and go back to a few seconds",
        )
    if settings.jwt_jwks_url is not None and settings.jwt_jwks_url.startswith("http://"):
        yield Finding.warn(
            "token_rules",
            "--jwt-jwks-url is http: whoever has that port on this machine says which keys count",
        )


def _transport(settings: RelaySettings) -> Iterator[Finding]:
    if settings.tls_cert is not None or is_loopback(settings.host):
        return
    if settings.trusted_proxies:
        yield Finding.warn(
            "tls", "no --tls-cert: what lies between the relay and its proxies sees every token and event"
        )
    else:
        yield Finding.error(
            "tls", "no --tls-cert: tokens and events cross the network in clear", "give one, or use a proxy"
        )


def _pages_and_proxies(settings: RelaySettings) -> Iterator[Finding]:
    for origin in filter(None, (part.strip() for part in settings.allowed_origins.split(","))):
        url = urlsplit(origin)
        if origin in ("null", "file://"):
            yield Finding.warn(
                "origins",
                f"--allowed-origins {origin}: any page can have that origin, also one that you do not know",
                "give the app a scheme of its own, and list that",
            )
        elif origin.endswith("://*"):
            yield Finding.warn(
                "origins",
                f"--allowed-origins {origin}: every app with that scheme gets the readers' tokens to use",
            )
        elif "*" in origin:
            yield Finding.warn(
                "origins",
                f"--allowed-origins {origin}: whoever gets a name below it gets the readers' tokens to use",
            )
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            yield Finding.error(
                "origins",
                f"--allowed-origins {origin}: a page over http can be changed on its way",
                "use https",
            )
    for option, text, why in (
        ("--trusted-proxies", settings.trusted_proxies, "anybody in it may say who a client is"),
        ("--unlimited-addresses", settings.unlimited_addresses, "nobody in it has a limit"),
    ):
        for part in filter(None, (part.strip() for part in text.split(","))):
            network = ip_network(part, strict=False)
            if network.prefixlen < _WIDE_PREFIX[network.version]:
                yield Finding.error("networks", f"{option} {part}: {why}", "name the proxies alone")


def _limits(settings: RelaySettings) -> Iterator[Finding]:
    for option, value, what in (
        ("--client-rate", settings.client_rate, "a client may get every event there is"),
        (
            "--max-address-connections",
            settings.max_address_connections,
            "one address may take all connections",
        ),
        ("--max-subject-connections", settings.max_subject_connections, "one token may take all connections"),
        ("--connection-rate", settings.connection_rate, "handshakes may take all of the processor"),
        ("--address-rate", settings.address_rate, "one address may make as many handshakes as it can"),
    ):
        if not value:
            yield Finding.warn("limits", f"{option} 0: {what}")


def _nats(settings: RelaySettings) -> Iterator[Finding]:
    if settings.nats_url is None:
        yield Finding.warn(
            "nats_access",
            "the relay's own NATS has no users: every program of this machine may publish to it",
        )
        return
    access = settings.access()
    for part in settings.nats_url.split(","):
        url = urlsplit(part.strip())
        where = redact_url(part.strip())
        if url.password is not None:
            yield Finding.warn(
                "nats_access",
                f"the password of {where} is in its address",
                "use --nats-password-file or --nats-creds",
            )
        if is_loopback(url.hostname or ""):
            continue
        if url.scheme in ("nats", "ws") and not access.requires_tls:
            yield Finding.error(
                "nats_access",
                f"{where}: events and passwords cross the network in clear",
                "use tls://, or --nats-ca",
            )
        if not access.has_credentials and access.cert is None and url.username is None:
            yield Finding.error(
                "nats_access",
                f"{where}: no credentials, so whoever reaches it may publish",
                "see deploy/nats",
            )


def _files(settings: RelaySettings) -> Iterator[Finding]:
    secrets = {
        "--tls-key": settings.tls_key or settings.tls_cert,
        "--nats-creds": settings.nats_creds,
        "--nats-nkey-file": settings.nats_nkey_file,
        "--nats-password-file": settings.nats_password_file,
        "--nats-token-file": settings.nats_token_file,
        "--nats-key": settings.nats_key,
    }
    if settings.auth == "jwt" and settings.jwt_algorithm == "HS256":
        secrets["--jwt-key-file"] = settings.jwt_key_file
    for option, path in secrets.items():
        if path is not None and _mode(path) & (stat.S_IRGRP | stat.S_IROTH) & ~_group_of(path):
            yield Finding.error("secret_files", f"{option} {path} can be read by others", f"chmod 600 {path}")
    for option, path in (
        ("--jwt-key-file", settings.jwt_key_file),
        ("--jwt-revoked-file", settings.jwt_revoked_file),
    ):
        if path is not None and _mode(path) & stat.S_IWOTH:
            yield Finding.error(
                "secret_files", f"{option} {path} can be written by others", f"chmod o-w {path}"
            )


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0  # that it is missing, whoever reads it says


def _group_of(path: Path) -> int:
    """The group's bit, when the file is root's: then its group is how the relay's own user gets at it."""
    try:
        return stat.S_IRGRP if path.stat().st_uid == 0 else 0
    except OSError:
        return 0
