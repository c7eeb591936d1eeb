"""Manifest of a backup: its streams, and what their archives have to be.

A backup is complete if and only if it has a manifest, which is written last.

Invariant: a manifest names no files; the file of an archive follows from the stream's name in the contract.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import orjson

from tickertape.errors import OperatorError
from tickertape.nats.stream_sizes import DEFAULT_SIZES

FORMAT: Final = "tickertape-backup-1"
"""Value of ``format``; a later version that cannot be read by this one has another."""

MAX_BYTES: Final = 1024 * 1024
"""Maximum bytes of a manifest."""

AUDIT: Final = "AUDIT"

STREAMS: Final = (*DEFAULT_SIZES, AUDIT)
"""Names of all streams that can be in a backup."""

SNAPSHOT_ORDER: Final = (
    AUDIT, "REJECTED", "CHECKPOINTS", "HISTORY", "HEALTH", "LATEST", "EVENTS", "WATCHDOG"
)  # fmt: skip
"""Order of the snapshots: each stream before its source, so that no copy is newer than its original.

A state, or a checkpoint, that refers to an event after the end of EVENTS would be a ghost: EVENTS would
assign the sequence again, and its copies would not receive the events up to it.
"""

RESTORE_ORDER: Final = (
    "WATCHDOG", "EVENTS", "LATEST", "HEALTH", "HISTORY", "CHECKPOINTS", "REJECTED", AUDIT
)  # fmt: skip
"""Order in which streams are restored, and then receive their sources: each stream after its source.

EVENTS comes before LATEST and HEALTH, because programs recreate those that are older, and before HISTORY,
because that would otherwise copy all of EVENTS again. WATCHDOG comes first, because programs look for it
first: they wait while it is not restored completely, and create no stream.
"""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class BackupError(OperatorError):
    """Backup that cannot be made, read or restored."""


@dataclass(frozen=True, slots=True)
class StreamBackup:
    """Archive of a stream.

    Attributes:
        stream: name of the stream in the contract.
        config: configuration of the stream.
        state: state of the stream when the snapshot began: messages, bytes, first and last sequence.
        messages: number of messages in the archive.
        size: bytes of the archive.
        sha256: digest of the archive.
        format: format of the archive; see ``Contents``.
        content_size: bytes of the archive without compression.
    """

    stream: str
    config: dict[str, Any]
    state: dict[str, Any]
    messages: int
    size: int
    sha256: str
    format: str
    content_size: int

    @property
    def name(self) -> str:
        """Name of the stream in NATS."""
        return str(self.config["name"])

    @property
    def last_seq(self) -> int:
        """Last sequence."""
        return int(self.state["last_seq"])


@dataclass(frozen=True, slots=True)
class Manifest:
    """Description of a complete backup.

    Attributes:
        created: time at which the backup was complete, in RFC 3339.
        version: version of Tickertape.
        server_version: version of nats-server.
        prefix: subject prefix of the deployment.
        watchdog_seq: last sequence of WATCHDOG of which EVENTS has every fired switch.
        streams: the archives.
    """

    created: str
    version: str
    server_version: str
    prefix: str
    watchdog_seq: int
    streams: tuple[StreamBackup, ...]

    def find(self, stream: str) -> StreamBackup | None:
        """Return the archive of a stream of the contract; None if the backup has none."""
        return next((one for one in self.streams if one.stream == stream), None)

    def encode(self) -> bytes:
        """Return the manifest as JSON."""
        return orjson.dumps({"format": FORMAT, **asdict(self)}, option=orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse a manifest.

        Raises:
            ValueError: it is invalid; the text says why.
        """
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise ValueError("is not JSON") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"is not of the format {FORMAT}")
        streams = document.get("streams")
        if not isinstance(streams, list) or not streams:
            raise ValueError("lists no streams")
        backups = tuple(_stream(one) for one in streams)
        names = [one.stream for one in backups]
        if len(set(names)) < len(names) or "EVENTS" not in names:
            raise ValueError("lists a stream twice, or lacks EVENTS")
        return cls(
            _text(document, "created"),
            _text(document, "version"),
            _text(document, "server_version"),
            _text(document, "prefix"),
            _number(document, "watchdog_seq"),
            backups,
        )


def _stream(document: object) -> StreamBackup:
    if not isinstance(document, dict) or document.get("stream") not in STREAMS:
        raise ValueError("lists an unknown stream")
    config, state = document.get("config"), document.get("state")
    if not isinstance(config, dict) or not isinstance(state, dict):
        raise ValueError("lacks the configuration or the state of a stream")
    _text(config, "name")
    for key in ("messages", "bytes", "first_seq", "last_seq"):
        _number(state, key)
    _number(config, "max_bytes")
    sha256 = _text(document, "sha256")
    if not _SHA256.fullmatch(sha256):
        raise ValueError("has an invalid digest")
    return StreamBackup(
        _text(document, "stream"),
        config,
        state,
        _number(document, "messages"),
        _number(document, "size"),
        sha256,
        _text(document, "format"),
        _number(document, "content_size"),
    )


def _text(document: dict[str, Any], key: str) -> str:
    if not isinstance(value := document.get(key), str):
        raise ValueError(f"has no {key}")
    return value


def _number(document: dict[str, Any], key: str) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"has no {key}")
    return value


__all__ = [
    "AUDIT",
    "MAX_BYTES",
    "RESTORE_ORDER",
    "SNAPSHOT_ORDER",
    "STREAMS",
    "BackupError",
    "Manifest",
    "StreamBackup",
]
