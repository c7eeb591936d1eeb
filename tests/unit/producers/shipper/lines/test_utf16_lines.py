"""Lines of UTF-16, however its bytes are split into chunks and whatever is damaged."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tickertape.producers.shipper.encodings.text_decoder import TextDecoder
from tickertape.producers.shipper.lines.encoded_lines import EncodedLines
from tickertape.producers.shipper.lines.line_buffer import HOLE_BYTES
from tickertape.producers.shipper.lines.segments import find_split
from tickertape.producers.shipper.lines.utf16_lines import HEAD_BYTES
from tickertape.producers.shipper.parsing.parser import MAX_LINE_BYTES

TEXTS = [
    "2026-01-05 09:15:02 一 Dienst 开 gestartet: Größe 10\u00b5s",
    "CTP:不合法的登录 上海",
    "ログイン失敗 \U0001f600",
    "",
    "x",
]
DOCUMENT = "".join(f"{text}\r\n" for text in TEXTS)
MARKED = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff", "utf-16-le ": "", "utf-16-be ": ""}


def read(
    chunks: list[bytes], setting: str = "auto", *, start: int = 0, head: bytes = b""
) -> list[tuple[str, int]]:
    """Return the lines that are not blank, without a byte order mark, and the offset after each."""
    decoder = TextDecoder(setting)
    buffer, offset, found = EncodedLines(decoder), start, list[tuple[str, int]]()
    buffer.restart(start, head, "")
    for chunk in filter(None, chunks):
        lines, ends, _ = buffer.split(chunk, offset)
        offset += len(chunk)
        found += [(decoder.decode(line, end)[0], end) for line, end in zip(lines, ends, strict=True)]
    if buffer:
        line, _ = buffer.take()
        found.append((decoder.decode(line, offset)[0], offset))
    return [(text.removeprefix("\ufeff"), end) for text, end in found if text.strip("\ufeff")]


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_lines_do_not_depend_on_the_chunks(name: str, size: int) -> None:
    """With and without a byte order mark, in both byte orders, wherever a chunk ends."""
    codec = name.strip()
    data = (MARKED[name] + DOCUMENT).encode(codec)
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    found = read(chunks)
    assert [text for text, _ in found] == [text for text in TEXTS if text]
    for text, end in found:
        assert data[:end].decode(codec).endswith(f"{text}\r\n")
    for cut in range(len(data)):
        assert read([data[:cut], data[cut:]]) == found


@pytest.mark.parametrize("name", MARKED)
def test_reading_resumes_after_each_line(name: str) -> None:
    """The beginning of the file shows the encoding after a restart as well."""
    codec = name.strip()
    data = (MARKED[name] + DOCUMENT).encode(codec)
    found = read([data])
    for number, (_, end) in enumerate(found, 1):
        assert read([data[end:]], start=end, head=data[: min(end, 1024)]) == found[number:]


CHARACTERS = st.text(st.sampled_from("ab\n\r上中\u0a0a\U0001f600é\u4e00"), max_size=40)


@given(
    CHARACTERS,
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.sampled_from(["utf-16-le", "utf-16-be"]),
)
@example("\U0001f600\n", [2], "utf-16-le")
def test_any_text_is_read_as_a_whole(text: str, sizes: list[int], codec: str) -> None:
    """The lines are those of the text, and their offsets those of its line breaks."""
    data, chunks, start = text.encode(codec), list[bytes](), 0
    while start < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[start : start + size])
        start += size
    expected, offset = list[tuple[str, int]](), 0
    for line in text.split("\n"):
        offset += 2 + len(line.encode(codec))
        expected.append((line.removesuffix("\r"), min(offset, len(data))))
    assert read(chunks, codec) == [one for one in expected if one[0]]


PIECES = st.sampled_from(
    [b"a", b"\n", b"\xe9", *map(bytes, (1, 2, 15, 16, 17, 33))]
    + [
        text.encode(codec)
        for codec in ("utf-16-le", "utf-16-be")
        for text in ("ab", "\n", "\ufeff", "开 no 上")
    ]
)


@given(
    st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=60),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
@example("se\xf1al".encode("utf-16-be") + bytes(17) + "par\n".encode("utf-16-be"), [8])
@example("ab".encode("utf-16-be") + b"\n", [2])
def test_any_bytes_are_read_however_they_are_split(data: bytes, sizes: list[int]) -> None:
    """Also with half characters, null bytes, and what looks like UTF-16."""
    chunks, start = list[bytes](), 0
    while start < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[start : start + size])
        start += size
    for setting in ("auto", "utf-16", "utf-16-be"):
        assert read(chunks, setting) == read([data], setting)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("hole", [0, 32, 4096])
def test_holes_end_lines_and_are_no_text(codec: str, hole: int) -> None:
    """A hole is at the beginning of a file whose writer does not append, or where a crash interrupted it."""
    nulls = bytes(hole)
    data = nulls + "2026-01-05 one\r\n2026-01-05 tw".encode(codec) + nulls + "2026 three\r\n".encode(codec)
    expected = (
        ["2026-01-05 one", "2026-01-05 tw", "2026 three"]
        if hole
        else ["2026-01-05 one", "2026-01-05 tw2026 three"]
    )
    for size in (1, 7, len(data)):
        found = read([data[start : start + size] for start in range(0, len(data), size)])
        assert [text for text, _ in found] == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 40 + b"one\ntwo\n",
        b"\0" * 41 + b"one\ntwo\n",
        b"a" + b"\0" * 40 + b"one\n",
        b"abc" + b"\0" * 4096 + b"one\ntwo\n",
        b"abc\0def\n",
        b"one\n\0\0two\n",
        b"one" + b"\0" * (HOLE_BYTES - 1) + b"two\n",
        b"\0\n\0\n",
        b"x" * HEAD_BYTES + b"\0y\0z\n",
    ],
)
def test_null_bytes_of_damaged_files_are_not_utf_16(data: bytes) -> None:
    """They come in succession, and not in every second byte."""
    for size in (1, 2, 3, len(data)):
        decoder = TextDecoder()
        buffer = EncodedLines(decoder)
        buffer.restart(0, b"", "")
        lines = list[bytes]()
        for start in range(0, len(data), size):
            lines += buffer.split(data[start : start + size], start)[0]
        assert not decoder.wide
        assert b"".join(lines).replace(b"\0", b"") == data.replace(b"\0", b"").replace(b"\n", b"")


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_half_a_character_is_replaced_when_it_is_flushed(codec: str) -> None:
    """What is written later begins at the next character, also after a restart."""
    data = "\ufeffone\r\n中".encode(codec)
    head, rest = data[:-1], data[-1:] + "two\r\n".encode(codec)
    found = read([head])
    assert [text for text, _ in found] == ["one", "\ufffd"]
    assert found[-1][1] == len(head)
    assert read([rest], start=len(head), head=head) == [("two", len(head) + len(rest))]
    decoder = TextDecoder()
    buffer = EncodedLines(decoder)
    buffer.restart(0, b"", "")
    buffer.split(head, 0)
    assert buffer.take()[0] == b"\xff"
    assert buffer.split(rest, len(head))[:2] == ([b"two"], [len(head) + len(rest)])


def test_lone_surrogates_are_replaced() -> None:
    """They are not text; each becomes one U+FFFD."""
    data = "\ufeffa\ud83d\ud83d b\udc00\n".encode("utf-16-le", "surrogatepass")
    decoder = TextDecoder()
    assert [text for text, _ in read([data])] == ["a\ufffd\ufffd b\ufffd"]
    assert decoder.decode(b"a\xff", 1) == ("a\ufffd", False)


def test_a_long_line_is_truncated() -> None:
    """The limit is that of UTF-8, as an event has it."""
    data = ("\ufeff" + "x" * (MAX_LINE_BYTES + 10) + "\nnext\n").encode("utf-16")
    buffer = EncodedLines(TextDecoder())
    buffer.restart(0, b"", "")
    lines, truncated = list[bytes](), list[bool]()
    for start in range(0, len(data), 1000):
        found, _, cut = buffer.split(data[start : start + 1000], start)
        lines += found
        truncated += [index in cut for index in range(len(found))]
    assert [len(line) for line in lines] == [MAX_LINE_BYTES, 4]
    assert truncated == [True, False]


@pytest.mark.parametrize("name", [*MARKED, "utf-8"])
@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_a_text_is_divided_at_line_breaks(name: str, start: int) -> None:
    """Segments of standard input are files of their own, which begin with a byte order mark."""
    codec = name.strip()
    data = (MARKED.get(name, "") + DOCUMENT).encode(codec)
    end, mark = find_split(data[start:], start, data, "auto")
    assert end == len(data) - start
    cut = data[start : len(data) - 1]
    end, mark = find_split(cut, start, data, "auto")
    assert data[: start + end].decode(codec).endswith("\n")
    assert mark == ("\ufeff".encode(codec) if codec != "utf-8" else b"")
    assert find_split(b"abc", start, data, "auto")[0] == 0
