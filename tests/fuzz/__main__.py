"""``python -m tests.fuzz [TARGET…]``: fuzz each target, or all, for ``FUZZ_SECONDS`` (600 by default).

The targets are those of ``tests/fuzz/targets``, which atheris guides by coverage, and ``clients``: random
clients of a whole relay, of which one in two hundred also uses real sockets. ``FUZZ_SEED`` is the first of
their seeds (0); ``--seed`` repeats one. ``--keep`` adds to the corpus what the targets found. Exits with 1 if
an input violates an invariant; the input is then in ``build/fuzz/<target>``.
"""

import argparse
import asyncio
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final

from tests.fuzz.cases import Case, case
from tests.fuzz.inside import FoundError, Inside, living
from tests.fuzz.outside import Outside, options
from tests.fuzz.targets import TARGETS
from tests.fuzz.transport import StandingLoop
from tests.support.paths import ROOT
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

CLIENTS: Final = "clients"
BUILD: Final = ROOT / "build" / "fuzz"
CORPUS: Final = ROOT / "tests" / "fuzz" / "corpus"
LIMITS: Final = ("-max_len=4096", "-timeout=20", "-rss_limit_mb=2500")
"""Bytes of an input, seconds of its execution, and memory of the process."""

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


def fuzz_clients(seconds: float) -> None:
    """Run random clients for some seconds.

    Raises:
        FoundError: a case violated an invariant.
    """
    first = int(os.environ.get("FUZZ_SEED", "0"))
    began = time.monotonic()
    relay = inside(takewhile(lambda _: time.monotonic() - began < seconds, cases(first, sys.maxsize)))
    took = time.monotonic() - began
    sockets = max(1, relay.cases // _SOCKETS_EVERY)
    outside(list(cases(first, sockets)))
    slow, seed = relay.slowest
    print(
        f"{relay.cases:,} clients from seed {first} in {took:.0f} s, and {sockets:,} of them over sockets;"
        f" nothing found; the slowest took {slow * 1000:.0f} ms of CPU (seed {seed})"
    )


def fuzz_target(name: str, seconds: float, *, keep: bool) -> bool:
    """Run a target with coverage guidance; return False if an input violated its invariant.

    Args:
        name: name of the target.
        seconds: duration.
        keep: whether to add the inputs that reach new code to the corpus.
    """
    found, corpus = BUILD / name, CORPUS / name
    found.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.coverage", name, str(found)]
    options = [f"-max_total_time={seconds:.0f}", f"-artifact_prefix={found}/", *LIMITS]
    log = BUILD / f"{name}.log"
    with log.open("w") as output:
        code = subprocess.run([*command, str(corpus), *options], stderr=output, check=False).returncode
    text = log.read_text(errors="replace")
    print(f"{name}: {(re.findall(r'DONE .*', text) or ['stopped'])[-1]}", flush=True)
    if code:
        print(text[-4_000:], file=sys.stderr)
    elif keep:
        # Without counters, which tell apart how often a branch is taken: the corpus stays small.
        merge = ["-merge=1", "-use_counters=0", *LIMITS]
        command[-1:] = [str(corpus), str(found)]
        subprocess.run([*command, *merge], stderr=subprocess.DEVNULL, check=True)
    return code == 0


def main() -> int:
    """Run the targets that the command line selects."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"one of {CLIENTS}, {', '.join(TARGETS)}"
    )
    parser.add_argument("--seed", type=int, help="run this one random client, and show it")
    parser.add_argument("--keep", action="store_true", help="add what reaches new code to the corpus")
    given = parser.parse_args()
    if unknown := {*given.targets} - {CLIENTS, *TARGETS}:
        parser.error(f"unknown target {', '.join(sorted(unknown))}")
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    selected = given.targets or [CLIENTS, *TARGETS]
    failed = False
    try:
        if given.seed is not None:
            print(*cases(given.seed, 1))
            inside(cases(given.seed, 1))
            return 0
        if CLIENTS in selected:
            fuzz_clients(seconds)
    except FoundError as error:
        print(error, file=sys.stderr)
        failed = True
    for name in selected:
        if name != CLIENTS:
            failed |= not fuzz_target(name, seconds, keep=given.keep)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
