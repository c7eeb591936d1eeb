"""The scenario of the strangers: honest clients with good tokens, alone and then beside an attack.

Two thousand strangers a second come for half a minute: bad tokens, half handshakes, slow bytes, floods. What
the honest notice of it, and what the relay spends on it, from many addresses and from one.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tickertape.relay.auth.signing import generate_key

from tests.bench.load.children import module
from tests.bench.load.stranger_kinds import honest_token
from tests.bench.measures import targets
from tests.bench.run import Load, staged

CLIENTS: Final = 100
RATE: Final = 500.0
"""Events a second to each honest client."""

SOURCES: Final = (64, 1)
"""Addresses that the strangers come from, one row each."""

_SETTLE: Final = 6.5
"""Seconds after which nothing of the strangers may be left: they have five, whatever they do not do."""

_LEAD_NS: Final = 1_000_000_000  # the warm-up of a window, which the strangers begin behind

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Siege:
    """What came of one attack.

    Attributes:
        sources: addresses that the strangers came from.
        wanted: strangers per second that were to come.
        attempted: strangers that came.
        seconds: how long.
        ends: what became of them, by sort and what they were told; ``cut`` means nothing, ``left`` that they
            went away by themselves.
        closed: honest clients that lost their connection.
        lost: events that an honest client did not get, over all of them.
        quiet_p99: latency of honest clients before, in milliseconds; ``beside_p99`` during the attack.
        quiet_cores: cores of the relay before; ``beside_cores`` during the attack.
        rss_before: resident bytes of the relay before; ``rss_most`` during the attack, ``rss_after`` it.
        load_cores: cores of the strangers.
    """

    sources: int
    wanted: float
    attempted: int
    seconds: float
    ends: dict[str, int]
    closed: int
    lost: int
    quiet_p99: float
    beside_p99: float
    quiet_cores: float
    beside_cores: float
    rss_before: int
    rss_most: int
    rss_after: int
    load_cores: float

    @property
    def rate(self) -> float:
        """Strangers that really came per second."""
        return self.attempted / self.seconds

    @property
    def let_in(self) -> int:
        """Strangers that were welcomed."""
        return sum(count for end, count in self.ends.items() if end.endswith(": let in"))

    @property
    def bound_ms(self) -> float:
        """What the honest clients' p99 may be beside strangers."""
        return max(3 * self.quiet_p99, 25.0)

    @property
    def growth(self) -> int:
        """Bytes that the relay grew by at most, then or for good."""
        return max(self.rss_most, self.rss_after) - self.rss_before

    @property
    def each_us(self) -> float:
        """Microseconds of the relay's CPU for a stranger."""
        return 1e6 * (self.beside_cores - self.quiet_cores) * self.seconds / max(1, self.attempted)


def strangers(rate: float, seconds: float, quiet: float, say: Say, rows: list[Siege]) -> None:
    """Measure it, from many addresses and from one.

    Args:
        rate: strangers per second.
        seconds: of the attack.
        quiet: seconds before it.
        say: gets lines of progress.
        rows: get what came of it.
    """
    for sources in SOURCES:
        say(f"strangers: {rate:,.0f} a second from {sources} addresses beside {CLIENTS} clients ...")
        found = siege(sources, rate, seconds, quiet)
        rows.append(found)
        say(
            f"strangers: {found.rate:,.0f} a second from {sources} addresses, {found.let_in} let in; honest:"
            f" {found.closed} closed, {found.lost} events lost, p99 {found.quiet_p99:.1f} ms,"
            f" beside them {found.beside_p99:.1f} ms; {found.each_us:.0f} us each,"
            f" {found.growth / 1e6:+.1f} MB"
        )


def siege(sources: int, rate: float, seconds: float, quiet: float) -> Siege:
    """Measure one attack."""
    secret = generate_key("HS256")[0].strip()
    load = Load(CLIENTS, RATE, quiet, token=honest_token(secret, time.time()), exact=True)
    with tempfile.TemporaryDirectory(prefix="tickertape-bench-") as folder:
        key = Path(folder, "key")
        key.write_bytes(secret)
        options = ("--auth", "jwt", "--jwt-algorithm", "HS256", "--jwt-key-file", str(key))
        # A small log is full soon, and then no longer what makes the relay grow.
        with (
            targets.ours(targets.LIVE, "--log-size", "1000", *options) as target,
            staged(target, load) as stage,
            module(
                "the strangers", "stranger_load",
                port=target.port, rate=rate, sources=sources, secret=secret.decode(), pid=target.process.pid,
            ) as crowd,
        ):  # fmt: skip
            crowd.hear(30)
            before = stage.window()
            rss = target.process.rss
            cpu = crowd.cpu
            start = time.monotonic_ns() + _LEAD_NS
            crowd.say(start=start, end=start + int(seconds * 1e9))
            beside = stage.window(seconds)
            came = crowd.hear(seconds + 30)
            cpu = crowd.cpu - cpu
            time.sleep(_SETTLE)
            after = target.process.rss
    return Siege(
        sources, rate, came["attempted"], came["seconds"], dict(sorted(came["ends"].items())),
        before.closed + beside.closed, before.lost + beside.lost, before.p99, beside.p99,
        before.cores, beside.cores, rss, came["most_rss"], after, cpu / came["seconds"],
    )  # fmt: skip
