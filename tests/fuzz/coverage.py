"""Coverage-guided fuzzing of one target: ``python -m tests.fuzz.coverage TARGET [FOLDER…] [-option=value…]``.

The folders hold inputs; new ones that reach more code are added to the first. The options are those of
libFuzzer; ``-merge=1 TO FROM`` copies the inputs that add coverage.
"""

import logging
import shlex
import sys
from typing import Final

import atheris

from tests.fuzz.targets import load

INSTRUMENTED: Final = ["tickertape", "h11", "websockets"]
"""Packages in which atheris sees which branches an input takes."""


def main() -> None:
    """Run the target until an option or a finding ends it; libFuzzer exits the process."""
    name, *arguments = sys.argv[1:]
    # Lets the fuzzer see what a comparison of strings asks for. Its hook for regular expressions would break
    # expressions that are matched from a position.
    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = load(name)
    logging.disable(logging.WARNING)  # each input may log a warning
    # A merge starts itself again by this command line, through a shell.
    command = shlex.join([sys.executable, "-m", "tests.fuzz.coverage", name])
    atheris.Setup([command, *arguments], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
