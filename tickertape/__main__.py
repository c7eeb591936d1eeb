"""Command line as ``python -m tickertape``."""

import sys

from tickertape.cli.main import main

sys.exit(main())
