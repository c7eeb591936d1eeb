"""``tickertape``, or a host with a feed, whose clients are pinged every two seconds.

A test of pings need not take a minute. Run as ``python -m`` with ``relay serve ...`` or ``host SPEC``.
"""

import sys

from tickertape.relay.transport import connections

from tests.support.programs import asgi_host
from tickertape.cli import main as cli

PING_EVERY = 2

if __name__ == "__main__":
    connections.PING_EVERY = PING_EVERY  # type: ignore[misc]
    if sys.argv.pop(1) == "relay":
        cli.main()
    else:
        asgi_host.main()
