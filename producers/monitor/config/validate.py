"""Validation of a monitor's file and of what it needs on this machine, without probing any gateway.

Hosts must resolve, files must be readable, variables must be set and programs must exist. This covers the
probes of gateways and of ``connectivity``, and recovery actions.
"""

import concurrent.futures
import os
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tickertape.producers.monitor.config.loader import Source, load_source
from tickertape.producers.monitor.config.problems import MonitorFileError, Problem
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.probes import CannotProbe, ProbeSettings
from tickertape.producers.monitor.probes.options.secrets import read_secret
from tickertape.producers.monitor.probes.options.tls import MAX_PEM_BYTES, TlsOptions, create_ssl_context
from tickertape.producers.monitor.types import Settings

from tickertape.net.outgoing import look_up
from tickertape.process.files import read_regular_file

RESOLVE_TIMEOUT: Final = 10.0
"""Total seconds for all DNS lookups."""

_AUTHORITIES: Final = ("ca", "ca_file")
_FILES: Final = ("cert", "key", "cert_file", "key_file")

Location = tuple[int | str, ...]


def check(path: Path) -> list[Problem]:
    """List the problems of a monitor's file; empty if the file is valid.

    Args:
        path: path of the YAML file.
    """
    try:
        source = load_source(path)
    except MonitorFileError as error:
        return error.problems
    problems = [
        source.problem(found, message, hint)
        for location, settings in _parts(source)
        for found, message, hint in _find_missing(location, settings)
    ]
    problems += _find_unresolvable(source)
    # The kind of a probe may find what the name of a setting shows, too.
    first = {(problem.line, problem.field): problem for problem in reversed(problems)}
    return sorted(first.values(), key=lambda problem: problem.line)


def find_warnings(path: Path) -> list[Problem]:
    """List the risks that a valid monitor's file accepts."""
    source = load_source(path)
    warnings = [
        (location, part.warning) for location, part in _parts(source) if isinstance(part, ProbeSettings)
    ]
    for row, gateway in enumerate(source.config.resolve_gateways()):
        for column, check in enumerate(gateway.checks):
            location: Location = ("gateways", row, "probes", column)
            warnings.append((location, check.probe.schedule_warning(check.interval)))
    problems = [
        source.problem(location, *warning.split("; ", 1)) for location, warning in warnings if warning
    ]
    return sorted(problems, key=lambda problem: problem.line)


def _parts(source: Source) -> Iterator[tuple[Location, ProbeSettings | RecoverySettings]]:
    """Yield all probes and recovery actions, with their locations."""
    connectivity = source.config.connectivity
    for column, probe in enumerate(connectivity.probes if connectivity is not None else ()):
        yield ("connectivity", "probes", column), probe
    for row, gateway in enumerate(source.config.gateways):
        for column, probe in enumerate(gateway.probes):
            yield ("gateways", row, "probes", column), probe
        if gateway.recovery is not None:
            yield ("gateways", row, "recovery"), gateway.recovery


def _find_missing(location: Location, settings: Settings) -> Iterator[tuple[Location, str, str]]:
    """Yield what this machine lacks, according to the kind of a probe and to the names of settings."""
    if isinstance(settings, ProbeSettings) and (reason := settings.unusable_reason()) is not None:
        message, _, hint = reason.partition("; ")
        yield (*location, settings.target), message, hint
    yield from _find_certificate_problem(location, settings)
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        here = (*location, name)
        if isinstance(value, Settings):
            yield from _find_missing(here, value)
        elif isinstance(value, list) and value and isinstance(value[0], Settings):
            for index, item in enumerate(value):
                yield from _find_missing((*here, index), item)
        elif name == "command" and value:
            if shutil.which(value[0]) is None:
                yield here, f"{value[0]!r} is not an executable on this machine", "use its full path"
        elif isinstance(value, dict) and name.endswith(("_env", "_file")):
            for key, item in value.items():
                yield from _find_missing_source((*here, key), name, item)
        elif isinstance(value, str):
            yield from _find_missing_source(here, name, value)


def _find_missing_source(location: Location, name: str, value: str) -> Iterator[tuple[Location, str, str]]:
    """Yield what this machine lacks for a setting that names a variable or a file."""
    if name.endswith("_env"):
        if not os.environ.get(value):
            hint = "set it for the monitor, and check the file with the same environment"
            yield location, f"environment variable {value} is not set", hint
    elif name in _AUTHORITIES:
        if (problem := _find_authority_problem(value)) is not None:
            yield location, f"file {value!r} {problem}", "give a PEM file with the certificates to trust"
    elif name in _FILES or name.endswith("_file"):
        if not os.access(value, os.R_OK):
            message = f"file {value!r} does not exist, or may not be read"
            yield location, message, "check its path and permissions"
        elif name not in _FILES:
            try:
                read_secret(None, value)
            except CannotProbe as error:
                yield location, error.message, error.hint


def _find_certificate_problem(location: Location, settings: Settings) -> Iterator[tuple[Location, str, str]]:
    """Yield why a client certificate and its key, which can be read, cannot be used together."""
    if not isinstance(settings, TlsOptions) or settings.cert is None:
        return
    if all(os.access(path, os.R_OK) for path in (settings.cert, settings.key or settings.cert)):
        try:
            create_ssl_context(None, settings.cert, settings.key)
        except CannotProbe as error:
            yield (*location, "cert"), error.message, error.hint


def _find_authority_problem(path: str) -> str | None:
    try:
        read_regular_file(Path(path), MAX_PEM_BYTES)  # not a pipe, which would not end
        ssl.create_default_context(cafile=path)
    except FileNotFoundError:
        return "does not exist"
    except ssl.SSLError:
        return "has no certificates in the PEM format"
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return None


def _find_unresolvable(source: Source) -> list[Problem]:
    first: dict[str, Problem] = {}
    for location, part in _parts(source):
        if isinstance(part, ProbeSettings):
            host, target = part.host, part.target
        else:
            host, target = urlsplit(part.url).hostname if part.url is not None else None, "url"
        if host is not None and host not in first:
            message = f"host {host!r} does not resolve"
            hint = "check its spelling, or the DNS server of this machine"
            first[host] = source.problem((*location, target), message, hint)
    # A look-up cannot be interrupted; those that hang are abandoned.
    lookups = {look_up(host): host for host in first}
    done, pending = concurrent.futures.wait(lookups, RESOLVE_TIMEOUT)
    failed = {lookup for lookup in done if lookup.exception() is not None}
    return [first[lookups[lookup]] for lookup in failed | pending]
