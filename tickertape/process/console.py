"""Lines for the operator, flushed as they are written: programs that start ours read them through a pipe."""

import sys

from tickertape.text import join_lines


def print_line(line: str) -> None:
    """Print a line to standard output."""
    print(line, flush=True)


def print_notice(program: str, text: str) -> None:
    """Write one line for the operator to standard error.

    Args:
        program: which of ours says it.
        text: may have several lines.
    """
    print(f"tickertape {program}: {join_lines(text)}", file=sys.stderr, flush=True)
