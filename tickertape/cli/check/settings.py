"""Security checks of a relay's settings.

The checks open no connections and change nothing; of files, they read only the permissions.
"""

import stat
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tickertape.cli.check.finding import Finding
from tickertape.config.config_file import read_config
from tickertape.relay.auth.origins import parse_entry
from tickertape.relay.settings import RelaySettings
from tickertape.urls import host_port, is_loopback, redact_url

_WIDE_PREFIX: Final = {4: 8, 6: 32}
"""Prefix lengths below which a network is too large to consist of proxies."""

_LONG_LEEWAY: Final = 60.0
"""Seconds of ``--jwt-leeway`` above which a warning is reported."""


def check_settings(settings: RelaySettings) -> list[Finding]:
    """Check the settings of a relay.

    Args:
        settings: settings as ``tickertape serve`` reads them.
    """
    found = list(_check_access(settings))
    found += _check_token_rules(settings)
    found += _check_tls(settings)
    found += _check_origins_and_networks(settings)
    found += _check_limits(settings)
    found += _check_nats_access(settings)
    found += _check_secret_files(settings)
    return found


def _check_access(settings: RelaySettings) -> Iterator[Finding]:
    problem = settings.problem()
    if problem is not None:
        yield Finding.from_error("settings", problem)
    if settings.auth == "none":
        if not is_loopback(settings.host):
            if settings.insecure:
                yield Finding.error(
                    "readers",
                    f"--insecure: anyone who can reach {host_port(settings.host, settings.port)} can read "
                    "all events",
                    "use --auth jwt",
                )
        else:
            yield Finding.warn(
                "readers", "--auth none: every user and program on this machine can read all events"
            )
    if not is_loopback(settings.ops_host):
        yield Finding.warn(
            "ops_host",
            f"--ops-host {settings.ops_host}: metrics and status are available without a token",
            "restrict access to Prometheus",
        )


def _check_token_rules(settings: RelaySettings) -> Iterator[Finding]:
    if settings.auth != "jwt" or settings.problem() is not None:
        return
    if settings.jwt_algorithm == "HS256":
        yield Finding.warn(
            "token_rules",
            "--jwt-algorithm HS256: anyone who can verify a token can also mint one",
            "use EdDSA, which separates the two",
        )
    if settings.jwt_audience is None:
        yield Finding.warn(
            "token_rules",
            "no --jwt-audience: tokens minted for other services are accepted if they have no audience",
        )
    if settings.jwt_issuer is None and settings.oidc_issuer is None:
        yield Finding.warn(
            "token_rules", "no --jwt-issuer: tokens of any issuer that has the key are accepted"
        )
    if settings.jwt_revoked_file is None:
        yield Finding.warn(
            "token_rules",
            "no --jwt-revoked-file: a leaked token is valid until it expires",
            "use short-lived tokens",
        )
    if settings.jwt_leeway > _LONG_LEEWAY:
        yield Finding.warn(
            "token_rules",
            f"--jwt-leeway {settings.jwt_leeway:g}: synchronize the clocks (NTP) and set it to a few seconds",
        )
    for option, url in (("--jwt-jwks-url", settings.jwt_jwks_url), ("--oidc-issuer", settings.oidc_issuer)):
        if url is not None and url.startswith("http://"):
            yield Finding.warn(
                "token_rules",
                f"{option} uses http: any program that listens on that port of this machine can supply keys",
            )


def _check_tls(settings: RelaySettings) -> Iterator[Finding]:
    if settings.tls_cert is not None or is_loopback(settings.host):
        return
    if settings.trusted_proxies:
        yield Finding.warn(
            "tls", "no --tls-cert: tokens and events are sent in the clear between the proxies and the relay"
        )
    else:
        yield Finding.error(
            "tls",
            "no --tls-cert: tokens and events cross the network in the clear",
            "set it, or use a TLS proxy",
        )


def _check_origins_and_networks(settings: RelaySettings) -> Iterator[Finding]:
    for origin in filter(None, (part.strip() for part in settings.allowed_origins.split(","))):
        if origin in ("null", "file://"):
            yield Finding.warn(
                "origins",
                f"--allowed-origins {origin}: any page can have this origin, including untrusted ones",
                "use a custom scheme for the app, and list that",
            )
        elif origin.endswith("://*"):
            yield Finding.warn(
                "origins",
                f"--allowed-origins {origin}: every app with this scheme can use the tokens of its users",
            )
        elif "*" in origin:
            yield Finding.warn(
                "origins",
                f"--allowed-origins {origin}: any page on a subdomain can use the tokens of its users",
            )
        entry = parse_entry(origin)
        if entry is not None and entry[0][0] == "http" and not is_loopback(entry[0][1]):
            yield Finding.error(
                "origins",
                f"--allowed-origins {origin}: pages loaded over http can be modified in transit",
                "use https",
            )
    for option, text, risk, hint in (
        (
            "--trusted-proxies",
            settings.trusted_proxies,
            "any host on this network can spoof client addresses",
            "list only the addresses of the proxies",
        ),
        (
            "--unlimited-addresses",
            settings.unlimited_addresses,
            "no host on this network is limited",
            "list only addresses that many clients share, such as those of NAT gateways",
        ),
    ):
        for part in filter(None, (part.strip() for part in text.split(","))):
            network = ip_network(part, strict=False)
            if network.prefixlen < _WIDE_PREFIX[network.version]:
                yield Finding.error("networks", f"{option} {part}: {risk}", hint)


def _check_limits(settings: RelaySettings) -> Iterator[Finding]:
    for option, value, risk in (
        ("--client-rate", settings.client_rate, "the event rate per client is unlimited"),
        (
            "--max-address-connections",
            settings.max_address_connections,
            "one address can use up all connections",
        ),
        (
            "--max-subject-connections",
            settings.max_subject_connections,
            "one token can use up all connections",
        ),
        ("--connection-rate", settings.connection_rate, "handshakes can use up the CPU"),
        ("--address-rate", settings.address_rate, "handshakes per address are unlimited"),
    ):
        if not value:
            yield Finding.warn("limits", f"{option} 0: {risk}")
    total = settings.max_connections
    for option, value, client in (
        ("--max-address-connections", settings.max_address_connections, "address"),
        ("--max-subject-connections", settings.max_subject_connections, "token"),
    ):
        if total and value >= total:
            yield Finding.warn(
                "limits",
                f"{option} {value} is not below --max-connections {total}: one {client} can use up all",
                f"set {option} to less",
            )


def _check_nats_access(settings: RelaySettings) -> Iterator[Finding]:
    if settings.nats_url is None:
        yield Finding.warn(
            "nats_access",
            "the embedded NATS server has no users: every program on this machine can publish to it",
        )
        return
    access = settings.access()
    for part in settings.nats_url.split(","):
        url = urlsplit(part.strip())
        address = redact_url(part.strip())
        if url.password is not None:
            yield Finding.warn(
                "nats_access",
                f"the URL of {address} contains the password",
                "use --nats-password-file or --nats-creds",
            )
        if is_loopback(url.hostname or ""):
            continue
        if url.scheme in ("nats", "ws") and not access.requires_tls:
            yield Finding.error(
                "nats_access",
                f"{address}: events and passwords cross the network in the clear",
                "use tls://, or set --nats-ca",
            )
        if not access.has_credentials and access.cert is None and url.username is None:
            yield Finding.error(
                "nats_access",
                f"{address}: no credentials, so anyone who can reach it can publish",
                "see deploy/nats",
            )


def _check_secret_files(settings: RelaySettings) -> Iterator[Finding]:
    secrets = {
        # Without --tls-key, the file of the certificate contains the key.
        "--tls-key": settings.tls_key or settings.tls_cert,
        "--nats-creds": settings.nats_creds,
        "--nats-nkey-file": settings.nats_nkey_file,
        "--nats-password-file": settings.nats_password_file,
        "--nats-token-file": settings.nats_token_file,
        "--nats-key": settings.nats_key,
    }
    if settings.auth == "jwt" and settings.jwt_algorithm == "HS256":
        secrets["--jwt-key-file"] = settings.jwt_key_file
    if settings.config is not None and (exposure := read_config(settings.config).exposure()) is not None:
        yield Finding.error("secret_files", f"--config {exposure}", f"chmod 600 {settings.config}")
    for option, path in secrets.items():
        readable = stat.S_IRGRP | stat.S_IROTH
        if (
            path is not None
            and _mode(path) & readable & ~_allowed_group_bit(path)
            and not _in_private_folder(path)
        ):
            yield Finding.error(
                "secret_files", f"{option} {path} is readable by other users", f"chmod 600 {path}"
            )
    for option, path in (
        ("--jwt-key-file", settings.jwt_key_file),
        ("--jwt-revoked-file", settings.jwt_revoked_file),
        ("--tls-client-ca", settings.tls_client_ca),
        ("--tls-client-grants", settings.tls_client_grants),
    ):
        if path is not None and _mode(path) & stat.S_IWOTH:
            yield Finding.error(
                "secret_files", f"{option} {path} is writable by other users", f"chmod o-w {path}"
            )


def _in_private_folder(path: Path) -> bool:
    """Return whether the folder of the file keeps all other users out."""
    return not _mode(path.resolve().parent) & (stat.S_IXGRP | stat.S_IXOTH)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0  # a missing file is reported by the code that reads it


def _allowed_group_bit(path: Path) -> int:
    """Return the group-read bit for files of root, which the relay usually reads through the group."""
    try:
        return stat.S_IRGRP if path.stat().st_uid == 0 else 0
    except OSError:
        return 0
