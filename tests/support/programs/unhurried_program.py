"""``tickertape`` with frequent heartbeats and a patient dead man's switch.

A test of clocks then needs neither a minute nor a quiet machine. Run as ``python -m`` with the arguments.
"""

import functools
import sys

from tickertape.producers.monitor.coordination import dead_mans_switch
from tickertape.relay import relay
from tickertape.relay.core.hub_settings import HubSettings

from tickertape.cli import main as cli

HEARTBEAT_MS = 1_000

SWITCH_TIMEOUT = 600.0
"""Seconds after which the switch is triggered: longer than any pause of the machine, shorter than a step."""

if __name__ == "__main__":
    settings = functools.partial(HubSettings, heartbeat_ms=HEARTBEAT_MS)
    relay.HubSettings = settings  # type: ignore[assignment, attr-defined]
    dead_mans_switch.MIN_TIMEOUT = SWITCH_TIMEOUT  # type: ignore[misc]
    sys.exit(cli.main())
