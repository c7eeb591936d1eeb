"""``python -m tests.bench``: reads the options, runs the plan, prints what came out.

Results go to standard output, progress to standard error. Status 0 when everything ran, whatever the figures;
1 when something failed, 2 for a bad option, 130 after Ctrl-C. No child process outlives it.
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
    clients=50, most_clients=100, seconds=2, connections=1_000, backlog=20_000, attempts=1,
    returning=500, old=100_000, growth=(10, 100, 1_000), gateways=100, lines=50_000, siege=5, stored=20_000,
    starts=3,
)  # fmt: skip


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
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
        description="Measure this installation beside its peers, one after the other on this machine.",
    )
    parser.add_argument("--quick", action="store_true", help="a short run that shows that everything works")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--only", action="append", choices=SCENARIOS, help="run this scenario; may be given more than once"
    )
    parser.add_argument(
        "--who", action="append", choices=PEERS, help="run this target; may be given more than once"
    )
    parser.add_argument("--clients", type=_positive, help="clients in 'same' (200)")
    parser.add_argument(
        "--most-clients", type=_positive, help="clients of our relay in 'most' and what varies it (1000)"
    )
    parser.add_argument("--rate", type=_rate, help="events per second in these (1000)")
    parser.add_argument("--seconds", type=_seconds, help="length of each measurement (10)")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    given = {name: getattr(options, name) for name in ("clients", "most_clients", "rate", "seconds")}
    for name in ("only", "who"):
        chosen = getattr(options, name)
        given[name] = tuple(chosen) if chosen else None
    return replace(
        _QUICK if options.quick else Plan(),
        **{name: value for name, value in given.items() if value is not None},
    )


def _terminate(number: int, _: object) -> None:
    # Unwinds every ``with`` block, which ends the children.
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = _parser().parse_args(argv)
    if sys.platform != "linux":
        print("the bench reads /proc and uses epoll: run it on Linux", file=sys.stderr)
        return 1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, _terminate)
    plan = _plan(options)
    began = time.monotonic()
    progress = Console(stderr=True, highlight=False)

    def say(line: str) -> None:
        progress.print(f"{time.monotonic() - began:5.0f} s  {line}", markup=False, soft_wrap=True)

    try:
        results = run(plan, say)
    except KeyboardInterrupt:
        say("stopped")
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
