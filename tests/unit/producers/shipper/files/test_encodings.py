"""Files in other encodings than UTF-8, with restarts, rotations and truncations."""

from pathlib import Path

import orjson
import pytest
from tickertape.producers.shipper.files import tailed_file
from tickertape.producers.shipper.parsing.parser import ParseSettings
from tickertape.producers.shipper.position import position_from_json, unread_position
from tickertape.producers.shipper.timing import HALF_LINE_AFTER

from tests.support.encoded_lines import BY_ENCODING, CODECS
from tests.support.shipper_desk import Desk

SOURCES = {"utf-16-le": BY_ENCODING["latin-1"], "utf-16-be": BY_ENCODING["gb18030"], **BY_ENCODING}
"""Messages by the encoding of the file."""


def encode(name: str, text: str) -> bytes:
    return text.encode(CODECS.get(name, name))


def append(desk: Desk, data: bytes) -> None:
    with desk.path("app.log").open("ab") as file:
        file.write(data)
    desk.write("app.log", "")


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("chunk", [3, 64, 65536])
def test_kills_lose_repeat_and_change_nothing(
    name: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shipper that is killed after every few bytes ships what one ships that reads the whole file."""
    monkeypatch.setattr(tailed_file, "CHUNK_BYTES", chunk)
    texts = ["started", *SOURCES[name], "stopped"]
    data = encode(name, ("\ufeff" if "16" in name else "") + "".join(f"{text}\r\n" for text in texts))
    desk = Desk(tmp_path)
    for start in range(0, len(data), 7):
        append(desk, data[start : start + 7])
        desk.ship(1.0)
        if start % 3 == 0:
            desk.kill()
    desk.settle()
    assert desk.shipped == {"app": texts}
    assert desk.counts.invalid == 0
    assert [file["encoding"] for body in desk.kept.values() for file in orjson.loads(body)["files"]] == [name]
    desk.close()


@pytest.mark.parametrize("name", ["utf-16-le", "gb18030"])
def test_rotations_and_truncations_keep_the_text(name: str, tmp_path: Path) -> None:
    """Every file shows its encoding itself; a truncated one without a byte order mark does as well."""
    desk = Desk(tmp_path, "app.log")
    expected = list[str]()
    for number, text in enumerate(BY_ENCODING["gb18030"][:8]):
        line = f"number {number} {text}"
        append(desk, encode(name, f"{line}\r\nnumber half"))
        desk.ship(1.0)
        append(desk, encode(name, "\r\n"))
        expected += [line, "number half"]
        if number % 2:
            desk.copy_and_truncate("app.log", f"app.log.{number}")
        else:
            desk.rename("app.log", f"app.log.{number}")
        desk.ship(1.0)
        if number % 3 == 0:
            desk.kill()
    desk.settle()
    assert desk.shipped == {"app": expected}
    desk.close()


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be"])
def test_a_hole_after_a_truncation_is_skipped(name: str, tmp_path: Path) -> None:
    """A writer that does not append leaves null bytes before what it writes next."""
    desk = Desk(tmp_path)
    append(desk, encode(name, "\ufeff2026-01-05 one\r\n"))
    desk.ship(1.0)
    size = desk.path("app.log").stat().st_size
    desk.truncate("app.log")
    append(desk, bytes(size) + encode(name, "2026-01-05 two\r\n"))
    desk.settle()
    desk.kill()
    append(desk, encode(name, "三\r\n"))
    desk.settle()
    assert desk.shipped == {"app": ["2026-01-05 one", "2026-01-05 two", "三"]}
    desk.close()


def test_a_skipped_beginning_shows_the_encoding(tmp_path: Path) -> None:
    """With --from-end nothing of the beginning is shipped, but it has the byte order mark."""
    desk = Desk(tmp_path, from_end=True)
    append(desk, "\ufeffold\r\n".encode("utf-16-le"))
    desk.ship(1.0)
    append(desk, "新\r\n".encode("utf-16-le"))
    desk.settle()
    assert desk.shipped == {"app": ["新"]}
    desk.close()


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be"])
def test_half_a_character_waits_with_its_line(name: str, tmp_path: Path) -> None:
    """After the time for half lines it is replaced and flagged, and the next line begins where it should."""
    desk = Desk(tmp_path)
    data = encode(name, "\ufeffone\r\nhalf 中")
    append(desk, data[:-1])
    desk.ship(1.0)
    desk.kill()
    desk.ship(1.0)
    assert desk.shipped == {"app": ["one"]}
    desk.ship(HALF_LINE_AFTER)
    assert desk.shipped == {"app": ["one", "half \ufffd"]}
    assert [body["metadata"] for body in desk.bodies] == [{}, {"replaced_characters": True}]
    assert desk.counts.invalid == 1
    desk.kill()
    append(desk, data[-1:] + encode(name, "\r\nnext\r\n"))
    desk.settle()
    assert desk.shipped == {"app": ["one", "half \ufffd", "next"]}
    desk.close()


def test_ascii_decides_nothing(tmp_path: Path) -> None:
    """However many lines come before the first that is not ASCII, and however often the shipper is killed."""
    desk = Desk(tmp_path)
    for _ in range(5):
        append(desk, b"heartbeat ok\n" * 20)
        desk.ship(1.0)
        desk.kill()
    append(desk, "CTP:不合法的登录\n".encode("gb18030"))
    append(desk, "中文 UTF-8\n".encode())
    desk.settle()
    assert desk.shipped["app"][-2:] == ["CTP:不合法的登录", "中文 UTF-8"]
    desk.close()


def test_a_given_encoding_is_that_of_all_files(tmp_path: Path) -> None:
    """Nothing is detected, and checkpoints have no encoding that a later setting would have to override."""
    text = "дневной журнал"
    desk = Desk(tmp_path, parsing=ParseSettings(format="plain", multiline="off", encoding="cp1251"))
    append(desk, f"{text}\n".encode("cp1251"))
    desk.settle()
    assert desk.shipped == {"app": [text]}
    assert ["encoding" in file for body in desk.kept.values() for file in orjson.loads(body)["files"]] == [
        False
    ]
    desk.close()


@pytest.mark.parametrize(
    "line",
    [
        b"2026-01-05T09:15:02.117000000Z stdout F %b",
        b'{"log":"%b\\n","stream":"stdout","time":"2026-01-05T09:15:02.117000000Z"}',
    ],
)
def test_lines_of_containers_are_utf_8_unless_their_bytes_are_not(line: bytes, tmp_path: Path) -> None:
    """Runtimes write UTF-8 around what the program wrote, which some leave as it is."""
    desk = Desk(tmp_path, parsing=ParseSettings())
    append(desk, line % "登录成功".encode() + b"\n" + line % "登录成功".encode("gb18030") + b"\n")
    desk.settle()
    desk.ship(60.0)
    assert desk.shipped == {"app": ["登录成功", "登录成功"]}
    desk.close()


def test_positions_of_earlier_versions_are_read() -> None:
    """They have no encoding, and what has none is written as before."""
    position = unread_position((1, 2), "/var/log/app.log")
    body = position.to_json()
    assert "encoding" not in body
    assert position_from_json(body) == position
    with pytest.raises(ValueError, match="encoding"):
        position_from_json({**body, "encoding": "klingon"})
    with pytest.raises(ValueError, match="wrong type"):
        position_from_json({**body, "encoding": 5})
