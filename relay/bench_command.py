"""``tickertape bench``: hands over to the bench, which lives beside the tests and needs the source tree."""

import sys
from pathlib import Path


def run(arguments: list[str]) -> int:
    """Run the bench.

    Args:
        arguments: its own options.

    Returns:
        its exit code; 1 when this is not a source tree.
    """
    root = Path(__file__).parent.parent
    if not (root / "tests" / "bench").is_dir():
        print("tickertape bench: it is part of the source tree; run it in a clone", file=sys.stderr)
        return 1
    sys.path.insert(0, str(root))
    from tests.bench.__main__ import main

    return int(main(arguments) or 0)
