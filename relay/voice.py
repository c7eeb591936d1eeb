"""Lines for the operator, at once: whoever starts relays reads them through a pipe."""

import sys


def say(line: str) -> None:
    """Print a line."""
    print(line, flush=True)


def complain(line: str) -> None:
    """Say in one line on standard error why no relay can run."""
    print(f"tickertape serve: {line}", file=sys.stderr)
