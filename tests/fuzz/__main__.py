"""``python -m tests.fuzz``: run many cases, or the one that failed.

``FUZZ_CASES`` says how many (a million), ``FUZZ_SEED`` where the seeds begin (0). One case in two hundred also
goes to a real relay over real sockets. Ends with status 1 at the first case that does what it must not.
"""

import argparse
import os
import resource
import sys
import time
from typing import Final

from tests.fuzz.cases import case
from tests.fuzz.inside import FoundError, Inside, living
from tests.fuzz.transport import StandingLoop

_REPORT_EVERY: Final = 10.0
_FILES_EVERY: Final = 50
_MOST_GROWTH: Final = 64 * 1024 * 1024


def inside(first: int, count: int) -> Inside:
    """Run cases in this process.

    Args:
        first: seed of the first.
        count: how many.

    Raises:
        FoundError: one of them does what it must not.
    """
    loop = StandingLoop()
    try:
        return loop.run_until_complete(_run(first, count))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _run(first: int, count: int) -> Inside:
    relay = Inside()
    began = told = time.monotonic()
    warm = 0
    for seed in range(first, first + count):
        await relay.run(case(seed, files=seed % _FILES_EVERY == 0))
        if relay.cases == min(count, 5_000):
            warm = _rss()
        if time.monotonic() - told > _REPORT_EVERY:
            told = time.monotonic()
            print(f"{relay.cases:,} cases, {relay.cases / (told - began):,.0f} a second", flush=True)
    relay.close()
    if (left := living()) > 2:
        raise FoundError(f"{left} connections are still in memory behind {count} cases")
    if (growth := _rss() - warm) > _MOST_GROWTH:
        raise FoundError(f"memory grew by {growth / 1e6:.0f} MB over {count} cases")
    return relay


def _rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one case, and show it")
    options = parser.parse_args()
    if options.seed is not None:
        print(case(options.seed, files=options.seed % _FILES_EVERY == 0))
        inside(options.seed, 1)
        return 0
    first, count = int(os.environ.get("FUZZ_SEED", "0")), int(os.environ.get("FUZZ_CASES", "1000000"))
    began = time.monotonic()
    try:
        relay = inside(first, count)
    except FoundError as error:
        print(error, file=sys.stderr)
        return 1
    took = time.monotonic() - began
    slow, seed = relay.slowest
    print(
        f"{count:,} cases from seed {first} in {took:.0f} s, {count / took:,.0f} a second; nothing found; "
        f"the slowest took {slow * 1000:.0f} ms of CPU (seed {seed})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
