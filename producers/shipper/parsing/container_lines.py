"""Lines of container runtimes: each stream of a container is joined on its own, although a file has several.

Invariants:

1. Events are returned in the order of their first lines; every line that is not blank is in exactly one.
2. ``JoinedLines.may_end_batch`` is False while a line of this event or an earlier one follows the first
   line of a later event: no position in the file separates the two, so they are committed together.
   At most ``MAX_GROUP`` events in succession have it, and one more for each stream.
3. An event waits for at most ``MAX_OTHER_LINES`` lines of other streams.
4. Events do not depend on how the lines are split into blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from tickertape.producers.shipper.parsing.container_formats import ContainerLine, plain_line, unwrap
from tickertape.producers.shipper.parsing.multiline import (
    MAX_BYTES,
    NEEDS_SANITIZING,
    TRUNCATED,
    JoinedEvent,
    MultilineJoiner,
)

MAX_OTHER_LINES: Final = 20
"""Lines of other streams after which an event no longer waits for its continuation."""

MAX_GROUP: Final = 32
"""Events of several streams that overlap; then all of them end."""

MAX_STREAMS: Final = 64
"""Streams of a file; then all of them end."""


@dataclass(slots=True)
class JoinedLines:
    """Event of one stream.

    Attributes:
        text: the lines without what the runtime wrote before them.
        first: offset in the file after the first line.
        last: offset in the file after the last line.
        flags: flags of ``multiline``.
        line: the first line, with what the runtime wrote before it.
        may_end_batch: whether the position after this event separates it from later ones.
    """

    text: str
    first: int
    last: int
    flags: int
    line: ContainerLine
    may_end_batch: bool = True


@dataclass(slots=True)
class _Stream:
    joiner: MultilineJoiner
    line: ContainerLine | None = None  # the first line of the event that may continue
    first: int = 0
    waited: int = 0  # lines of other streams since the last one of this
    parts: list[str] = field(default_factory=list)  # a line whose end has not been read
    parts_line: ContainerLine | None = None
    parts_first: int = 0
    parts_end: int = 0
    parts_flags: int = 0
    parts_size: int = 0

    @property
    def is_waiting(self) -> bool:
        return bool(self.parts) or self.joiner.has_partial


class StreamJoiner:
    """Joiner for the streams of one file.

    Args:
        joiner: factory of the joiner of a stream.
        clean: removes control characters from an unwrapped text.
    """

    def __init__(self, joiner: Callable[[], MultilineJoiner], clean: Callable[[str], str]) -> None:
        self._joiner = joiner
        self._clean = clean
        # Other lines are a stream as well; its joiner also reads files without container lines.
        self.plain = joiner()
        self._plain_stream = _Stream(self.plain, plain_line(""))
        self._streams: dict[str, _Stream] = {"": self._plain_stream}
        self._complete: list[JoinedLines] = []  # events that an earlier one of another stream holds back

    @property
    def is_waiting(self) -> bool:
        """Whether a line of a container waits for others."""
        return bool(self._complete) or any(
            stream.is_waiting for stream in self._streams.values() if stream is not self._plain_stream
        )

    def reset(self) -> None:
        """Discard what waits; its lines will be fed again."""
        self._complete.clear()
        for stream in self._streams.values():
            stream.joiner.reset()
            stream.parts.clear()

    def feed(self, texts: list[str], ends: list[int], line_flags: dict[int, int]) -> list[JoinedLines]:
        """Add lines; return the events that they complete. See ``MultilineJoiner.feed``."""
        return self.add([unwrap(text) for text in texts], ends, line_flags)

    def add(
        self, lines: list[ContainerLine], ends: list[int], line_flags: dict[int, int]
    ) -> list[JoinedLines]:
        """Add lines without what their runtime wrote before them; return the events that they complete."""
        if not self.is_waiting:  # it may have joined other lines meanwhile
            self._plain_stream.first = self.plain.first
        for index, flags in line_flags.items():
            if flags & NEEDS_SANITIZING:
                lines[index].text = self._clean(lines[index].text)
        events: list[JoinedLines] = []
        start = 0
        while start < len(lines):
            stream = self._stream_of(lines[start])
            stream.waited = 0
            stop = self._end_of_run(stream, lines, start)
            if stop > start + 1:
                flags_of_run = (
                    {index - start: line_flags[index] for index in range(start, stop) if index in line_flags}
                    if line_flags
                    else {}
                )
                events += _feed_run(stream, lines[start:stop], ends[start:stop], flags_of_run)
                start = stop
            else:
                self._feed_line(stream, lines[start], ends[start], line_flags.get(start, 0))
                events += self._take()
                start += 1
        return events

    def flush(self) -> list[JoinedLines]:
        """Return everything that waits."""
        for stream in self._streams.values():
            self._end(stream)
        return self._take()

    def _stream_of(self, line: ContainerLine) -> _Stream:
        """Return the stream of a line; if it is new and there are too many, all others end."""
        stream = self._streams.get(line.stream)
        if stream is None:
            if len(self._streams) >= MAX_STREAMS:
                for each in self._streams.values():
                    self._end(each)
                self._streams = {"": self._plain_stream}
            stream = self._streams[line.stream] = _Stream(self._joiner())
        return stream

    def _end_of_run(self, stream: _Stream, lines: list[ContainerLine], start: int) -> int:
        """Return the index after the lines of one stream that can be joined together.

        These are complete lines while nothing of another stream waits, as in nearly all files.
        """
        if (
            self._complete
            or stream.parts
            or any(other.is_waiting for other in self._streams.values() if other is not stream)
        ):
            return start + 1
        name = lines[start].stream
        stop = start
        for line in islice(lines, start, None):
            if line.stream != name or line.is_partial:
                break
            stop += 1
        return stop

    def _feed_line(self, stream: _Stream, line: ContainerLine, end: int, flags: int) -> None:
        for other in self._streams.values():
            if other is not stream and other.is_waiting:
                other.waited += 1
                if other.waited > MAX_OTHER_LINES:
                    self._end(other)
        self._add(stream, line, end, flags)
        if len(self._complete) >= MAX_GROUP:
            for each in self._streams.values():
                self._end(each)

    def _add(self, stream: _Stream, line: ContainerLine, end: int, flags: int) -> None:
        if line.is_partial or stream.parts:
            if not stream.parts:
                stream.parts_line, stream.parts_first = line, end
                stream.parts_flags = stream.parts_size = 0
            stream.parts.append(line.text)
            stream.parts_size += len(line.text)
            stream.parts_end = end
            # The parts of a secret look harmless.
            stream.parts_flags |= flags | NEEDS_SANITIZING
            if line.is_partial and stream.parts_size < MAX_BYTES:
                return
            self._end_parts(stream)
        else:
            self._join(stream, line, end, end, flags)

    def _end_parts(self, stream: _Stream) -> None:
        if not stream.parts:
            return
        line = stream.parts_line
        assert line is not None
        text, flags = "".join(stream.parts), stream.parts_flags
        stream.parts.clear()
        if len(text) > MAX_BYTES:
            text, flags = text[:MAX_BYTES], flags | TRUNCATED
        line.text = self._clean(text)
        self._join(stream, line, stream.parts_first, stream.parts_end, flags)

    def _join(self, stream: _Stream, line: ContainerLine, first: int, end: int, flags: int) -> None:
        was_waiting = stream.joiner.has_partial
        joined = stream.joiner.feed([line.text], [len(line.text)], [end], {0: flags} if flags else {})
        if was_waiting and joined:
            self._complete_event(stream, joined.pop(0))
            was_waiting = False
        if not was_waiting:
            stream.line, stream.first = line, first
        for event in joined:  # a JSON object never waits
            self._complete_event(stream, event)

    def _end(self, stream: _Stream) -> None:
        self._end_parts(stream)
        for event in stream.joiner.flush():
            self._complete_event(stream, event)

    def _complete_event(self, stream: _Stream, event: JoinedEvent) -> None:
        text, last, flags = event
        line = stream.line
        assert line is not None
        self._complete.append(JoinedLines(text, stream.first, last, flags, line))

    def _take(self) -> list[JoinedLines]:
        """Remove and return the complete events that no earlier line holds back."""
        if not self._complete:
            return []
        waiting = [stream.parts_first for stream in self._streams.values() if stream.parts]
        waiting += [stream.first for stream in self._streams.values() if stream.joiner.has_partial]
        limit = min(waiting, default=float("inf"))
        self._complete.sort(key=lambda event: event.first)
        # Events that overlap one that waits are held back as well, so that they are returned with it.
        events: list[JoinedLines] = []
        last = 0
        ready = 0
        for index, event in enumerate(self._complete):
            if event.first > limit:
                break
            events.append(event)
            last = max(last, event.last)
            following = self._complete[index + 1].first if index + 1 < len(self._complete) else limit
            event.may_end_batch = last < min(following, limit)
            if event.may_end_batch:
                event.last = last
                ready = index + 1
        self._complete = self._complete[ready:]
        return events[:ready]


def _feed_run(
    stream: _Stream, lines: list[ContainerLine], ends: list[int], line_flags: dict[int, int]
) -> list[JoinedLines]:
    """Add complete lines of one stream while nothing of another waits; return the events they complete."""
    joiner = stream.joiner
    is_continued = joiner.has_partial
    texts = [line.text for line in lines]
    joined = joiner.feed(texts, list(map(len, texts)), ends, line_flags)
    events = []
    # Blank lines between two events belong to neither.
    indexes = [index for index, text in enumerate(texts) if text and not text.isspace()]
    position = 0
    for text, last, flags in joined:
        if not is_continued:
            stream.line, stream.first = lines[indexes[position]], ends[indexes[position]]
        is_continued = False
        assert stream.line is not None
        events.append(JoinedLines(text, stream.first, last, flags, stream.line))
        while position < len(indexes) and ends[indexes[position]] <= last:
            position += 1
    if joiner.has_partial and not is_continued:
        stream.line, stream.first = lines[indexes[position]], ends[indexes[position]]
    return events
