"""The one bound on whatever a test waits for.

It bounds events and measures nothing: only a failing test waits that long, however busy the machine is.
"""

from typing import Final

PATIENCE: Final = 120.0
"""Seconds that anything may take."""
