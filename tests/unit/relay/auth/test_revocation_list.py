"""Tokens that are revoked before they end, as a file tells."""

import asyncio
import logging
import os
from pathlib import Path

import pytest
from tickertape.relay.auth import revocation_list as revocations
from tickertape.relay.auth.revocation_list import Revocations, RevocationsError
from tickertape.relay.core.grants import Grant

from tests.support.patience import PATIENCE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that revokes the token ``one``."""
    file = tmp_path / "revoked"
    file.write_text("one\n")
    return file


def revoked(which: Revocations, token_id: str | None, subject: str = "alice") -> bool:
    """Ask about a token."""
    return which.is_revoked(Grant(token_id=token_id, subject=subject))


def replace(path: Path, text: str | bytes) -> None:
    """Put another file in its place, in one step."""
    other = path.with_suffix(".new")
    other.write_bytes(text if isinstance(text, bytes) else text.encode())
    other.replace(path)


def test_every_form_of_an_entry(path: Path) -> None:
    """Ids bare or not, subjects, comments, line ends of Windows, a byte order mark."""
    path.write_bytes(
        "\ufeffbare\r\n\n# comment\n  #also\njti:named # why\nsub: bob\nurn:uuid:5\n"
        "sub:Carol Smith\t# left\nsub:token:0123\njti:sub:x\na#b".encode()
    )
    which = Revocations(path)
    for token_id in ("bare", "named", "urn:uuid:5", "sub:x", "a#b"):
        assert revoked(which, token_id), token_id
    for subject in ("bob", "Carol Smith", "token:0123"):
        assert revoked(which, None, subject), subject
    for other in (None, "", "comment", "bob", "#", "jti:named", "a"):
        assert not revoked(which, other), other
    assert not revoked(which, "x", "bare")
    assert len(which) == 8
    assert repr(which) == f"Revocations('{path}', 8 entries)"


def test_nothing_is_revoked_by_an_empty_file(path: Path) -> None:
    """Not even a token without id and subject."""
    path.write_bytes(b"")
    assert not revoked(Revocations(path), None, "")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"ok\njti:\n", "line 2 .* has 'jti:' without a value; write"),
        (b"sub: # nobody", "line 1 .* has 'sub:' without a value"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * (8 * 1024 * 1024 + 1), "more than 8388608 bytes"),
        (b"".join(b"%d\n" % number for number in range(100_001)), "more than 100000 entries"),
    ],
)
def test_a_broken_file_is_a_mistake_at_the_start(path: Path, data: bytes, text: str) -> None:
    """The words say where."""
    path.write_bytes(data)
    with pytest.raises(RevocationsError, match=text):
        Revocations(path)


def test_a_missing_file_is_a_mistake_at_the_start(tmp_path: Path) -> None:
    """Else a misspelt name would revoke nothing in silence."""
    with pytest.raises(RevocationsError, match="No such file or directory; create it"):
        Revocations(tmp_path / "none")


def test_as_many_entries_as_there_may_be(path: Path) -> None:
    """Repeats count once."""
    path.write_bytes(b"".join(b"%d\n" % number for number in range(100_000)) * 2)
    assert len(Revocations(path)) == 100_000


def test_a_replaced_file_counts_at_once(path: Path) -> None:
    """An unchanged one is not read again, and one with the same entries is no change."""
    which = Revocations(path)
    assert not which.poll()
    replace(path, "two\n")
    assert which.poll()
    assert revoked(which, "two")
    assert not revoked(which, "one")
    assert not which.poll()
    replace(path, "# again\ntwo\n")
    assert not which.poll()
    assert not which.poll()


def test_a_file_that_is_written_in_place_counts_when_it_rests(path: Path) -> None:
    """The empty file between truncating and writing revokes nobody's revocation."""
    which = Revocations(path)
    with path.open("w") as file:
        assert not which.poll()
        assert revoked(which, "one")
        file.write("one\ntw")
        file.flush()
        os.utime(path, ns=(1, 1))
        assert not which.poll()
        file.write("o\n")
    os.utime(path, ns=(2, 2))
    assert not which.poll()
    assert which.poll()
    assert revoked(which, "one")
    assert revoked(which, "two")
    assert not revoked(which, "tw")


def test_the_last_good_list_is_kept(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever becomes of the file; a line for each trouble, and one when it is over."""
    caplog.set_level(logging.INFO)
    which = Revocations(path)
    path.unlink()
    for _ in range(3):
        assert not which.poll()
    assert revoked(which, "one")
    path.write_text("jti:\n")
    for _ in range(3):
        assert not which.poll()
    assert revoked(which, "one")
    replace(path, b"\xff")
    for _ in range(3):
        assert not which.poll()
    assert revoked(which, "one")
    replace(path, "one\ntwo\n")
    assert which.poll()
    assert revoked(which, "two")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert "No such file" in lines[0]
    assert "without a value" in lines[1]
    assert "not UTF-8" in lines[2]
    assert all("the previous 1 revocations stay in force" in line for line in lines[:3])
    assert "valid again" in lines[3]


def test_a_file_that_may_not_be_read_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rights may change without its time changing."""
    which = Revocations(path)
    replace(path, "two\n")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        assert not which.poll()
        assert not which.poll()
    assert revoked(which, "one")
    assert which.poll()
    assert revoked(which, "two")


def test_the_loop_tells_of_a_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that sessions of revoked tokens end."""
    monkeypatch.setattr(revocations, "POLL_INTERVAL", 0.001)

    async def follow() -> None:
        which = Revocations(path)
        changed = asyncio.Event()
        async with asyncio.timeout(PATIENCE):
            task = asyncio.create_task(which.run(changed.set))
            replace(path, "two\n")
            await changed.wait()
            assert revoked(which, "two")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(follow())
