"""Scenario ``attackers``: honest clients with valid tokens, first alone, then during an attack.

For half a minute, 2 000 attackers per second connect: with invalid tokens, partial handshakes, slow bytes,
and floods. The scenario measures how much the honest clients notice and how much CPU and memory the relay
spends, once with attackers from many addresses and once from a single one.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tickertape.relay.auth.signing import generate_key

from tests.bench.load.attack_kinds import honest_token
from tests.bench.load.children import module
from tests.bench.measures import targets
from tests.bench.run import Load, staged

CLIENTS: Final = 100
RATE: Final = 500.0
"""Events per second to each honest client."""

SOURCES: Final = (64, 1)
"""Numbers of addresses that the attackers connect from, one row each."""

_SETTLE: Final = 6.5
"""Seconds after which the relay must have released everything it kept for attackers; its timeouts are 5 s."""

_LEAD_NS: Final = 1_000_000_000  # warm-up of a window; the attack begins after it

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Attack:
    """Result of one attack.

    Attributes:
        sources: number of addresses that the attackers connected from.
        requested_rate: planned attackers per second.
        attempted: attackers that connected.
        seconds: duration of the attack.
        ends: number of attackers by category and outcome: a status, a close code, ``disconnected`` (the relay
            closed the connection without either), or ``gave up`` (the attacker left).
        closed: honest clients that lost their connection.
        lost: events not received by an honest client, summed over all of them.
        baseline_p99: latency of the honest clients before the attack, in ms; ``attack_p99`` during it.
        baseline_cores: cores used by the relay before the attack; ``attack_cores`` during it.
        rss_before: resident bytes of the relay before the attack; ``rss_peak`` during it, ``rss_after`` after
            it.
        load_cores: cores used by the attackers.
    """

    sources: int
    requested_rate: float
    attempted: int
    seconds: float
    ends: dict[str, int]
    closed: int
    lost: int
    baseline_p99: float
    attack_p99: float
    baseline_cores: float
    attack_cores: float
    rss_before: int
    rss_peak: int
    rss_after: int
    load_cores: float

    @property
    def rate(self) -> float:
        """Attackers per second that actually connected."""
        return self.attempted / self.seconds

    @property
    def admitted(self) -> int:
        """Attackers that received a ``welcome``."""
        return sum(count for end, count in self.ends.items() if end.endswith(": admitted"))

    @property
    def p99_limit_ms(self) -> float:
        """Maximum p99 of the honest clients during the attack, in milliseconds."""
        return max(3 * self.baseline_p99, 25.0)

    @property
    def growth(self) -> int:
        """Bytes by which the relay grew, either at its peak or after the attack."""
        return max(self.rss_peak, self.rss_after) - self.rss_before

    @property
    def cpu_us(self) -> float:
        """Microseconds of the relay's CPU per attacker."""
        return 1e6 * (self.attack_cores - self.baseline_cores) * self.seconds / max(1, self.attempted)


def attackers(rate: float, seconds: float, quiet: float, progress: Progress, rows: list[Attack]) -> None:
    """Measure attacks from many addresses and from one.

    Args:
        rate: attackers per second.
        seconds: duration of each attack.
        quiet: seconds of the baseline measured before it.
        progress: called with each line of progress.
        rows: list that receives the results.
    """
    for sources in SOURCES:
        progress(f"attackers: {rate:,.0f}/s from {sources} source addresses beside {CLIENTS} clients ...")
        found = attack(sources, rate, seconds, quiet)
        rows.append(found)
        progress(
            f"attackers: {found.rate:,.0f}/s from {sources} source addresses, {found.admitted} admitted;"
            f" honest clients: {found.closed} closed, {found.lost} events lost, p99"
            f" {found.baseline_p99:.1f} ms before, {found.attack_p99:.1f} ms during the attack;"
            f" {found.cpu_us:.0f} us of CPU per attacker, memory {found.growth / 1e6:+.1f} MB"
        )


def attack(sources: int, rate: float, seconds: float, quiet: float) -> Attack:
    """Measure one attack."""
    secret = generate_key("HS256")[0].strip()
    load = Load(CLIENTS, RATE, quiet, token=honest_token(secret, time.time()), exact=True)
    with tempfile.TemporaryDirectory(prefix="tickertape-bench-") as folder:
        key = Path(folder, "key")
        key.write_bytes(secret)
        options = ("--auth", "jwt", "--jwt-algorithm", "HS256", "--jwt-key-file", str(key))
        # A small event log fills up early, so that it does not contribute to the relay's growth.
        with (
            targets.ours(targets.LIVE, "--log-size", "1000", *options) as target,
            staged(target, load) as stage,
            module(
                "the attackers", "attack_load",
                port=target.port, rate=rate, sources=sources, secret=secret.decode(), pid=target.process.pid,
            ) as attackers,
        ):  # fmt: skip
            attackers.receive(30)
            before = stage.window()
            rss = target.process.rss
            cpu = attackers.cpu
            start = time.monotonic_ns() + _LEAD_NS
            attackers.send(start=start, end=start + int(seconds * 1e9))
            during = stage.window(seconds)
            report = attackers.receive(seconds + 30)
            cpu = attackers.cpu - cpu
            time.sleep(_SETTLE)
            after = target.process.rss
    return Attack(
        sources, rate, report["attempted"], report["seconds"], dict(sorted(report["ends"].items())),
        before.closed + during.closed, before.lost + during.lost, before.p99, during.p99,
        before.cores, during.cores, rss, report["peak_rss"], after, cpu / report["seconds"],
    )  # fmt: skip
