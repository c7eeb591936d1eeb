"""Subject and stream names of one deployment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tickertape.contracts.subjects import check_pattern


@dataclass(frozen=True, slots=True)
class Names:
    """Subject and stream names of one deployment, and the size limits of its streams.

    Attributes:
        prefix: ``TICKERTAPE_SUBJECT_PREFIX`` without a trailing dot; empty for no prefix.
        sizes: size limits that the operator set, by stream; other streams keep the contract's limits.
    """

    prefix: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.prefix:
            check_pattern(self.prefix)
            if "*" in self.prefix or ">" in self.prefix:
                raise ValueError(f"subject prefix {self.prefix!r} has a wildcard; use a literal subject")

    def subject(self, subject: str) -> str:
        """Return the subject as it is in NATS, with the prefix."""
        return f"{self.prefix}.{subject}" if self.prefix else subject

    def strip_prefix(self, subject: str) -> str:
        """Return the subject as clients see it, without the prefix."""
        return subject[len(self.prefix) + 1 :] if self.prefix else subject

    def stream(self, name: str) -> str:
        """Return the name of a stream in NATS."""
        return f"{name}_{self.prefix.replace('.', '_')}" if self.prefix else name
