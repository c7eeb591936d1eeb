"""Checks a monitor's file and what it points at, without probing anything."""

import concurrent.futures
import socket
from pathlib import Path
from typing import Final

from tickertape.producers.monitor.config.loader import MonitorFileError, Problem, read

RESOLVE_TIMEOUT: Final = 10.0
"""Seconds for all look-ups together."""

_WORKERS: Final = 16


def check(path: Path) -> list[str]:
    """List what is wrong with a monitor's file, one line each; empty when it is fine.

    Args:
        path: the YAML file of PROTOCOL.md section 7.
    """
    try:
        source = read(path)
    except MonitorFileError as error:
        return [str(problem) for problem in error.problems]
    places: dict[str, Problem] = {}
    problems = []
    for row, gateway in enumerate(source.config.gateways):
        for column, probe in enumerate(gateway.probes):
            field = f"gateways[{row}].probes[{column}].{probe.target}"
            line = source.line("gateways", row, "probes", column, probe.target)
            if (host := probe.host) is not None:
                what = f"host {host!r} does not resolve; check its spelling, or the name server"
                places.setdefault(host, Problem(path, line, field, what))
            if (why := probe.unusable()) is not None:
                problems.append(Problem(path, line, field, why))
    unknown = _unresolvable(list(places))
    problems += [problem for host, problem in places.items() if host in unknown]
    return [str(problem) for problem in sorted(problems, key=lambda problem: problem.line)]


def _unresolvable(hosts: list[str]) -> set[str]:
    pool = concurrent.futures.ThreadPoolExecutor(_WORKERS, thread_name_prefix="resolve")
    try:
        asked = {pool.submit(_resolves, host): host for host in hosts}
        done, waiting = concurrent.futures.wait(asked, RESOLVE_TIMEOUT)
        return {asked[look_up] for look_up in done if not look_up.result()} | {asked[w] for w in waiting}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return True
