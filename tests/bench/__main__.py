"""Command line of the benchmark, ``python -m tests.bench``.

Results go to standard output, progress to standard error. The exit status is 0 if everything ran, whatever
the figures; 1 if something failed; 2 for an invalid option; 130 after Ctrl-C. No child process outlives it.
"""

import argparse
import resource
import signal
import sys
import time
from dataclasses import replace

import orjson
from rich.console import Console

from tests.bench.load.children import BenchError
from tests.bench.measures import report
from tests.bench.measures.plan import PEERS, SCENARIOS, Plan
from tests.bench.scenarios import run

_QUICK = Plan(
    clients=50, max_clients=100, seconds=2, connections=1_000, backlog=20_000, attempts=1,
    reconnecting=500, replay_events=100_000, growth=(10, 100, 1_000), gateways=100,
    failing_seconds=30, transitions=5_000, lines=50_000, attack_seconds=5, states=5_000,
    files=(20, 200), spread_lines=4_000, unread=50, stored=20_000, starts=3,
)  # fmt: skip


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.5 and 600")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1000000")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure this relay and its peers, one after another, on this machine.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="short run that only checks that everything works"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="scenario to run; repeatable")
    parser.add_argument(
        "--target", dest="targets", action="append", choices=PEERS, help="target to measure; repeatable"
    )
    parser.add_argument("--clients", metavar="COUNT", type=_positive, help="clients in 'same' (default: 200)")
    parser.add_argument(
        "--max-clients",
        metavar="COUNT",
        type=_positive,
        help="clients of the relay in 'max', 'stalled', 'filters', 'deflate', 'streams' and 'conditions' "
        "(default: 1000)",
    )
    parser.add_argument(
        "--rate",
        metavar="EVENTS",
        type=_rate,
        help="events per second in these scenarios, 1 to 1000000 (default: 1000)",
    )
    parser.add_argument("--seconds", type=_seconds, help="seconds per measurement, 0.5 to 600 (default: 10)")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    given = {name: getattr(options, name) for name in ("clients", "max_clients", "rate", "seconds")}
    for name in ("only", "targets"):
        chosen = getattr(options, name)
        given[name] = tuple(chosen) if chosen else None
    return replace(
        _QUICK if options.quick else Plan(),
        **{name: value for name, value in given.items() if value is not None},
    )


def _terminate(number: int, _: object) -> None:
    # Unwinds every ``with`` block, which stops the children.
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    options = _parser().parse_args(argv)
    if sys.platform != "linux":
        print("bench: requires Linux (/proc and epoll)", file=sys.stderr)
        return 1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, _terminate)
    plan = _plan(options)
    began = time.monotonic()
    console = Console(stderr=True, highlight=False)

    def progress(line: str) -> None:
        console.print(f"{time.monotonic() - began:5.0f} s  {line}", markup=False, soft_wrap=True)

    try:
        results = run(plan, progress)
    except KeyboardInterrupt:
        progress("interrupted")
        return 130
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        shown = report.as_json(plan, results, quick=options.quick)
        sys.stdout.buffer.write(orjson.dumps(shown, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        report.show(Console(highlight=False), plan, results, quick=options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
