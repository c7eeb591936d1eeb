"""Validation of a monitor's file and of the hosts and programs in it, without probing them."""

import concurrent.futures
from pathlib import Path
from typing import Final

from tickertape.producers.monitor.config.loader import MonitorFileError, Problem, load_source

from tickertape.net.outgoing import look_up

RESOLVE_TIMEOUT: Final = 10.0
"""Total seconds for all DNS lookups."""


def check(path: Path) -> list[str]:
    """List the problems of a monitor's file, one line each; empty if the file is valid.

    Args:
        path: path of the YAML file, as in PROTOCOL.md section 7.
    """
    try:
        source = load_source(path)
    except MonitorFileError as error:
        return [str(problem) for problem in error.problems]
    host_problems: dict[str, Problem] = {}
    problems = []
    for row, gateway in enumerate(source.config.gateways):
        for column, probe in enumerate(gateway.probes):
            field = f"gateways[{row}].probes[{column}].{probe.target}"
            line = source.line("gateways", row, "probes", column, probe.target)
            if (host := probe.host) is not None:
                message = f"host {host!r} does not resolve; check its spelling, or the DNS server"
                host_problems.setdefault(host, Problem(path, line, field, message))
            if (reason := probe.unusable_reason()) is not None:
                problems.append(Problem(path, line, field, reason))
    unresolvable = _find_unresolvable(list(host_problems))
    problems += [problem for host, problem in host_problems.items() if host in unresolvable]
    return [str(problem) for problem in sorted(problems, key=lambda problem: problem.line)]


def _find_unresolvable(hosts: list[str]) -> set[str]:
    # A look-up cannot be interrupted; those that hang are abandoned.
    lookups = {look_up(host, 0): host for host in hosts}
    done, pending = concurrent.futures.wait(lookups, RESOLVE_TIMEOUT)
    failed = {lookup for lookup in done if lookup.exception() is not None}
    return {lookups[lookup] for lookup in failed | pending}
