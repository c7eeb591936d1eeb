"""One line of ``tickertape check``: what was looked at, how it stands, and what to do.

Invariants: no finding holds a secret; a name in ``NAMES`` stays what it is, since programs read it.
"""

from dataclasses import dataclass
from typing import Final, Literal, Self

from tickertape.errors import MendableError

State = Literal["ok", "note", "mend"]

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
        state: ``mend`` when it is wrong or weak, ``note`` when it may be meant, ``ok`` otherwise.
        text: what it is.
        do: what to do about it; empty when there is nothing to do.
    """

    name: str
    state: State
    text: str
    do: str = ""

    def __str__(self) -> str:
        return f"{self.state:<4}  {self.text}{f'; {self.do}' if self.do else ''}"

    @classmethod
    def ok(cls, name: str, text: str) -> Self:
        """All is well."""
        return cls(name, "ok", text)

    @classmethod
    def note(cls, name: str, text: str, do: str = "") -> Self:
        """It may be meant."""
        return cls(name, "note", text, do)

    @classmethod
    def mend(cls, name: str, text: str, do: str = "") -> Self:
        """Somebody has to do something about it."""
        return cls(name, "mend", text, do)

    @classmethod
    def broken(cls, name: str, error: Exception | str) -> Self:
        """What an error says; what to do stands behind its last semicolon, as in all our lines."""
        if isinstance(error, MendableError):
            return cls.mend(name, error.what, error.remedy)
        text, _, do = str(error).rpartition("; ")
        return cls.mend(name, text, do) if text else cls.mend(name, do)
