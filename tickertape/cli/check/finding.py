"""Finding of ``tickertape check``: what was checked, the result, and a hint.

Invariants: no finding contains a secret; the names are stable, because programs read them.
"""

from dataclasses import dataclass
from typing import Literal, Self

from tickertape.errors import OperatorError

State = Literal["ok", "warn", "error"]

Name = Literal[
    # Settings; checked without any I/O except file permissions.
    "settings",
    "readers",
    "ops_host",
    "token_rules",
    "tls",
    "origins",
    "networks",
    "limits",
    "nats_access",
    "secret_files",
    # NATS.
    "nats",
    "nats_version",
    "jetstream",
    "nats_store",
    "permissions",
    "streams",
    "storage",
    "states",
    "rejected",
    "clock",
    "round_trip",
    # This machine.
    "main_port",
    "ops_port",
    "descriptors",
    "certificate",
    "credentials",
    "data_dir",
    "nats_program",
    # Clients.
    "token_keys",
    "certificate_grants",
    "revocations",
    "token",
    "origin",
    # Shipper.
    "shipper_paths",
    "shipper_host",
    "shipper_formats",
    # Configuration file of a monitor.
    "monitor_file",
]
"""Names of findings."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        name: name of the check; several findings may share it, for example one per server of a cluster.
        state: ``error`` if something is broken or insecure, ``warn`` if it may be intended, ``ok`` otherwise.
        text: description of the result.
        hint: what the operator can do; empty if nothing is needed.
    """

    name: Name
    state: State
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.state:<5}  {self.text}{f'; {self.hint}' if self.hint else ''}"

    @classmethod
    def ok(cls, name: Name, text: str) -> Self:
        """Return a finding for a check that passed."""
        return cls(name, "ok", text)

    @classmethod
    def warn(cls, name: Name, text: str, hint: str = "") -> Self:
        """Return a finding for a condition that may be intended."""
        return cls(name, "warn", text, hint)

    @classmethod
    def error(cls, name: Name, text: str, hint: str = "") -> Self:
        """Return a finding that requires action."""
        return cls(name, "error", text, hint)

    @classmethod
    def from_error(cls, name: Name, error: OperatorError) -> Self:
        """Return the finding for an exception."""
        return cls.error(name, error.message, error.hint)
