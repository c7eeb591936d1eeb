"""What is insecure about a relay's settings: one line for each, with what to do about it.

Nothing is connected to and nothing is changed; files are looked at, and keys are read as the relay would.
"""

import resource
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from cryptography import x509

from contracts.connect import shown
from relay.auth.authority import Authority
from relay.auth.keys import KeysError
from relay.auth.revocations import RevocationsError
from relay.auth.token_settings import is_loopback
from relay.config import RESERVED_DESCRIPTORS, RelaySettings
from relay.tls import Certificate, CertificateError

EXPIRES_SOON: Final = 14 * 86_400.0
"""Seconds before the end of a certificate from which it is told."""

_WIDE_PREFIX: Final = {4: 8, 6: 32}
"""Lengths of prefixes below which a network is no list of proxies any more."""

_LONG_LEEWAY: Final = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the settings.

    Attributes:
        weight: ``mend`` when it is a weakness, ``note`` when it may be meant.
        text: what it is, and what to do.
    """

    weight: Literal["mend", "note"]
    text: str

    def __str__(self) -> str:
        return f"{self.weight}  {self.text}"


def findings(settings: RelaySettings, now: float | None = None) -> list[Finding]:
    """Look at all settings of a relay.

    Args:
        settings: as ``tickertape serve`` would read them.
        now: UNIX seconds; the clock's without it.
    """
    found = list(_who_may_read(settings))
    found += _tokens(settings)
    found += _transport(settings, time.time() if now is None else now)
    found += _pages_and_proxies(settings)
    found += _limits(settings)
    found += _descriptors(settings)
    found += _nats(settings)
    found += _files(settings)
    return found


def _mend(text: str) -> Finding:
    return Finding("mend", text)


def _note(text: str) -> Finding:
    return Finding("note", text)


def _who_may_read(settings: RelaySettings) -> Iterator[Finding]:
    problem = settings.problem()
    if problem is not None:
        yield _mend(problem)
    if settings.auth == "none":
        if not is_loopback(settings.host):
            if settings.insecure:
                yield _mend(
                    f"--insecure: whoever reaches {settings.host}:{settings.port} reads all; use --auth jwt"
                )
        else:
            yield _note("--auth none: every user and program of this machine reads everything")
    if not is_loopback(settings.ops_host):
        yield _note(
            f"--ops-host {settings.ops_host}: metrics and status need no token; let only Prometheus reach it"
        )


def _tokens(settings: RelaySettings) -> Iterator[Finding]:
    if settings.auth != "jwt" or settings.problem() is not None:
        return
    try:
        Authority(settings)
    except (KeysError, RevocationsError) as error:
        yield _mend(str(error))
    if settings.jwt_algorithm == "HS256":
        yield _note("--jwt-algorithm HS256: whoever can verify a token can mint one; EdDSA keeps these apart")
    if settings.jwt_audience is None:
        yield _note("no --jwt-audience: tokens without one, minted for any other service, are taken too")
    if settings.jwt_issuer is None:
        yield _note("no --jwt-issuer: a token of any issuer that has the key is taken")
    if settings.jwt_revoked_file is None:
        yield _note("no --jwt-revoked-file: a token that leaks is good until it ends; keep them short")
    if settings.jwt_leeway > _LONG_LEEWAY:
        yield _note(
            f"--jwt-leeway {settings.jwt_leeway:g}: mend the clocks (NTP) and go back to a few seconds"
        )
    if settings.jwt_jwks_url is not None and settings.jwt_jwks_url.startswith("http://"):
        yield _note("--jwt-jwks-url is http: whoever has that port on this machine says which keys count")


def _transport(settings: RelaySettings, now: float) -> Iterator[Finding]:
    if settings.tls_cert is None:
        if is_loopback(settings.host):
            return
        if settings.trusted_proxies:
            yield _note(
                "no --tls-cert: what lies between the relay and its proxies sees every token and event"
            )
        else:
            yield _mend(
                "no --tls-cert: tokens and events cross the network in clear; give one, or use a proxy"
            )
        return
    try:
        Certificate(settings.tls_cert, settings.tls_key)
        chain = x509.load_pem_x509_certificates(settings.tls_cert.read_bytes())
    except (CertificateError, OSError, ValueError) as error:
        yield _mend(str(error))
        return
    ends = min(one.not_valid_after_utc.timestamp() for one in chain)
    if ends <= now:
        yield _mend(
            f"--tls-cert {settings.tls_cert} has expired; renew it, the relay reads it again by itself"
        )
    elif ends - now < EXPIRES_SOON:
        yield _mend(f"--tls-cert {settings.tls_cert} expires in {(ends - now) / 86_400:.1f} days; renew it")


def _pages_and_proxies(settings: RelaySettings) -> Iterator[Finding]:
    for origin in filter(None, (part.strip() for part in settings.allowed_origins.split(","))):
        url = urlsplit(origin)
        if "*" in origin:
            yield _note(
                f"--allowed-origins {origin}: whoever gets a name below it gets the readers' tokens to use"
            )
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            yield _mend(f"--allowed-origins {origin}: a page over http can be changed on its way; use https")
    for option, text, why in (
        ("--trusted-proxies", settings.trusted_proxies, "anybody in it may say who a client is"),
        ("--unlimited-addresses", settings.unlimited_addresses, "nobody in it has a limit"),
    ):
        for part in filter(None, (part.strip() for part in text.split(","))):
            network = ip_network(part, strict=False)
            if network.prefixlen < _WIDE_PREFIX[network.version]:
                yield _mend(f"{option} {part}: {why}; name the proxies alone")


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
            yield _note(f"{option} 0: {what}")


def _descriptors(settings: RelaySettings) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + RESERVED_DESCRIPTORS
    if settings.max_connections and hard != resource.RLIM_INFINITY and hard < needed:
        yield _mend(
            f"--max-connections {settings.max_connections}: only {hard} descriptors, and {needed} are "
            "needed; raise the limit (ulimit -Hn, LimitNOFILE)"
        )


def _nats(settings: RelaySettings) -> Iterator[Finding]:
    if settings.nats_url is None:
        yield _note("the relay's own NATS has no users: every program of this machine may publish to it")
        return
    access = settings.access()
    for part in settings.nats_url.split(","):
        url = urlsplit(part.strip())
        where = shown(part.strip())
        if url.password is not None:
            yield _note(
                f"the password of {where} is in its address; use --nats-password-file or --nats-creds"
            )
        if is_loopback(url.hostname or ""):
            continue
        if url.scheme in ("nats", "ws") and not access.tls:
            yield _mend(f"{where}: events and passwords cross the network in clear; use tls://, or --nats-ca")
        if not access.identifies and access.cert is None and url.username is None:
            yield _mend(f"{where}: no credentials, so whoever reaches it may publish; see deploy/nats")


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
            yield _mend(f"{option} {path} can be read by others; chmod 600 {path}")
    for option, path in (
        ("--jwt-key-file", settings.jwt_key_file),
        ("--jwt-revoked-file", settings.jwt_revoked_file),
    ):
        if path is not None and _mode(path) & stat.S_IWOTH:
            yield _mend(f"{option} {path} can be written by others; chmod o-w {path}")


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
