"""Where a stream in the server is not as the contract, or the operator's settings, have it."""

from dataclasses import dataclass
from typing import Any, Final

from tickertape.nats.stream_sizes import format_size

_TUNABLE: Final = frozenset({"max_age", "max_bytes", "duplicate_window", "compression", "num_replicas"})
"""Settings that an operator may size differently without breaking a promise of the contract."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting of a stream that is not as the contract has it.

    Attributes:
        stream: name in NATS.
        setting: key of the stream's configuration.
        wanted: value in the contract.
        found: value in the server; None when the stream is absent.
        breaks: False when it is only sized differently.
        chosen: True when the operator's settings name the wanted value.
    """

    stream: str
    setting: str
    wanted: Any
    found: Any
    is_breaking: bool
    configured: bool = False

    def __str__(self) -> str:
        found, wanted = (self._written(value) for value in (self.found, self.wanted))
        said = f"the settings say {wanted}" if self.configured else f"the contract has {wanted}"
        return f"stream {self.stream} has {self.setting} {found}, {said}"

    def change_line(self) -> str:
        """Line that says how it was altered."""
        found, wanted = (self._written(value) for value in (self.found, self.wanted))
        return f"stream {self.stream}: {self.setting} {found} -> {wanted}"

    def _written(self, value: Any) -> str:
        return format_size(value) if self.setting == "max_bytes" and isinstance(value, int) else repr(value)


def compare(wanted: dict[str, Any], found: dict[str, Any], *, sized: bool = False) -> list[Difference]:
    """List the settings of a stream that are not as wanted; what the server adds by itself is ignored.

    Args:
        wanted: its configuration in the contract.
        found: its configuration in the server.
        sized: whether the operator's settings say how large it is to be.
    """
    differences = []
    for setting, value in wanted.items():
        present = found.get(setting)
        if present is None and value is False:
            continue
        if setting == "subjects" and present is not None and sorted(present) == sorted(value):
            continue
        if setting == "sources":
            if _sources(present or []) == _sources(value):
                continue
        elif present == value:
            continue
        chosen = sized and setting == "max_bytes"
        differences.append(
            Difference(wanted["name"], setting, value, present, setting not in _TUNABLE, chosen)
        )
    return differences


def _sources(sources: list[dict[str, Any]]) -> list[Any]:
    return sorted(
        (
            source["name"],
            source.get("filter_subject", ""),
            sorted((move["src"], move.get("dest", "")) for move in source.get("subject_transforms") or []),
        )
        for source in sources
    )
