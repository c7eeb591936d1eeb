"""Output for the operator, flushed line by line because supervising programs read it through a pipe."""

import sys

from tickertape.text import join_lines


def print_line(line: str) -> None:
    """Print a line to standard output and flush it."""
    print(line, flush=True)


def print_notice(program: str, text: str) -> None:
    """Print a message to standard error as a single line.

    Args:
        program: name of the command that prints it, such as ``ship``.
        text: the message; line breaks are joined.
    """
    print(f"tickertape {program}: {join_lines(text)}", file=sys.stderr, flush=True)
