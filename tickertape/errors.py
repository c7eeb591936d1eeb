"""Base classes of all exceptions that Tickertape defines."""

import copyreg
from typing import Any, ClassVar, Final

EXIT_FAILURE: Final = 1
"""Exit code of a program that failed."""

EXIT_DENIED: Final = 77
"""Exit code of a program to which NATS denies a permission: EX_NOPERM, which systemd shows by that name."""


class TickertapeError(Exception):
    """Root of the exceptions that Tickertape defines.

    Attributes:
        exit_code: exit code of a program that ends with this error.
    """

    exit_code: ClassVar[int] = EXIT_FAILURE

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle the attributes: subclasses have constructors whose parameters differ from ``args``.
        return copyreg.__newobj__, (type(self),), {**self.__dict__, "args": self.args}  # type: ignore[attr-defined]


class OperatorError(TickertapeError):
    """Error that an operator can fix; its text is ``message; hint``.

    Args:
        message: what happened, and to what; never contains a secret.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        # Not super(): in subclasses of OSError it would take the two for errno and strerror.
        Exception.__init__(self, message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


class ConfigurationError(OperatorError):
    """Error in a setting, configuration file, certificate, key or credential."""


def exit_code(error: BaseException) -> int:
    """Return the exit code of a program that ends with an error of any kind."""
    return error.exit_code if isinstance(error, TickertapeError) else EXIT_FAILURE
