"""Text of others made fit for a line of ours: a log, a terminal, a header, the reason of a close."""


def printable(text: str) -> str:
    """Escape what cannot be printed, such as a line break, a terminal's control code or half a surrogate."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def one_line(text: str) -> str:
    """Join the lines of a text."""
    return " ".join(text.splitlines())


def cut(text: str, size: int) -> str:
    """Cut a text to so many bytes of UTF-8, between two characters."""
    return text.encode()[:size].decode(errors="ignore")
