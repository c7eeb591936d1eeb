"""Token of ``tickertape tail``, from the environment or from a file that is renewed.

Invariants: no output or error message contains a token; a token is not sent twice in the same session.
"""

import re
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from tickertape.contracts.messages import MAX_TOKEN
from tickertape.errors import ConfigurationError

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}", re.ASCII)

HINT: Final = "set --token-file or TICKERTAPE_TOKEN; 'tickertape token mint' creates a token"
"""Hint of errors about missing or invalid tokens."""


class NoTokenError(ConfigurationError):
    """Missing or malformed token."""


class TokenSource:
    """Source of the token, which rereads the token file on each request.

    Args:
        token: token from the settings; None if unset.
        file: token file, which takes precedence because it can be renewed; None if unset.
    """

    def __init__(self, token: SecretStr | None, file: Path | None) -> None:
        self.file = file
        self._token = token
        self._last: str | None = None

    def __repr__(self) -> str:
        origin = self.file or ("settings" if self._token is not None else "none")
        return f"TokenSource({origin})"

    def read(self) -> str | None:
        """Return the current token; None if none is configured.

        Raises:
            NoTokenError: the token is missing or malformed.
        """
        self._last = self._read()
        return self._last

    def changed(self) -> str | None:
        """Return the token if it has changed; None otherwise, or if the file contains no valid token."""
        try:
            token = self._read()
        except NoTokenError:
            # The file may be half-written; the next poll reads it again.
            return None
        if token == self._last:
            return None
        self._last = token
        return token

    def forget(self) -> None:
        """Forget the last token, so that ``changed`` returns it again."""
        self._last = None

    def _read(self) -> str | None:
        if self.file is not None:
            origin = str(self.file)
            try:
                with self.file.open("rb") as file:
                    # The longest token and a line break; a longer text is rejected below.
                    text = file.read(MAX_TOKEN + 2).decode("ascii", "replace")
            except OSError as error:
                raise NoTokenError(f"{origin} cannot be read ({error.strerror})", HINT) from None
        elif self._token is not None:
            origin, text = "TICKERTAPE_TOKEN", self._token.get_secret_value()
        else:
            return None
        token = text.strip()
        if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
            raise NoTokenError(
                f"{origin} contains no valid token: expected three parts separated by dots", HINT
            )
        return token
