"""``python -m tests.fuzz``: run many cases, or repeat one.

``FUZZ_CASES`` is their number (one million by default), ``FUZZ_SEED`` the first seed (0). One case in two
hundred is also sent to a real relay over real sockets. Exits with 1 at the first case that violates an
invariant.
"""

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tests.fuzz.cases import Case, case
from tests.fuzz.inside import FoundError, Inside, living
from tests.fuzz.outside import Outside, options
from tests.fuzz.transport import StandingLoop
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

_REPORT_EVERY: Final = 10.0
_FILES_EVERY: Final = 50
_SOCKETS_EVERY: Final = 200
_WARM: Final = 2_000
"""Number of cases after which memory must no longer grow."""

_OWN: Final = 2  # the honest client's
_MOST_GROWTH: Final = 64 * 1024 * 1024


def cases(first: int, count: int) -> Iterator[Case]:
    """Return the cases of a range of seeds; some of them request files."""
    for seed in range(first, first + count):
        yield case(seed, files=seed % _FILES_EVERY == 0)


def inside(some: Iterable[Case]) -> Inside:
    """Run cases in this process.

    Raises:
        FoundError: a case violated an invariant.
    """
    loop = StandingLoop()
    try:
        return loop.run_until_complete(_run(some))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _run(some: Iterable[Case]) -> Inside:
    relay = Inside()
    began = printed_at = time.monotonic()
    warm = 0
    try:
        for one in some:
            await relay.run(one)
            if relay.cases == _WARM:
                warm = _rss()
            if time.monotonic() - printed_at > _REPORT_EVERY:
                printed_at = time.monotonic()
                print(
                    f"{relay.cases:,} cases, {relay.cases / (printed_at - began):,.0f} a second", flush=True
                )
    finally:
        relay.close()
    if (left := living()) > _OWN:
        raise FoundError(f"{left} connections are still in memory")
    if warm and (growth := _rss() - warm) > _MOST_GROWTH:
        raise FoundError(f"memory grew by {growth / 1e6:.0f} MB")
    return relay


def outside(some: list[Case]) -> int:
    """Run cases over sockets against a new relay; return how many events the honest client received.

    Raises:
        FoundError: a case violated an invariant.
    """
    with (
        tempfile.TemporaryDirectory(prefix="tickertape-fuzz-") as name,
        NatsServer(Path(name, "nats")) as server,
        Relay(server.url, *options(Path(name))) as relay,
    ):
        fire = Outside(relay)
        asyncio.run(fire.run(some))
    return fire.events


def _rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Run the cases that the command line selects."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one case, and show it")
    given = parser.parse_args()
    first, count = int(os.environ.get("FUZZ_SEED", "0")), int(os.environ.get("FUZZ_CASES", "1000000"))
    if given.seed is not None:
        first, count = given.seed, 1
        print(*cases(first, count))
    began = time.monotonic()
    try:
        relay = inside(cases(first, count))
        took = time.monotonic() - began
        sockets = max(1, count // _SOCKETS_EVERY)
        outside(list(cases(first, sockets)))
    except FoundError as error:
        print(error, file=sys.stderr)
        return 1
    slow, seed = relay.slowest
    print(
        f"{count:,} cases from seed {first} in {took:.0f} s, {count / took:,.0f} a second, and {sockets:,} of"
        f" them over sockets; nothing found; the slowest took {slow * 1000:.0f} ms of CPU (seed {seed})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
