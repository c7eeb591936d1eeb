"""Credentials of a program for NATS, and certificates that authenticate the server.

Invariants:

1. Files are read at each connection, so that rotated credentials take effect at the next one.
2. No ``repr()`` and no error message contains a secret.
3. With a CA or a client certificate, every connection uses TLS.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import unquote, urlsplit

from tickertape.contracts.subjects import SubjectError, check_pattern
from tickertape.errors import ConfigurationError
from tickertape.nats.nkey import KeyPair, NkeyError, parse_user_seed

StrPath = str | os.PathLike[str]

INBOX_PREFIX: Final = "_INBOX"
MAX_SECRET_BYTES: Final = 64 * 1024
"""Maximum bytes of a file with a secret; the largest, a JWT, has a few thousand."""

_JWT: Final = "NATS USER JWT"
_SEED: Final = "USER NKEY SEED"


class AccessError(ConfigurationError, OSError):
    """Credentials or certificate file that cannot be used."""


@dataclass(frozen=True, slots=True)
class Access:
    """Credentials of at most one kind (``creds``, ``nkey_file``, user or token), and TLS certificates.

    Attributes:
        ca: CA certificates (PEM) that the server certificate must chain to; None uses those of the system.
        cert: client certificate (PEM), for servers that require one.
        key: private key of ``cert`` (PEM), not encrypted.
        creds: .creds file with a user's JWT and nkey seed.
        nkey_file: file with the nkey seed of a user whose public key the server knows.
        user: name of a user with a password.
        password: password of ``user``; alternatively, ``password_file`` contains it.
        password_file: file with the password of ``user``.
        token: token of a server that uses a shared secret; alternatively, ``token_file`` contains it.
        token_file: file with the token.
        inbox_prefix: first tokens of reply subjects. A user who may subscribe only to these cannot receive
            the replies to other users.

    Raises:
        ValueError: the arguments contradict each other.
    """

    ca: StrPath | None = None
    cert: StrPath | None = None
    key: StrPath | None = None
    creds: StrPath | None = None
    nkey_file: StrPath | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: StrPath | None = None
    token: str | None = field(default=None, repr=False)
    token_file: StrPath | None = None
    inbox_prefix: str = INBOX_PREFIX

    def __post_init__(self) -> None:
        _check_exclusive(password=self.password, password_file=self.password_file)
        _check_exclusive(token=self.token, token_file=self.token_file)
        password = self.password is not None or self.password_file is not None
        if (self.cert is None) != (self.key is None):
            present, missing = ("key", "cert") if self.cert is None else ("cert", "key")
            raise ValueError(f"NATS {present} is set without {missing}; set both")
        if (self.user is not None) != password:
            present, missing = ("password", "user") if self.user is None else ("user", "password")
            raise ValueError(f"NATS {present} is set without {missing}; set both")
        if len(self._methods()) > 1:
            raise ValueError(f"NATS credentials are set as {' and as '.join(self._methods())}; set only one")
        try:
            check_pattern(self.inbox_prefix)
            if "*" in self.inbox_prefix or ">" in self.inbox_prefix:
                raise SubjectError(self.inbox_prefix, "contains a wildcard")
        except SubjectError as error:
            raise ValueError(f"NATS inbox prefix {error}; use the form {INBOX_PREFIX}") from None

    def _methods(self) -> list[str]:
        methods = {
            "creds": self.creds is not None,
            "nkey_file": self.nkey_file is not None,
            "user": self.user is not None,
            "token": self.token is not None or self.token_file is not None,
        }
        return [method for method, is_set in methods.items() if is_set]

    @property
    def has_credentials(self) -> bool:
        """Whether credentials other than a client certificate are set."""
        return bool(self._methods())

    def connect_options(self, sign: Callable[[str], bytes]) -> dict[str, Any]:
        """Return the arguments of nats-py's ``connect`` that follow from the credentials.

        Args:
            sign: signs a nonce of the server.
        """
        options: dict[str, Any] = {"inbox_prefix": self.inbox_prefix}
        if self.creds is not None or self.nkey_file is not None:
            options["signature_cb"] = sign
            if self.creds is not None:
                options["user_jwt_cb"] = lambda: bytearray(self.read_jwt().encode())
        elif self.user is not None:
            # nats-py calls a function at each connection, so a rotated secret takes effect at the next one.
            options |= {"user": self.user, "password": self.read_secret}
        elif self.has_credentials:
            options["token"] = self.read_secret
        return options

    def describe_user(self, url: str = "") -> str:
        """Describe how a program authenticates, such as ``NATS user 'relay'``; never contains a secret.

        Args:
            url: address of NATS, which may contain a user instead.
        """
        user = self.user or _user_in(url)
        if user is not None:
            return f"NATS user {user!r}"
        if self.creds is not None:
            return f"the NATS user of {self.creds}"
        if self.nkey_file is not None:
            return f"the NATS user with the nkey in {self.nkey_file}"
        if self.has_credentials or "@" in url:
            return "the NATS user with this token"
        if self.cert is not None:
            return f"the NATS user of certificate {self.cert}"
        return "the NATS user without credentials"

    @property
    def requires_tls(self) -> bool:
        """Whether a CA or a client certificate is set, so that connections must use TLS."""
        return self.ca is not None or self.cert is not None

    def check_files(self) -> None:
        """Read every file once to validate it.

        Raises:
            AccessError: a file is missing or invalid.
        """
        if self.requires_tls:
            # Without files there is nothing to validate, and loading the hundreds of system certificates
            # takes as long as the rest of the connection setup.
            self.ssl_context()
        self.read_secret()
        if self.creds is not None or self.nkey_file is not None:
            self.read_key_pair()
        if self.creds is not None:
            self.read_jwt()

    def ssl_context(self) -> ssl.SSLContext:
        """Return the context for TLS connections: TLS 1.2 or newer, with host name verification.

        Raises:
            AccessError: a file cannot be used.
        """
        # Read here and below only for the errors, which name the file and
        # the reason; those of ``ssl`` do not.
        if self.ca is not None:
            _read(self.ca, "CA file")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError:
            raise AccessError(f"CA file {self.ca} contains no certificate", "use a PEM file") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None and self.key is not None:
            for path, kind in ((self.cert, "certificate file"), (self.key, "key file")):
                _read(path, kind)
            try:
                # Without a password argument, OpenSSL would prompt for one on the terminal.
                context.load_cert_chain(self.cert, self.key, password="")
            except (ssl.SSLError, ValueError):
                raise AccessError(
                    f"certificate {self.cert} and key {self.key} do not form a usable pair",
                    "use a certificate and its private key, both PEM, the key not encrypted",
                ) from None
        return context

    def read_secret(self) -> str | None:
        """Return the password or the token; None if neither is set.

        Raises:
            AccessError: the file with the secret cannot be used.
        """
        for path, kind in ((self.password_file, "password file"), (self.token_file, "token file")):
            if path is not None:
                # Only line breaks are removed, because a password may begin or end with a space.
                return _read(path, kind).strip("\r\n") or _raise_empty(path, kind)
        return self.password if self.password is not None else self.token

    def read_jwt(self) -> str:
        """Return the user's JWT from the .creds file.

        Raises:
            AccessError: the file contains no JWT.
        """
        assert self.creds is not None
        return _block(self.creds, _JWT)

    def read_key_pair(self) -> KeyPair:
        """Return the user's key pair for signing.

        Raises:
            AccessError: the file contains no seed.
        """
        path, kind = self.nkey_file, "nkey file"
        if path is not None:
            seed = _read(path, kind).strip()
        else:
            assert self.creds is not None
            path, kind = self.creds, "credentials file"
            seed = _block(path, _SEED)
        try:
            return parse_user_seed(seed)
        except NkeyError as error:
            raise AccessError(
                f"{kind} {path} contains no user seed: {error}", "use a seed that starts with SU"
            ) from None


def _user_in(url: str) -> str | None:
    """Return the name of the user in an address; a name without a password is a token, which is a secret."""
    for part in url.split(","):
        try:
            parts = urlsplit(part.strip())
        except ValueError:
            continue
        if parts.username and parts.password is not None:
            return unquote(parts.username)
    return None


def _check_exclusive(**options: Any) -> None:
    present = [name for name, value in options.items() if value is not None]
    if len(present) > 1:
        raise ValueError(f"NATS {' and '.join(present)} are both set; set only one")


def _read(path: StrPath, kind: str) -> str:
    try:
        with Path(path).open("rb") as file:
            # Bounded, because the path may be wrong and name a device or a
            # large file. A CA bundle may be larger.
            data = file.read(MAX_SECRET_BYTES + 1) if kind != "CA file" else file.read()
    except FileNotFoundError:
        raise AccessError(f"{kind} {path} does not exist", "check the path") from None
    except OSError as error:
        raise AccessError(
            f"{kind} {path} cannot be read: {error.strerror}", "make it readable by the user of this process"
        ) from None
    if kind != "CA file" and len(data) > MAX_SECRET_BYTES:
        raise AccessError(f"{kind} {path} is larger than {MAX_SECRET_BYTES} bytes", "check the path")
    return data.decode("utf-8", "replace")


def _raise_empty(path: StrPath, kind: str) -> NoReturn:
    raise AccessError(f"{kind} {path} is empty", "write the secret into it")


def _block(path: StrPath, name: str) -> str:
    """Return a section of a .creds file; nats-py loops infinitely if the section is missing."""
    lines = iter(_read(path, "credentials file").splitlines())
    for line in lines:
        if f"BEGIN {name}" in line:
            return next(lines, "").strip()
    raise AccessError(f"credentials file {path} contains no {name}", "recreate it with 'nsc generate creds'")


__all__ = ["INBOX_PREFIX", "Access", "AccessError", "StrPath"]
