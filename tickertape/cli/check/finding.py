"""One line of ``tickertape check``: what was looked at, how it stands, and what to do.

Invariants: no finding holds a secret; a name in ``NAMES`` stays what it is, since programs read it.
"""

from dataclasses import dataclass
from typing import Final, Literal, Self

from tickertape.errors import OperatorError

State = Literal["ok", "warn", "error"]

NAMES: Final = frozenset(
    {
        # What the settings say, without asking anybody.
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
        "streams",
        "storage",
        "rejected",
        "clock",
        "round_trip",
        # This machine.
        "main_port",
        "ops_port",
        "descriptors",
        "certificate",
        "data_dir",
        "nats_program",
        # Who may connect.
        "token_keys",
        "revocations",
        "token",
        "origin",
        # A monitor's file.
        "monitor_file",
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one thing.

    Attributes:
        name: one of ``NAMES``; several findings may share it, as the servers of a cluster do.
        state: ``error`` when it is wrong or weak, ``warn`` when it may be intended, ``ok`` otherwise.
        text: what it is.
        hint: what to do about it; empty when there is nothing to do.
    """

    name: str
    state: State
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.state:<5}  {self.text}{f'; {self.hint}' if self.hint else ''}"

    @classmethod
    def ok(cls, name: str, text: str) -> Self:
        """Make a finding of what is as it should be."""
        return cls(name, "ok", text)

    @classmethod
    def warn(cls, name: str, text: str, hint: str = "") -> Self:
        """Return a finding that may be intended."""
        return cls(name, "warn", text, hint)

    @classmethod
    def error(cls, name: str, text: str, hint: str = "") -> Self:
        """Make a finding that needs action."""
        return cls(name, "error", text, hint)

    @classmethod
    def of(cls, name: str, error: OperatorError) -> Self:
        """Make a finding of an error."""
        return cls.error(name, error.message, error.hint)
