"""The list of revoked tokens, read from a file."""

import asyncio
import logging
import os
from pathlib import Path

import pytest
from tickertape.relay.auth import revocation_list
from tickertape.relay.auth.revocation_list import Revocations, RevocationsError
from tickertape.relay.core.grants import Grant

from tests.support.patience import PATIENCE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file that revokes the token ``one``."""
    file = tmp_path / "revoked"
    file.write_text("one\n")
    return file


def revoked(revocations: Revocations, token_id: str | None, subject: str = "alice") -> bool:
    """Return whether a token is revoked."""
    return revocations.is_revoked(Grant(token_id=token_id, subject=subject))


def replace(path: Path, text: str | bytes) -> None:
    """Replace a file atomically."""
    new_file = path.with_suffix(".new")
    new_file.write_bytes(text if isinstance(text, bytes) else text.encode())
    new_file.replace(path)


def test_every_form_of_an_entry_is_read(path: Path) -> None:
    """A list may have bare or prefixed ids, subjects, comments, CRLF line endings and a byte order mark."""
    path.write_bytes(
        "\ufeffbare\r\n\n# comment\n  #also\njti:named # why\nsub: bob\nurn:uuid:5\n"
        "sub:Carol Smith\t# left\nsub:token:0123\njti:sub:x\njti:a#b\nsub:a#b, c;d\nsubway-7\njti:x=\n"
        "sub:uri:spiffe://desk.example/a\nsub:Zoë\nAb0._~+/-\nsub:dns:a.example\nsub:CN=Carol,OU=Desk".encode()
    )
    revocations = Revocations(path)
    for token_id in ("bare", "named", "urn:uuid:5", "sub:x", "a#b", "subway-7", "x=", "Ab0._~+/-"):
        assert revoked(revocations, token_id), token_id
    for subject in ("bob", "Carol Smith", "token:0123", "a#b, c;d", "uri:spiffe://desk.example/a", "Zoë"):
        assert revoked(revocations, None, subject), subject
    for other_id in (None, "", "comment", "bob", "#", "jti:named", "a"):
        assert not revoked(revocations, other_id), other_id
    assert not revoked(revocations, "x", "bare")
    assert len(revocations) == 16
    assert repr(revocations) == f"Revocations('{path}', 16 entries)"


def test_an_empty_file_revokes_no_token(path: Path) -> None:
    """An empty file does not revoke any token, not even one without an id and a subject."""
    path.write_bytes(b"")
    assert not revoked(Revocations(path), None, "")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"ok\njti:\n", "line 2 .* has 'jti:' without a value; write"),
        (b"sub: # comment", "line 1 .* has 'sub:' without a value"),
        (b"\xff\xfe", "not UTF-8"),
        ("sub:carol\n".encode("utf-16"), "not UTF-8"),
        ("sub:carol\n".encode("utf-16-le"), "line 1 "),
        (b"ok\nsub:carol\x00\n", "line 2 .* not printable"),
        (b"jti:one\rjti:two\r", "line 1 .* not printable"),
        (b"jti:" + b"x" * 257, "line 1 .* more than 256 characters"),
        (b"x" * (8 * 1024 * 1024 + 1), "more than 8388608 bytes"),
        (b"".join(b"%d\n" % number for number in range(100_001)), "more than 100000 entries"),
    ],
)
def test_an_invalid_file_is_an_error_at_startup(path: Path, data: bytes, text: str) -> None:
    """An invalid file is an error at startup that names the line."""
    path.write_bytes(data)
    with pytest.raises(RevocationsError, match=text):
        Revocations(path)


MISSPELT = (
    (
        "SUB:carol|Sub:carol|subject:carol|subjects: carol|sub=carol|sub carol|sub;carol|"
        "sub,carol|sub.carol|sub-carol|sub_carol|sub/carol|sub->carol|sub :carol|-sub:carol|"
        '- sub: carol|"sub:carol"|"sub": "carol"|{"sub": "carol"}|sub\uff1acarol|'
        "user:carol|suject:carol|JTI:one|jti=one|jti-one|jtis:one|id:one|token:one|one,two|"
        "one two|one;|'one'|one=|one\t// left|carol@example.com|*|sub:*|sub:carol*|sub:'carol'|"
        'sub:"carol"|sub:carol,|sub:carol // left|sub:carol -- left|sub:carol# left|'
        "sub:\ufeffcarol|\ufeffsub:carol|sub:caro\u200bl|jti:\x1b[2J|cert=Z64|CERT:Z64|cert:Z63|"
        "cert:x|eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYXJvbCJ9.c2ln|-----BEGIN CERTIFICATE-----|<html>|"
        "[]|null:|null|~|---|None|sub|certificate/one|sha256/Z64|Z64|eyJhbGciOiJFZERTQSJ9.eyJzdWIi|"
        "sub::carol|sub:sub:carol|jti:jti:one|sub:carol sub:dave|jti:one jti:two|"
        "jti:one two|jti:'one'|jti:one,|jti:one;|jti:*|sub:carol'|sub:\"carol|"
        "Subject|jti|CERT|subj-carol|...|A64|bearer/x|eyJhbGciOiJFZERTQSJ9|"
        "jti:eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYXJvbCJ9.c2ln|sub:JTI:one|"
        "sub:=carol|sub:>|sub:*.example.com|sub:dns:*.example.com|sub:DNS:a.example.com|"
        "sub:dns:A.example.com|sub:Dns:a|sub:CN:carol|sub:CN = carol|sub:cn=carol|sub:URI:spiffe://a|"
        "sub:Email:a@b"
    )
    .replace("Z64", "0" * 64)
    .replace("A64", "A" * 64)
    .replace("Z63", "0" * 63)
    .split("|")
)


@pytest.mark.parametrize("line", MISSPELT)
def test_a_misspelt_line_changes_nothing(path: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    """A line that may be a misspelt entry rejects the file with one log line, which does not show it."""
    caplog.set_level(logging.INFO)
    revocations = Revocations(path)
    assert revocations.valid
    replace(path, f"two\n{line}\n")
    for _ in range(3):
        assert not revocations.poll()
    assert revoked(revocations, "one")
    assert not revoked(revocations, "two")
    assert not revocations.valid
    assert len(caplog.records) == 1
    assert "line 2 of revocation file" in caplog.text
    assert len(line) < 5 or line not in caplog.text
    with pytest.raises(RevocationsError, match="line 2"):
        Revocations(path)
    with pytest.raises(RevocationsError, match="line 2"):
        asyncio.run(revocations.reload())
    assert not revocations.valid
    replace(path, "two\n")
    assert revocations.poll()
    assert revocations.valid


@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_a_list_that_becomes_empty_needs_a_comment(path: Path, data: bytes) -> None:
    """A file that has become empty changes nothing; a comment confirms that all revocations are lifted."""
    revocations = Revocations(path)
    replace(path, data)
    assert not revocations.poll()
    assert revoked(revocations, "one")
    assert not revocations.valid
    replace(path, "# none\n")
    assert revocations.poll()
    assert len(revocations) == 0
    assert revocations.valid


def test_a_pipe_is_an_error_instead_of_an_endless_read(path: Path) -> None:
    """A pipe is an error, since reading it would block."""
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RevocationsError, match="not a regular file"):
        Revocations(path)


def test_a_missing_file_is_an_error_at_startup(tmp_path: Path) -> None:
    """A missing file is an error at startup, since a misspelt path would silently revoke nothing."""
    with pytest.raises(RevocationsError, match="No such file or directory; create it"):
        Revocations(tmp_path / "none")


def test_the_maximum_number_of_entries_is_accepted(path: Path) -> None:
    """The maximum number of entries is accepted, and duplicates are counted once."""
    path.write_bytes(b"".join(b"%d\n" % number for number in range(100_000)) * 2)
    assert len(Revocations(path)) == 100_000


def test_a_replaced_file_is_read_by_the_next_poll(path: Path) -> None:
    """A replaced file is read by the next poll; equal entries or an unchanged file are not a change."""
    revocations = Revocations(path)
    assert not revocations.poll()
    replace(path, "two\n")
    assert revocations.poll()
    assert revoked(revocations, "two")
    assert not revoked(revocations, "one")
    assert not revocations.poll()
    replace(path, "# again\ntwo\n")
    assert not revocations.poll()
    assert not revocations.poll()


def test_a_file_written_in_place_is_read_once_stable(path: Path) -> None:
    """A file written in place is used once it is stable, so truncating it does not lift any revocation."""
    revocations = Revocations(path)
    with path.open("w") as file:
        assert not revocations.poll()
        assert revoked(revocations, "one")
        file.write("one\ntw")
        file.flush()
        os.utime(path, ns=(1, 1))
        assert not revocations.poll()
        file.write("o\n")
    os.utime(path, ns=(2, 2))
    assert not revocations.poll()
    assert revocations.poll()
    assert revoked(revocations, "one")
    assert revoked(revocations, "two")
    assert not revoked(revocations, "tw")


def test_the_last_valid_list_is_kept(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The last valid list is kept while the file is unusable; each problem and its end are logged once."""
    caplog.set_level(logging.INFO)
    revocations = Revocations(path)
    path.unlink()
    for _ in range(3):
        assert not revocations.poll()
    assert revoked(revocations, "one")
    path.write_text("jti:\n")
    for _ in range(3):
        assert not revocations.poll()
    assert revoked(revocations, "one")
    replace(path, b"\xff")
    for _ in range(3):
        assert not revocations.poll()
    assert revoked(revocations, "one")
    replace(path, "one\ntwo\n")
    assert revocations.poll()
    assert revoked(revocations, "two")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert "No such file" in lines[0]
    assert "without a value" in lines[1]
    assert "not UTF-8" in lines[2]
    assert all("the previous content stays in force: 1 revocation" in line for line in lines[:3])
    assert "valid again" in lines[3]


def test_an_unreadable_file_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable file is read again, since its permissions may change without its modification time."""
    revocations = Revocations(path)
    replace(path, "two\n")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        assert not revocations.poll()
        assert not revocations.poll()
    assert revoked(revocations, "one")
    assert revocations.poll()
    assert revoked(revocations, "two")


def test_the_loop_reports_changes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop reports a change, so that sessions of revoked tokens can be ended."""
    monkeypatch.setattr(revocation_list, "POLL_INTERVAL", 0.001)

    async def follow() -> None:
        revocations = Revocations(path)
        changed = asyncio.Event()
        async with asyncio.timeout(PATIENCE):
            task = asyncio.create_task(revocations.run(changed.set))
            replace(path, "two\n")
            await changed.wait()
            assert revoked(revocations, "two")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(follow())
