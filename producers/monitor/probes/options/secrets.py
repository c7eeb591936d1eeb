"""Secrets and headers of probes, from the file of the monitor, environment variables or files.

Invariants:

1. A secret is read for each probe, so that one that has been replaced is used from the next probe on.
2. Errors contain the name of a variable or file, never its content.
"""

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator
from tickertape.producers.monitor.probes.result import CannotProbe
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.monitor.types import FilePath, Headers

from tickertape.process.files import read_regular_file

MAX_SECRET_BYTES: Final = 64 * 1024
"""Maximum size of a secret in a file; a larger file is a mistake."""

_VARIABLE: Final = re.compile(r"[^\s=$%{}\x00-\x1f]+")


def _check_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of an environment variable; use one such as API_TOKEN")
    return name


Variable = Annotated[str, Field(min_length=1), AfterValidator(_check_variable)]
"""Name of an environment variable."""

SecretFile = FilePath
"""Path of a file with a secret; white space at its end is removed."""


def read_secret(variable: str | None, file: str | None) -> str | None:
    """Read a secret from an environment variable or a file; return None if both are None.

    Raises:
        CannotProbe: the variable is not set, or the file cannot be used.
    """
    if variable is not None:
        value = os.environ.get(variable)
        if value is None:
            raise CannotProbe(f"environment variable {variable} is not set", "set it for the monitor")
        return value
    if file is None:
        return None
    try:
        content, _ = read_regular_file(Path(file), MAX_SECRET_BYTES)
        if len(content) <= MAX_SECRET_BYTES:
            return content.decode().rstrip()
        problem = f"is larger than {MAX_SECRET_BYTES} bytes"
    except OSError as error:
        problem = f"cannot be read: {(error.strerror or str(error)).lower()}"
    except ValueError:
        problem = "is not UTF-8"
    raise CannotProbe(f"secret file {file} {problem}", "check its path, content and permissions")


def read_line_secret(variable: str | None, file: str | None, *, ascii_only: bool = True) -> str | None:
    """Read a secret that is part of a line or a field, such as the value of a header.

    White space around it is removed. A secret that cannot be sent says nothing about the gateway, and the
    libraries that reject it show it.

    Args:
        variable, file: as for ``read_secret``.
        ascii_only: whether characters outside ASCII cannot be sent.

    Raises:
        CannotProbe: the secret cannot be read, is empty, or has characters that cannot be sent.
    """
    secret = read_secret(variable, file)
    if secret is None:
        return None
    secret = secret.strip()
    if secret.isprintable() and (secret.isascii() or not ascii_only) and secret:
        return secret
    source = f"environment variable {variable}" if variable is not None else f"secret file {file}"
    allowed = "printable ASCII characters" if ascii_only else "printable characters"
    problem = f"has others than {allowed} on one line" if secret else "is empty"
    raise CannotProbe(f"{source} {problem}", "check its content")


def check_one_source(probe: ProbeSettings, names: Iterable[str]) -> None:
    """Validate that at most one of several settings is set.

    Raises:
        ValueError: several are set.
    """
    given = [name for name in names if getattr(probe, name) is not None]
    if len(given) > 1:
        raise ValueError(f"{given[0]!r} and {given[1]!r} are both set; remove one of them")


class HeaderOptions(ProbeSettings):
    """Headers of a request, of which secret ones come from environment variables or files."""

    headers: Headers = Field(default={}, repr=False)
    headers_env: dict[str, Variable] = Field(default={})
    """Environment variable of each secret header."""
    headers_file: dict[str, SecretFile] = Field(default={})
    """File of each secret header."""
    username: str | None = None
    """User for HTTP basic authentication."""
    password_env: Variable | None = None
    password_file: SecretFile | None = None
    bearer_token_env: Variable | None = None
    bearer_token_file: SecretFile | None = None

    @model_validator(mode="after")
    def _check_headers(self) -> "HeaderOptions":
        check_one_source(self, ("password_env", "password_file"))
        check_one_source(self, ("username", "bearer_token_env", "bearer_token_file"))
        has_password = self.password_env is not None or self.password_file is not None
        if has_password and self.username is None:
            raise ValueError("a password needs 'username'; add it")
        names = [name.lower() for name in (*self.headers, *self.headers_env, *self.headers_file)]
        if self.username or self.bearer_token_env or self.bearer_token_file:
            names.append("authorization")
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"header {min(repeated)!r} is set twice; remove one")
        return self

    def read_headers(self) -> "RequestHeaders":
        """Read the secrets.

        Raises:
            CannotProbe: a secret cannot be read.
        """
        secret = {name: read_line_secret(variable, None) or "" for name, variable in self.headers_env.items()}
        secret |= {name: read_line_secret(None, file) or "" for name, file in self.headers_file.items()}
        hidden = set(secret.values())
        if self.username is not None:
            password = read_secret(self.password_env, self.password_file) or ""
            encoded = b64encode(f"{self.username}:{password}".encode()).decode()
            secret["Authorization"] = f"Basic {encoded}"
            hidden |= {password, encoded}
        token = read_line_secret(self.bearer_token_env, self.bearer_token_file)
        if token is not None:
            secret["Authorization"] = f"Bearer {token}"
            hidden.add(token)
        return RequestHeaders(self.headers, secret, hidden)


class RequestHeaders:
    """Headers of one request.

    Args:
        public: headers whose values are in the monitor's file.
        secret: headers whose values have been read elsewhere.
        hidden: texts that no error may contain.

    Attributes:
        all: all headers.
        public: as above.
        secrets: texts that no error may contain, as variables for ``redact``.
    """

    def __init__(self, public: dict[str, str], secret: dict[str, str], hidden: Iterable[str]) -> None:
        self.all = {**public, **secret}
        self.public = public
        self.secrets = {**public, **{f"secret {index}": text for index, text in enumerate(hidden)}}
