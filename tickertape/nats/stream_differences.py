"""Differences between a stream on the server and its configuration in the contract or the settings."""

from dataclasses import dataclass
from typing import Any, Final

from tickertape.nats.stream_sizes import format_size

_TUNABLE: Final = frozenset({"max_age", "max_bytes", "duplicate_window", "compression", "num_replicas"})
"""Settings that an operator may change without violating the contract."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Setting of a stream that differs from the contract.

    Attributes:
        stream: name of the stream in NATS.
        setting: key in the stream's configuration.
        expected: value in the contract or the operator's settings.
        actual: value on the server; None if the stream does not exist.
        is_breaking: whether the difference violates the contract, as opposed to a different size.
        configured: whether the expected value is from the operator's settings.
    """

    stream: str
    setting: str
    expected: Any
    actual: Any
    is_breaking: bool
    configured: bool = False

    def __str__(self) -> str:
        actual, expected = (self._format(value) for value in (self.actual, self.expected))
        source = "the settings require" if self.configured else "the contract requires"
        return f"stream {self.stream} has {self.setting} {actual}, {source} {expected}"

    def change_line(self) -> str:
        """Return a line that describes the change of the setting."""
        actual, expected = (self._format(value) for value in (self.actual, self.expected))
        return f"stream {self.stream}: {self.setting} {actual} -> {expected}"

    def _format(self, value: Any) -> str:
        return format_size(value) if self.setting == "max_bytes" and isinstance(value, int) else repr(value)


def compare(expected: dict[str, Any], actual: dict[str, Any], *, sized: bool = False) -> list[Difference]:
    """List the settings of a stream that differ; settings that only the server has are ignored.

    Args:
        expected: configuration in the contract.
        actual: configuration on the server.
        sized: whether the operator's settings specify the size of the stream.
    """
    differences = []
    for setting, value in expected.items():
        actual_value = actual.get(setting)
        if actual_value is None and value is False:
            continue  # the server omits settings that are false
        # The order of subjects and sources has no meaning.
        if setting == "subjects" and actual_value is not None and sorted(actual_value) == sorted(value):
            continue
        if setting == "sources":
            if _sources(actual_value or []) == _sources(value):
                continue
        elif actual_value == value:
            continue
        configured = sized and setting == "max_bytes"
        differences.append(
            Difference(expected["name"], setting, value, actual_value, setting not in _TUNABLE, configured)
        )
    return differences


def _sources(sources: list[dict[str, Any]]) -> list[Any]:
    # Only these fields are compared, because the server adds others.
    return sorted(
        (
            source["name"],
            source.get("filter_subject", ""),
            sorted(
                (transform["src"], transform.get("dest", ""))
                for transform in source.get("subject_transforms") or []
            ),
        )
        for source in sources
    )
