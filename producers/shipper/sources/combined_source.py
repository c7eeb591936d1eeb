"""Several sources of event streams as one, such as files and a journal."""

from collections.abc import Mapping, Sequence

from tickertape.producers.shipper.sources.event_stream import EventStream
from tickertape.producers.shipper.sources.file_source import FileSource


class CombinedSource:
    """Streams of several sources; see ``FileSource``.

    Args:
        sources: the sources; their streams have different paths.
    """

    def __init__(self, sources: Sequence[FileSource]) -> None:
        self._sources = sources

    @property
    def streams(self) -> Mapping[str, EventStream]:
        """All streams by path."""
        return {path: stream for source in self._sources for path, stream in source.streams.items()}

    @property
    def read_error(self) -> tuple[str, OSError] | None:
        """File that the last scan could not find or read."""
        return next((source.read_error for source in self._sources if source.read_error is not None), None)

    @property
    def forbidden(self) -> int:
        """Number of files that were found and must not be read."""
        return sum(source.forbidden for source in self._sources)

    @property
    def unreadable(self) -> bool:
        """Whether the last scan found files that cannot be opened until something is done about it."""
        return any(source.unreadable for source in self._sources)

    @property
    def lost_files(self) -> int:
        """Number of files with lines that are lost."""
        return sum(source.lost_files for source in self._sources)

    @property
    def lost_bytes(self) -> int:
        """Number of bytes that are known to be lost."""
        return sum(source.lost_bytes for source in self._sources)

    def scan(self, now: float) -> None:
        """Find new files."""
        for source in self._sources:
            source.scan(now)

    def shift_clock(self, step: float) -> None:
        """Shift the times of all streams because the system clock was set by ``step`` seconds."""
        for source in self._sources:
            source.shift_clock(step)

    def close(self) -> None:
        """Close all files."""
        for source in self._sources:
            source.close()
