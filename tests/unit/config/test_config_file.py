"""Configuration files: what is read, and an error with file, line and key for everything else."""

import os
import re
from pathlib import Path

import pytest

from tickertape.config.config_file import MAX_BYTES, ConfigFile, read_config
from tickertape.errors import ConfigurationError


def write(folder: Path, data: bytes | str) -> Path:
    """Write a configuration file."""
    path = folder / "tickertape.toml"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"# only a comment",
        b'\xef\xbb\xbfnats_url = "nats://a"\n[serve]\nport = 1\n',
        b'nats_url = "nats://a"\r\n\r\n[serve]\r\nport = 1\r\n',
        b'nats_url = "nats://a"\nserve.port = 1',
        b'nats_url = "nats://a"\nserve = {port = 1}',
    ],
    ids=["comment", "byte order mark", "CRLF", "dotted key", "inline table"],
)
def test_valid_files(data: bytes, tmp_path: Path) -> None:
    """Each form of a table is read, also from an editor that writes a byte order mark or CRLF."""
    file = read_config(write(tmp_path, data))
    assert (file.shared, file.tables) in (({}, {}), ({"nats_url": "nats://a"}, {"serve": {"port": 1}}))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty; write a setting or a comment into it"),
        (b" \r\n\t\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a = 1\nb = '\xff'\n", ":2: not UTF-8; save the file as UTF-8"),
        ("port = 1\n".encode("utf-16"), ":1: not UTF-8"),
        (
            b"port = 1\nport = 2\n",
            ": not valid TOML: cannot overwrite a value (at line 2, column 9); write each setting once",
        ),
        (b"[serve]\nport = 1\n[serve]\n", ": not valid TOML: cannot declare"),
        (b"port: 1\n", ": not valid TOML: expected '='"),
        (b"port = \n", ": not valid TOML: invalid value"),
        (b"a = 1\nhost = localhost\n", ": not valid TOML: invalid value"),
        (b'a = "hunter2', ": not valid TOML: unterminated string"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"a = " + b"1" * 5_000, "not valid TOML: a value is too large"),
        (b"#" * (MAX_BYTES + 1), f"has more than {MAX_BYTES} bytes; check --config"),
    ],
    ids=range(14),
)
def test_invalid_files(data: bytes, text: str, tmp_path: Path) -> None:
    """The error names the file and the line, and shows no value."""
    path = write(tmp_path, data)
    with pytest.raises(ConfigurationError, match=re.escape(text)) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    """Folders, pipes, devices, missing and unreadable files are errors, and none of them blocks."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    for path, text in {
        tmp_path: "Is a directory",
        tmp_path / "pipe.toml": "not a regular file",
        Path("/dev/null"): "not a regular file",
        tmp_path / "missing.toml": "No such file or directory",
        tmp_path / "loop.toml": "Too many levels of symbolic links",
        tmp_path / "gateways.yaml": "is not TOML; for the gateways of a monitor use --gateways",
    }.items():
        with pytest.raises(ConfigurationError, match=re.escape(text)) as caught:
            read_config(path)
        assert f"configuration file {path}" in str(caught.value)


def test_links_are_followed(tmp_path: Path) -> None:
    """A link is followed, as in the volumes of Kubernetes."""
    write(tmp_path, "port = 1\n")
    (tmp_path / "link.toml").symlink_to("tickertape.toml")
    assert read_config(tmp_path / "link.toml").shared == {"port": 1}


TEXT = '''
nats_url = """
[serve]
port = 5"""
"ops_port" = 1
[serve]
  port = 2  # [ship]
[ "ship" ]
port = 3
[monitor]
'''


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (("nats_url",), 2),
        (("ops_port",), 5),
        (("serve",), 6),
        (("serve", "port"), 7),
        (("ship",), 8),
        (("ship", "port"), 9),
        (("monitor",), 10),
        (("monitor", "port"), None),
    ],
)
def test_lines(parts: tuple[str, ...], line: int | None) -> None:
    """The line of a table or key is found, also if a text before it looks like one."""
    suffix = f":{line}" if line else ""
    assert ConfigFile(Path("t.toml"), {}, {}, TEXT).locate(*parts) == f"t.toml{suffix}"


@pytest.mark.parametrize(
    ("text", "mode", "names"),
    [
        ('nats_password = "x"', 0o644, "nats_password"),
        ('[tail]\ntoken = "x"', 0o604, "token"),
        ('[serve]\nnats_url = ["nats://a", "nats://u:p@b"]', 0o644, "nats_url"),
        ('nats_password = "x"', 0o600, ""),
        ('nats_url = "nats://a"', 0o644, ""),
        ('nats_password_file = "/x"', 0o644, ""),
    ],
)
def test_exposed_secrets(text: str, mode: int, names: str, tmp_path: Path) -> None:
    """Secrets in a file that other users can read are reported by name."""
    path = write(tmp_path, text)
    path.chmod(mode)
    exposure = read_config(path).exposure()
    assert (exposure or "") == (f"{path} contains {names} and is readable by other users" if names else "")
