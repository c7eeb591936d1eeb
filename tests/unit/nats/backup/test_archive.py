"""Both formats of archives are checked, and anything in them that a server would trip over is named."""

import contextlib
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.s2_frames import framed, varint
from tickertape.nats.backup.archive import MAGIC, ArchiveError, Contents, scan

STATE = {"messages": 2, "first_seq": 4, "last_seq": 9, "consumer_count": 0}
META = json.dumps({"name": "EVENTS"}).encode()


def entry(name: str, sequence: int, header: bytes = b"", payload: bytes = b"", time_ns: int = 7) -> bytes:
    """Return an entry of the newer format."""
    numbers = (len(name), time_ns * 2, sequence, len(header), len(payload))
    return b"".join(map(varint, numbers)) + name.encode() + header + payload


def state(**changes: object) -> bytes:
    """Return the first entry, with the state of the stream."""
    return entry("state.json", 0, payload=json.dumps({**STATE, **changes}).encode())


def archive(*entries: bytes) -> bytes:
    """Return an archive of the newer format with its end."""
    return MAGIC + b"".join(entries) + entry("", 0, time_ns=0)


def tar(*files: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a tar file as an older server writes it."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.mtime, member.size, member.type = 1700000000.25, len(data), kind
            member.linkname = "target" if kind != tarfile.REGTYPE else ""
            writer.addfile(member, io.BytesIO(data))
    return output.getvalue()


def check(content: bytes) -> Contents:
    """Check an archive of EVENTS with this content."""
    return scan(io.BytesIO(framed(content)).read, "EVENTS")


def test_an_archive_of_messages_is_read_to_its_end() -> None:
    """Messages are counted, whatever their size; consumers before them are not."""
    content = archive(
        state(consumer_count=1),
        entry("consumers/one", 0, payload=b"{}"),
        entry("log.info.a", 4, b"NATS/1.0\r\n\r\n", b"x" * 300_000),
        entry("log.info.b", 8),
    )
    assert check(content) == Contents("archive", 2, 9, len(content))


def test_a_tar_file_is_read_to_its_end() -> None:
    """The files of a stream are accepted, blocks of messages are skipped."""
    content = tar(
        ("meta.inf", META),
        ("meta.sum", b"0"),
        ("msgs/1.blk", b"x" * 500_000),
        ("msgs/index.db", b"i"),
    )
    found = check(content)
    assert (found.format, found.messages) == ("tar", None)
    assert 500_000 < found.size <= len(content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (archive(entry("other.json", 0)), "does not begin with the state"),
        (archive(entry("state.json", 0, payload=b"[]")), "description of the stream is invalid"),
        (archive(entry("state.json", 0, payload=b"{")), "description of the stream is invalid"),
        (archive(state(last_seq="9")), "state of the stream is incomplete"),
        (archive(state(), entry("a", 3)), "message 3 is out of order"),
        (archive(state(), entry("a", 5), entry("a", 5)), "message 5 is out of order"),
        (archive(state(), entry("a", 10)), "message 10 is out of order"),
        (archive(state(), entry("consumers/x", 0)), "entry without a sequence"),
        (archive(state(), entry("a", 5)) + b"more", "continues after its end"),
        (archive(state(), entry("a" * 70_000, 5)), "entry is too large"),
        (archive(state())[:-5], "truncated"),
        (archive(state(), entry("a", 5, payload=b"12345678"))[:-10], "truncated"),
        (MAGIC, "truncated"),
    ],
)
def test_damage_to_an_archive_of_messages_is_named(content: bytes, problem: str) -> None:
    """An archive that a server would reject, after it has begun to restore it, is rejected before."""
    with pytest.raises(ArchiveError, match=problem):
        check(content)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/cron.d/x",
        "/etc/passwd",
        "msgs/../../x.blk",
        "msgs/1.blk/../../x",
        "msgs/x.blk",
        "errors.txt",
        "meta.inf\n",
        "obs/../meta.inf",
        "obs/a/b/meta.inf",
        "msgs/" + "1" * 300 + ".blk",
    ],
)
def test_hostile_names_in_a_tar_file_are_rejected(name: str) -> None:
    """A name that a snapshot does not have, such as one that leads out of its folder, rejects the archive."""
    with pytest.raises(ArchiveError, match="it contains the file"):
        check(tar(("meta.inf", META), (name, b"x")))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_tar_file_has_regular_files_only(kind: bytes) -> None:
    """Links, folders and devices are no part of a snapshot."""
    with pytest.raises(ArchiveError, match="it contains the file"):
        check(tar(("msgs/1.blk", b""), kind=kind))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (tar(("meta.inf", b'{"name": "LATEST"}')), "it is of stream 'LATEST', not of EVENTS"),
        (tar(("meta.inf", b"nonsense")), "description of the stream is invalid"),
        (tar(("msgs/1.blk", b"x")), "no description of the stream"),
        (tar(("meta.inf", META), ("msgs/1.blk", b"x" * 5000))[:4000], "truncated"),
        (b"nothing of both", "it is no tar file"),
        (b"\0" * 20_000, "no description of the stream"),
        (b"", "it is no tar file"),
    ],
)
def test_damage_to_a_tar_file_is_named(content: bytes, problem: str) -> None:
    """So is what is no tar file, or of another stream."""
    with pytest.raises(ArchiveError, match=problem):
        check(content)


VALID = (
    archive(state(), entry("a", 5, b"h", b"p" * 70), entry("b", 6)),
    tar(("meta.inf", META), ("msgs/1.blk", b"x" * 700)),
)


@given(st.sampled_from(VALID), st.data())
def test_no_change_raises_anything_else(content: bytes, data: st.DataObject) -> None:
    """An archive with changed bytes is accepted, or raises ``ArchiveError``."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ArchiveError):
        check(bytes(changed[: data.draw(st.integers(0, len(changed)))]))
