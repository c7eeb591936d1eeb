"""Entry point of the program ``tickertape``, also as ``python -m tickertape``."""

import sys

from tickertape.process.startup import prepare


def main() -> int:
    """Run the command line in a process that is prepared for it.

    Returns:
        the exit code.
    """
    # Before the imports, which take most of the start: until then, Ctrl-C would print a traceback.
    prepare(sys.argv[1:])
    from tickertape.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
