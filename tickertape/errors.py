"""The root of every exception that Tickertape defines, and the errors that an operator can act on."""

import copyreg
from typing import Any


class TickertapeError(Exception):
    """Root of the exceptions that Tickertape defines."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by its attributes: constructors have other parameters than ``args``.
        return copyreg.__newobj__, (type(self),), {**self.__dict__, "args": self.args}  # type: ignore[attr-defined]


class OperatorError(TickertapeError):
    """An error that an operator has to act on; its text is ``message; hint``.

    Args:
        message: what happened, and to what; never a secret.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        # Not super(): OSError, a base of some, would take the two for an error's number and its name.
        Exception.__init__(self, message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


class ConfigurationError(OperatorError):
    """A setting, configuration file, certificate, key or credential cannot be used."""
