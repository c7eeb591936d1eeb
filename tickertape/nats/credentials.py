"""How a program shows NATS who it is, and knows NATS by its certificate.

Invariants:

1. Files are read at each connection, not once: what is rotated on disk works at the next one.
2. No secret is in a ``repr()``, or in the text of an error.
3. With a CA or a certificate of our own there is TLS, or no connection.
"""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tickertape.contracts.subjects import SubjectError, check_pattern
from tickertape.errors import ConfigurationError

if TYPE_CHECKING:
    from nkeys import KeyPair

StrPath = str | os.PathLike[str]

INBOX_PREFIX: Final = "_INBOX"
MAX_SECRET_BYTES: Final = 64 * 1024
"""Bytes of a file with a secret; the largest of them, a JWT, has a few thousand."""

_JWT: Final = "NATS USER JWT"
_SEED: Final = "USER NKEY SEED"


class AccessError(ConfigurationError, OSError):
    """A file that is needed to reach NATS cannot be used."""


@dataclass(frozen=True, slots=True)
class Access:
    """At most one of ``creds``, ``nkey_file``, ``user`` with a password, and a token; TLS beside any.

    Attributes:
        ca: certificates, PEM, one of which must have signed the server's; the system's without it.
        cert: certificate of this program, PEM, for servers that want one.
        key: its private key, not encrypted.
        creds: a .creds file: a user's JWT and seed.
        nkey_file: the seed of a user that the server knows by its public key.
        user: name of a user with a password.
        password: of that user; ``password_file`` holds it otherwise.
        token: for servers that know one secret for all; ``token_file`` holds it otherwise.
        inbox_prefix: first tokens of the subjects on which answers come. A user who may listen on these alone
            cannot hear what is answered to others.

    Raises:
        ValueError: these contradict each other.
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
        _not_both(password=self.password, password_file=self.password_file)
        _not_both(token=self.token, token_file=self.token_file)
        password = self.password is not None or self.password_file is not None
        if (self.cert is None) != (self.key is None):
            given, missing = ("key", "cert") if self.cert is None else ("cert", "key")
            raise ValueError(f"NATS {given} is given without {missing}; these go together")
        if (self.user is not None) != password:
            given, missing = ("password", "user") if self.user is None else ("user", "password")
            raise ValueError(f"NATS {given} is given without {missing}; these go together")
        if len(self._ways()) > 1:
            raise ValueError(f"NATS credentials are given as {' and as '.join(self._ways())}; give one")
        try:
            check_pattern(self.inbox_prefix)
            if "*" in self.inbox_prefix or ">" in self.inbox_prefix:
                raise SubjectError(self.inbox_prefix, "has a wildcard")
        except SubjectError as error:
            raise ValueError(f"NATS inbox prefix {error}; write it as {INBOX_PREFIX}") from None

    def _ways(self) -> list[str]:
        ways = {
            "creds": self.creds is not None,
            "nkey_file": self.nkey_file is not None,
            "user": self.user is not None,
            "token": self.token is not None or self.token_file is not None,
        }
        return [way for way, given in ways.items() if given]

    @property
    def has_credentials(self) -> bool:
        """True when it holds credentials beside certificates."""
        return bool(self._ways())

    @property
    def requires_tls(self) -> bool:
        """True when it holds certificates, so that only TLS will do."""
        return self.ca is not None or self.cert is not None

    def check_files(self) -> None:
        """Read every file once.

        Raises:
            AccessError: one is missing, or is not what it should be.
        """
        if self.requires_tls:
            # Without files of its own the context has nothing to check, and takes the system's hundreds of
            # certificates, which cost as much time as all else that a program does to connect.
            self.ssl_context()
        self.read_secret()
        if self.creds is not None or self.nkey_file is not None:
            self.read_key_pair().wipe()
        if self.creds is not None:
            self.read_jwt()

    def ssl_context(self) -> ssl.SSLContext:
        """What TLS connections are made with: TLS 1.2 or newer, the server's name checked.

        Raises:
            AccessError: a file cannot be used.
        """
        if self.ca is not None:
            _read(self.ca, "CA file")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError:
            raise AccessError(f"CA file {self.ca} holds no certificate", "give a file in PEM form") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None and self.key is not None:
            for path, what in ((self.cert, "certificate file"), (self.key, "key file")):
                _read(path, what)
            try:
                # Without a password given, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert, self.key, password="")
            except (ssl.SSLError, ValueError):
                raise AccessError(
                    f"certificate {self.cert} and key {self.key} are no pair that can be used",
                    "give a certificate and its own key, both in PEM form, the key not encrypted",
                ) from None
        return context

    def read_secret(self) -> str | None:
        """The password or the token; None when there is neither.

        Raises:
            AccessError: its file cannot be used.
        """
        for path, what in ((self.password_file, "password file"), (self.token_file, "token file")):
            if path is not None:
                return _read(path, what).strip("\r\n") or _empty(path, what)
        return self.password if self.password is not None else self.token

    def read_jwt(self) -> str:
        """The user's JWT in the .creds file.

        Raises:
            AccessError: there is none.
        """
        assert self.creds is not None
        return _block(self.creds, _JWT)

    def read_key_pair(self) -> "KeyPair":
        """The user's keys, to sign with; wipe them after use.

        Raises:
            AccessError: the file holds no seed.
        """
        import nkeys  # takes as long to import as all of our own

        path, what = self.nkey_file, "nkey file"
        if path is not None:
            seed = _read(path, what).strip()
        else:
            assert self.creds is not None
            path, what = self.creds, "credentials file"
            seed = _block(path, _SEED)
        try:
            return nkeys.from_seed(bytearray(seed.encode()))
        except (nkeys.NkeysError, ValueError):
            raise AccessError(
                f"{what} {path} holds no seed of a user", "give one that begins with SU"
            ) from None


def _not_both(**options: Any) -> None:
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"NATS {' and '.join(given)} are both given; give one of them")


def _read(path: StrPath, what: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1) if what != "CA file" else file.read()
    except FileNotFoundError:
        raise AccessError(f"{what} {path} is not there", "check its path") from None
    except OSError as error:
        raise AccessError(
            f"{what} {path} cannot be read: {error.strerror}", "let this program's user read it"
        ) from None
    if what != "CA file" and len(data) > MAX_SECRET_BYTES:
        raise AccessError(f"{what} {path} has more than {MAX_SECRET_BYTES} bytes", "check its path")
    return data.decode("utf-8", "replace")


def _empty(path: StrPath, what: str) -> str:
    raise AccessError(f"{what} {path} is empty", "write the secret into it")


def _block(path: StrPath, name: str) -> str:
    """What stands between the marks of a .creds file; nats-py would search for ever in a file without."""
    lines = iter(_read(path, "credentials file").splitlines())
    for line in lines:
        if f"BEGIN {name}" in line:
            return next(lines, "").strip()
    raise AccessError(f"credentials file {path} holds no {name}", "make it anew with 'nsc generate creds'")


__all__ = ["INBOX_PREFIX", "Access", "AccessError", "StrPath"]
