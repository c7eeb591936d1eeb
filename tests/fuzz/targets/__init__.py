"""Fuzz targets: every parser of input that a stranger chooses, each with an invariant beyond "no exception".

A target is a function of the bytes of one input. It raises ``AssertionError`` if it violates the invariant;
any other exception is a finding as well. ``tests/fuzz/coverage.py`` runs a target with coverage guidance, and
``tests/fuzz/corpus/<target>`` holds the inputs that reach the most code, which ``test_targets.py`` replays.
"""

from collections.abc import Callable
from importlib import import_module

Target = Callable[[bytes], None]

TARGETS = {
    target: module
    for module, targets in {
        "nats": "nats_protocol nats_headers",
        "contract": "event patterns cursor client_message time",
        "transport": "connection frames query forwarded",
        "where": "condition",
        "auth": "token claims jwks metadata revocations certificate certificate_rules",
        "shipper": "lines timestamps redactor checkpoint local_state",
        "monitor": "monitor_file fix_response http_response stored_status",
    }.items()
    for target in targets.split()
}
"""Module of each target; imported late, because atheris takes seconds to instrument all of them."""


def load(name: str) -> Target:
    """Import a target."""
    target: Target = getattr(import_module(f"{__name__}.{TARGETS[name]}"), name)
    return target
