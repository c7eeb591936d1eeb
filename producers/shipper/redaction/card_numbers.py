"""Detection of payment card numbers in text.

Invariants:

1. A card number has 13 to 19 digits, begins with an issuer's digit, and passes the Luhn check.
2. It is not part of a longer run of digits, a word, an id or a decimal number.
3. If it is written in groups, they have three to six digits and are separated by one space or dash.
"""

from collections.abc import Callable
from typing import Any, Final

import re2

SUSPECT: Final = rb"(?:^|[^0-9A-Za-z]|\\[nrtbf]|\\u[0-9A-Fa-f]{4})[2-6](?:[ -]?[0-9]){12}"
"""Expression for a possible card number, with the character before it."""

_RUN: Final = re2.compile(rb"[0-9]+(?:[ -][0-9]+)*")
# Lengths by first digit: Mastercard and Mir; American Express, Diners and JCB; Visa; Mastercard and Maestro;
# UnionPay, Discover and Maestro. None begins with a 1, as UNIX times in milliseconds do.
_LENGTHS: Final = {
    ord("2"): frozenset({16}),
    ord("3"): frozenset({14, 15, 16, 17, 18, 19}),
    ord("4"): frozenset({13, 16, 19}),
    ord("5"): frozenset(range(13, 20)),
    ord("6"): frozenset(range(13, 20)),
}
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def luhn(digits: bytes) -> bool:
    """Return whether digits pass the Luhn check, which detects any single wrong digit."""
    total = sum(digit - 48 for digit in digits[-1::-2])
    total += sum(_DOUBLED[digit - 48] for digit in digits[-2::-2])
    return total % 10 == 0


def is_card(digits: bytes) -> bool:
    """Return whether digits without separators can be a card number."""
    return len(digits) in _LENGTHS.get(digits[0], ()) and luhn(digits)


def replace(text: bytes, replacement: Callable[[], bytes]) -> bytes:
    """Replace every card number.

    Args:
        text: UTF-8.
        replacement: called for each card number; returns its replacement.
    """

    def replace_run(match: Any) -> bytes:
        digits: bytes = match.group()
        if len(digits) < 13:
            return digits
        start, end = match.span()
        return _replace_in_run(digits, _can_start_at(text, start), _can_end_at(text, end), replacement)

    replaced: bytes = _RUN.sub(replace_run, text)
    return replaced


def _can_start_at(text: bytes, position: int) -> bool:
    before = text[max(0, position - 2) : position]
    # A JSON escape ends with a letter, which is no part of a word before the number.
    if not before or before in (b"\\n", b"\\r", b"\\t"):
        return True
    last = before[-1:]
    return not (last.isalnum() or last == b"_" or (last == b"." and before[:1].isdigit()))


def _can_end_at(text: bytes, position: int) -> bool:
    after = text[position : position + 2]
    return not (after[:1].isalnum() or after[:1] == b"_" or (after[:1] == b"." and after[1:].isdigit()))


def _replace_in_run(run: bytes, can_start: bool, can_end: bool, replacement: Callable[[], bytes]) -> bytes:
    """Replace the card numbers among groups of digits.

    Args:
        run: groups of digits with one separator between them.
        can_start: a number can begin with the first group.
        can_end: a number can end with the last group.
        replacement: called for each card number; returns its replacement.
    """
    parts: list[bytes] = []
    start = 0
    while start < len(run):
        stop = _card_end(run, start, can_end) if can_start or start else 0
        if stop:
            parts.append(replacement())
        else:
            stop = start
            while stop < len(run) and run[stop] >= 48:
                stop += 1
            parts.append(run[start:stop])
        parts.append(run[stop : stop + 1])
        start = stop + 1
    return b"".join(parts)


def _card_end(run: bytes, start: int, can_end: bool) -> int:
    """Return the end of the longest card number that begins with a group, or 0."""
    digits = b""
    groups = 0
    longest = 0
    position = start
    # No card number is longer, and this bounds the work for each group: a long run takes linear time.
    while position < len(run) and len(digits) <= 19:
        stop = position
        while stop < len(run) and run[stop] >= 48 and stop - position <= 19:
            stop += 1
        digits += run[position:stop]
        groups += 1
        is_group = stop == len(run) or run[stop] < 48
        if is_group and (can_end or stop < len(run)) and len(digits) >= 13 and is_card(digits):
            longest = stop
        # A number in groups has no long group, and only its last can be short.
        if not is_group or not 3 <= stop - position <= 6:
            break
        position = stop + 1
    return longest
