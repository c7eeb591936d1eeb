"""Probe ``fix``: a FIX session that logs on, requests a heartbeat and logs out.

``messages.py`` encodes and parses messages, ``session.py`` is the session layer, ``sequences.py`` keeps the
sequence numbers between sessions, and ``probe.py`` has the settings and runs the probe.
"""

from tickertape.producers.monitor.probes.fix.probe import FixProbe

__all__ = ["FixProbe"]
