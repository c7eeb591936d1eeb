"""The names that one deployment gives its subjects and streams."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tickertape.contracts.subjects import check_pattern


@dataclass(frozen=True, slots=True)
class Names:
    """One deployment: the names of its subjects and streams, and how large these may become.

    Attributes:
        prefix: ``TICKERTAPE_SUBJECT_PREFIX``, without the last dot; empty for none.
        sizes: of streams that the operator gave another size than the contract does.
    """

    prefix: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.prefix:
            check_pattern(self.prefix)
            if "*" in self.prefix or ">" in self.prefix:
                raise ValueError(f"subject prefix {self.prefix!r} has a wildcard; it is a plain subject")

    def subject(self, subject: str) -> str:
        """Subject as it stands in NATS."""
        return f"{self.prefix}.{subject}" if self.prefix else subject

    def bare(self, subject: str) -> str:
        """Subject as clients see it."""
        return subject[len(self.prefix) + 1 :] if self.prefix else subject

    def stream(self, name: str) -> str:
        """Name of a stream in NATS."""
        return f"{name}_{self.prefix.replace('.', '_')}" if self.prefix else name
