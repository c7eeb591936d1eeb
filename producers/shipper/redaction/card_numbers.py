"""Card numbers in bytes of text.

Invariants:

1. A card number has 13 to 19 digits, begins as issuers' numbers do, and passes the check of Luhn.
2. It stands alone: not within a longer run of digits, a word, an id or a decimal number.
3. Its groups, if it is written in groups, have three to six digits, and one space or dash between them.
"""

from collections.abc import Callable
from typing import Any, Final

import re2

SUSPECT: Final = rb"(?:^|[^0-9A-Za-z]|\\[nrtbf]|\\u[0-9A-Fa-f]{4})[2-6](?:[ -]?[0-9]){12}"
"""Expression for where a card number could be, with the character before it."""

_RUN: Final = re2.compile(rb"[0-9]+(?:[ -][0-9]+)*")
# Lengths of the numbers that begin with a digit: Mastercard and Mir; American Express, Diners and JCB; Visa;
# Mastercard and Maestro; UnionPay, Discover and Maestro. Times in milliseconds and such begin with a 1.
_LENGTHS: Final = {
    ord("2"): frozenset({16}),
    ord("3"): frozenset({14, 15, 16, 17, 18, 19}),
    ord("4"): frozenset({13, 16, 19}),
    ord("5"): frozenset(range(13, 20)),
    ord("6"): frozenset(range(13, 20)),
}
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def luhn(digits: bytes) -> bool:
    """Tell whether digits pass the check of Luhn, which catches any one digit that is wrong."""
    total = sum(digit - 48 for digit in digits[-1::-2])
    total += sum(_DOUBLED[digit - 48] for digit in digits[-2::-2])
    return total % 10 == 0


def is_card(digits: bytes) -> bool:
    """Tell whether digits, without separators, can be a card number."""
    return len(digits) in _LENGTHS.get(digits[0], ()) and luhn(digits)


def replace(text: bytes, replacement: Callable[[], bytes]) -> bytes:
    """Replace every card number.

    Args:
        text: UTF-8.
        give_way: called for each; returns what stands there instead.
    """

    def run(found: Any) -> bytes:
        digits: bytes = found.group()
        if len(digits) < 13:
            return digits
        begin, end = found.span()
        return _within(digits, _stands_after(text, begin), _stands_before(text, end), replacement)

    replaced: bytes = _RUN.sub(run, text)
    return replaced


def _stands_after(text: bytes, position: int) -> bool:
    before = text[max(0, position - 2) : position]
    if not before or before in (b"\\n", b"\\r", b"\\t"):
        return True
    last = before[-1:]
    return not (last.isalnum() or last == b"_" or (last == b"." and before[:1].isdigit()))


def _stands_before(text: bytes, position: int) -> bool:
    after = text[position : position + 2]
    return not (after[:1].isalnum() or after[:1] == b"_" or (after[:1] == b"." and after[1:].isdigit()))


def _within(run: bytes, free: bool, ends: bool, replacement: Callable[[], bytes]) -> bytes:
    """Replace the card numbers among groups of digits, the first of which stands free or not."""
    pieces: list[bytes] = []
    begin = 0
    while begin < len(run):
        stop = _card_end(run, begin, ends) if free or begin else 0
        if stop:
            pieces.append(replacement())
        else:
            stop = begin
            while stop < len(run) and run[stop] >= 48:
                stop += 1
            pieces.append(run[begin:stop])
        pieces.append(run[stop : stop + 1])
        begin = stop + 1
    return b"".join(pieces)


def _card_end(run: bytes, begin: int, ends: bool) -> int:
    """End of the card number that begins with a group; 0 when none does. The longest counts."""
    digits = b""
    groups = 0
    best = 0
    position = begin
    while position < len(run) and len(digits) <= 19:
        stop = position
        while stop < len(run) and run[stop] >= 48 and stop - position <= 19:
            stop += 1
        digits += run[position:stop]
        groups += 1
        alone = stop == len(run) or run[stop] < 48
        if alone and (ends or stop < len(run)) and len(digits) >= 13 and is_card(digits):
            best = stop
        # A number in groups has no long group, and only its last can be short.
        if not alone or not 3 <= stop - position <= 6:
            break
        position = stop + 1
    return best
