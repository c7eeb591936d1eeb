"""Encodings of lines: given, or detected from the lines of a file, whatever ends the process in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.producers.shipper.encodings.names import decode_as, parse_encoding
from tickertape.producers.shipper.encodings.text_decoder import TextDecoder, check_state

from tests.support.encoded_lines import BY_ENCODING, CODECS, log_lines

STAMP = "2026-01-05 09:15:02.117 [INFO] "


def decode(lines: list[bytes], decoder: TextDecoder | None = None) -> list[str]:
    decoder = decoder or TextDecoder()
    return [decoder.decode(line, end)[0] for end, line in enumerate(lines, 1)]


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in BY_ENCODING.items() for text in texts]
)
def test_a_message_is_recognized_on_its_own(name: str, text: str) -> None:
    """The first line that is not UTF-8 is read rightly, and shows the encoding."""
    found: list[str] = []
    decoder = TextDecoder(report=found.append)
    lines = [b"started", f"{STAMP}{text}".encode(CODECS[name]), b"stopped"]
    assert decode(lines, decoder) == ["started", f"{STAMP}{text}", "stopped"]
    assert (decoder.encoding, found) == (name, [name])


@pytest.mark.parametrize("name", BY_ENCODING)
def test_nearly_all_lines_of_a_file_are_read_rightly(name: str) -> None:
    """Files of 20 lines have the right encoding at their end, and 99.5 % of all lines the right text."""
    wrong = lines = 0
    for seed in range(50):
        texts = log_lines(name, 20, seed)
        decoder = TextDecoder()
        found = decode([text.encode(CODECS[name]) for text in texts], decoder)
        assert decoder.encoding == name
        wrong += sum(map(str.__ne__, found, texts))
        lines += len(texts)
    assert wrong <= lines / 200


@pytest.mark.parametrize("name", BY_ENCODING)
def test_valid_utf_8_stays_utf_8(name: str) -> None:
    """Lines of UTF-8 may be anywhere in a file that has another encoding, as several programs write to it."""
    texts = [text for seed in range(5) for text in log_lines(name, 20, seed)]
    lines = [text.encode() if index % 3 else text.encode(CODECS[name]) for index, text in enumerate(texts)]
    # Latin letters and Chinese characters: neither are mistaken for the other.
    also = ["Größe überschritten", "ошибка соединения", "κατάσταση", "接続に失敗", "登录失败", "10 µs, 20 °C"]
    decoder = TextDecoder()
    found = decode([*lines, *(text.encode() for text in also)], decoder)
    assert decoder.encoding == name
    assert found[-len(also) :] == also
    assert [text for text in found[: len(texts)] if text not in texts] == []


def test_a_short_line_of_a_known_encoding_is_not_taken_for_utf_8() -> None:
    """Two Chinese characters can be valid UTF-8 by chance; what the file has else decides then."""
    line = "目录".encode("gb18030")
    assert line.decode() == "\u013f\xbc"
    decoder = TextDecoder()
    decode([text.encode("gb18030") for text in BY_ENCODING["gb18030"]], decoder)
    assert decoder.decode(line, 1000) == ("目录", True)
    assert TextDecoder().decode(line, 1) == (line.decode(), True)


@pytest.mark.parametrize("name", ["gb18030", "shift_jis"])
def test_lines_of_others_in_a_file_of_latin_1_are_recognized(name: str) -> None:
    """Any bytes are valid in latin-1; a password must not be hidden by that."""
    texts = log_lines("latin-1", 40, 1)
    decoder = TextDecoder()
    assert decode([text.encode("cp1252") for text in texts], decoder) == texts
    for text in BY_ENCODING[name]:
        if len(text) > 2:
            assert decoder.decode(text.encode(CODECS[name]), 1000) == (text, True)
    assert decoder.decode("密码：hunter2".encode("gb18030"), 1000)[0] == "密码：hunter2"
    assert decoder.encoding == "latin-1"


@pytest.mark.parametrize(
    "line",
    [
        "行情".encode()[:-1] + b" x",
        "连接服务器断开".encode()[1:],
        b"\xff",
        b"\xff\xfe\x80\x81",
        b"node ???\xed\xb9\xa4??",
        bytes(range(256)),
    ],
)
def test_what_is_not_text_is_replaced(line: bytes) -> None:
    """Damaged UTF-8 and binary data become U+FFFD, and do not change how other lines are read."""
    decoder = TextDecoder()
    text, valid = decoder.decode(line, 1)
    assert "\ufffd" in text
    assert (valid, decoder.encoding, decoder.state_at(1)) == (False, "utf-8", "")


def test_one_line_does_not_decide_for_a_file() -> None:
    """A long line of something else, or the dump of a buffer, leaves the lines after it as they are."""
    for odd in ("テスト用の長い行です。" * 50).encode("cp932"), bytes(range(0x81, 0xFE)) * 8:
        decoder = TextDecoder()
        decoder.decode(odd, 1)
        texts = list(BY_ENCODING["gb18030"])
        assert decode([text.encode("gb18030") for text in texts], decoder) == texts
        assert decoder.encoding == "gb18030"


def test_a_line_that_does_not_fit_has_its_own_encoding() -> None:
    """Several programs write to a file; what is not valid in the encoding of the others is not lost."""
    decoder = TextDecoder()
    decode([text.encode("gb18030") for text in BY_ENCODING["gb18030"]], decoder)
    texts = [(name, text) for name in ("latin-1", "shift_jis") for text in BY_ENCODING[name]]
    lines = [(text.encode(CODECS[name]), text) for name, text in texts if len(text) > 10]
    invalid = [(line, text) for line, text in lines if decode_as(line, "gb18030") is None]
    assert invalid
    for line, text in invalid:
        assert decoder.decode(line, 1000) == (text, True)
    assert decoder.encoding == "gb18030"


def test_damaged_lines_of_a_known_encoding_are_replaced() -> None:
    """They lose only what is damaged."""
    decoder = TextDecoder("gb18030")
    assert decoder.decode("登录失败".encode("gb18030") + b"\xff!", 1) == ("登录失败\ufffd!", False)
    detecting = TextDecoder()
    decode([text.encode("gb18030") for text in BY_ENCODING["gb18030"]], detecting)
    assert detecting.decode("登录失败".encode("gb18030") + b"\xff!", 1000) == ("登录失败\ufffd!", False)
    assert detecting.decode("登录失败".encode() + b"\xff!", 1000) == ("登录失败\ufffd!", False)


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [text.encode(CODECS[name]) for name, texts in BY_ENCODING.items() for text in texts]
            + [text.encode() for texts in BY_ENCODING.values() for text in texts]
        ),
        st.binary(max_size=12),
        st.just(b"plain"),
    ),
    max_size=30,
)


@given(LINES, st.data(), st.sampled_from(["auto", "gb18030", "latin-1", "utf-8"]))
def test_a_restart_changes_no_text(lines: list[bytes], data: st.DataObject, setting: str) -> None:
    """A decoder with the state of any position reads the lines after it as one that read all lines."""
    whole = TextDecoder(setting)
    expected = [whole.decode(line, end) for end, line in enumerate(lines, 1)]
    at = data.draw(st.integers(0, len(lines)))
    state = whole.state_at(at)
    check_state(state)
    restarted = TextDecoder(setting)
    restarted.restart(at, state)
    rest = [restarted.decode(line, end) for end, line in enumerate(lines[at:], at + 1)]
    assert rest == expected[at:]
    assert restarted.state_at(len(lines)) == whole.state_at(len(lines))
    whole.restart(at)
    assert [whole.decode(line, end) for end, line in enumerate(lines[at:], at + 1)] == expected[at:]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("auto", "auto"), ("UTF8", "utf-8"), ("utf-8-sig", "utf-8"), ("UTF-16", "utf-16"),
        ("utf-16le", "utf-16-le"),
        ("latin1", "latin-1"), ("iso-8859-1", "latin-1"), ("GBK", "gb18030"), ("gb2312", "gb18030"),
        ("sjis", "shift_jis"), ("cp932", "shift_jis"), ("eucjp", "euc-jp"), ("big5", "big5"),
        ("cp1252", "cp1252"), ("koi8-r", "koi8-r"), ("cp949", "cp949"),
    ],
)  # fmt: skip
def test_names_of_encodings(text: str, name: str) -> None:
    """Every name that Python knows is accepted, and those of subsets stand for the superset."""
    assert parse_encoding(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no-such",
        "utf-32",
        "utf-7",
        "cp037",
        "base64",
        "rot13",
        "idna",
        "punycode",
        "unicode_escape",
        "\0",
    ],
)
def test_encodings_without_lines_of_ascii_are_rejected(text: str) -> None:
    """The line breaks of these are not those of ASCII, or they encode no text."""
    with pytest.raises(ValueError, match="use"):
        parse_encoding(text)


def test_latin_1_is_that_of_windows() -> None:
    """Windows has typographic characters where latin-1 has control characters."""
    assert decode_as(b"12 \x80 \x81 \x96 \xe9", "latin-1") == "12 € \x81 – é"


@pytest.mark.parametrize(
    "state", ["utf-8", "gb18030 1", "gb18030 1,2,3,4,5,-6", "latin-1 ", "x" * 1000, "utf-16"]
)
def test_a_state_of_others_is_rejected(state: str) -> None:
    """Any client with the permission may write a checkpoint."""
    with pytest.raises(ValueError, match="encoding"):
        check_state(state)
