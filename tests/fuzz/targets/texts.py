"""Check of a text that was made of untrusted input."""


def check_text(text: str, limit: int = 2_000) -> None:
    """Check that an error is short, whatever the input, and can be written as UTF-8."""
    assert 0 < len(text) <= limit
    text.encode("utf-8", "surrogateescape")
