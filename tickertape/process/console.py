"""Output for the operator, flushed line by line because supervising programs read it through a pipe.

Invariant: text that others chose, such as a file name or a message of a server, cannot control the terminal.
All commands print through this module or ``terminal``, and ruff rejects any other output.
"""

import codecs
import io
import os
import sys
import threading
import traceback
from types import TracebackType

from tickertape.text import escape_json, join_lines, printable, printable_json, printable_lines


def print_line(line: str) -> None:
    """Print a line to standard output and flush it."""
    print(printable(line), flush=True)


def print_lines(text: str) -> None:
    """Print a text of several lines, such as the help, to standard output."""
    print(printable_lines(text.removesuffix("\n")), flush=True)


def print_json(document: bytes) -> None:
    """Print a JSON document to standard output, with the same value and without control characters."""
    print(printable_json(document.decode()), flush=True)


def print_error(line: str) -> None:
    """Print a line to standard error; line breaks are joined."""
    print(printable(join_lines(line)), file=sys.stderr, flush=True)


def print_notice(program: str, text: str) -> None:
    """Print a message to standard error as a single line.

    Args:
        program: name of the command that prints it, such as ``ship``.
        text: the message; line breaks are joined.
    """
    print_error(f"tickertape {program}: {text}")


def flush() -> None:
    """Write what standard output still buffers."""
    sys.stdout.flush()


def print_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Print the traceback of an uncaught exception, as ``sys.excepthook`` does."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(printable_lines(text), end="", file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr.isatty()


def is_interactive() -> bool:
    """Return whether a question on standard error can be answered on standard input."""
    return sys.stdin is not None and sys.stdin.isatty() and is_terminal()


def read_answer() -> str:
    """Read a line of standard input, without white space around it; empty at its end."""
    return sys.stdin.readline().strip()


def escape_tracebacks() -> None:
    """Print the tracebacks of this process by ``print_traceback``, also those of threads and finalizers."""

    def print_failure(failure: threading.ExceptHookArgs) -> None:
        if not issubclass(failure.exc_type, SystemExit):
            print_traceback(failure.exc_type, failure.exc_value, failure.exc_traceback)

    def print_ignored(failure: "sys.UnraisableHookArgs") -> None:
        print_error(f"{failure.err_msg or 'exception ignored in'}: {failure.object!r}")
        print_traceback(failure.exc_type, failure.exc_value, failure.exc_traceback)

    sys.excepthook, threading.excepthook, sys.unraisablehook = print_traceback, print_failure, print_ignored


def escape_unencodable() -> None:
    """Escape as in JSON what the encoding of standard output and error lacks, so that it ends no command."""

    def escape(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        return "".join(map(escape_json, error.object[error.start : error.end])), error.end

    codecs.register_error("tickertape.escape", escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tickertape.escape")


def needs_utf8(encoding: str) -> bool:
    """Return whether an encoding has no character beyond ASCII; one of a locale that has more is kept."""
    return codecs.lookup(encoding).name == "ascii"


def ensure_utf8() -> None:
    """Start this program again in Python's UTF-8 mode if the encoding of its locale is ASCII.

    Python does this by itself in the locales C and POSIX, unless ``PYTHONUTF8=0`` or another locale rules it
    out: there every character of an argument beyond ASCII would be invalid.
    """
    if needs_utf8(sys.getfilesystemencoding()):
        os.environ["PYTHONUTF8"] = "1"  # of child processes
        # The option counts even where the environment is ignored (python -I).
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
