"""Helpers that make untrusted text safe for one line of a log, a terminal, a header or a close reason."""


def printable(text: str) -> str:
    """Escape unprintable characters, such as line breaks, terminal control codes and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def join_lines(text: str) -> str:
    """Join the lines of a text with spaces."""
    return " ".join(text.splitlines())


def count(number: int, noun: str) -> str:
    """Return a number and a noun, with ``s`` unless the number is 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def truncate(text: str, max_bytes: int) -> str:
    """Truncate a text to ``max_bytes`` of UTF-8 without splitting a character."""
    return text.encode()[:max_bytes].decode(errors="ignore")
