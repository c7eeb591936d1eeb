"""The token of ``tickertape tail``: from the environment, or from a file that somebody renews.

Invariants: a token is never printed, nor part of an error; what the relay was sent last is not sent again
in the same session.
"""

import re
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from tickertape.errors import ConfigurationError
from tickertape.relay.auth.verifier import MAX_TOKEN

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}", re.ASCII)

HINT: Final = "give one with --token-file or TICKERTAPE_TOKEN; 'tickertape token mint' makes one"
"""What to do without a token that counts."""


class NoTokenError(ConfigurationError):
    """There is no token where one should be."""


class TokenSource:
    """Reads the token, as often as somebody asks.

    Args:
        token: that is given; None without one.
        file: that holds one; it comes first, since it can be renewed.
    """

    def __init__(self, token: SecretStr | None, file: Path | None) -> None:
        self.file = file
        self._given = token
        self._last: str | None = None

    def __repr__(self) -> str:
        origin = self.file or ("given" if self._given is not None else "none")
        return f"TokenSource({origin})"

    def read(self) -> str | None:
        """The token to connect with; None without one.

        Raises:
            NoTokenError: what is there is none.
        """
        self._last = self._read()
        return self._last

    def changed(self) -> str | None:
        """Another token than the last one; None while there is none, also while the file is being written."""
        try:
            token = self._read()
        except NoTokenError:
            return None
        if token == self._last:
            return None
        self._last = token
        return token

    def forget(self) -> None:
        """The last token did not get to where it counts: it is news again."""
        self._last = None

    def _read(self) -> str | None:
        if self.file is not None:
            where = str(self.file)
            try:
                with self.file.open("rb") as file:
                    text = file.read(MAX_TOKEN + 2).decode("ascii", "replace")
            except OSError as error:
                raise NoTokenError(f"{where} cannot be read ({error.strerror})", HINT) from None
        elif self._given is not None:
            where, text = "TICKERTAPE_TOKEN", self._given.get_secret_value()
        else:
            return None
        token = text.strip()
        if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
            raise NoTokenError(f"{where} holds no token, which is three parts with dots between them", HINT)
        return token
