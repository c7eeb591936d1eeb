"""What an operator can mend, in one shape: what happened, to what, and what to do."""


class MendableError(Exception):
    """Root of the errors that somebody has to do something about.

    Args:
        what: what happened, to what; never a secret.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"
