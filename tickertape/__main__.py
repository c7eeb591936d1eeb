"""``python -m tickertape``: the command line."""

import sys

from tickertape.cli.main import main

sys.exit(main())
