"""Detection of payment card numbers in text.

Invariants:

1. A card number has the prefix and the length of an issuer, and passes the Luhn check.
2. It touches no other digit, letter or underscore, and is no part of a decimal number or a range.
3. It is grouped as cards are (4-4-4-4, 4-6-5 or 4-6-4, by spaces or dashes), or a word for a card is next to
   it: 2.9 % of random numbers with 16 digits satisfy the first invariant.
4. Groups between spaces that could be prices and quantities are no card number, unless a word says so.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from tickertape.producers.shipper.redaction.expressions import compile_bytes

_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
# Prefixes as inclusive ranges of the first six digits, with the lengths of the numbers.
_ISSUERS: Final[tuple[tuple[int, int, range], ...]] = (
    (220000, 220499, range(16, 20)),  # Mir
    (222100, 272099, range(16, 17)),  # Mastercard
    (300000, 305999, range(14, 15)),  # Diners Club
    (309500, 309599, range(14, 15)),
    (340000, 349999, range(15, 16)),  # American Express
    (352800, 358999, range(16, 17)),  # JCB
    (360000, 369999, range(14, 15)),  # Diners Club
    (370000, 379999, range(15, 16)),  # American Express
    (380000, 399999, range(14, 15)),  # Diners Club
    (400000, 499999, range(13, 20, 3)),  # Visa
    (501800, 501899, range(13, 20)),  # Maestro
    (502000, 502099, range(13, 20)),
    (503800, 503899, range(13, 20)),
    (508000, 508999, range(16, 17)),  # RuPay
    (510000, 559999, range(16, 17)),  # Mastercard
    (561200, 561299, range(13, 20)),  # Maestro
    (589300, 589399, range(13, 20)),
    (601100, 601199, range(16, 20)),  # Discover
    (606900, 608999, range(16, 17)),  # RuPay
    (620000, 629999, range(16, 20)),  # UnionPay
    (630400, 630499, range(13, 20)),  # Maestro
    (637000, 639999, range(16, 17)),  # Elo, InstaPayment
    (644000, 659999, range(16, 20)),  # Discover
    (675900, 676399, range(13, 20)),  # Maestro
    (817100, 817199, range(16, 20)),  # UnionPay
)

_WORD: Final = (
    rb"(?:cards?|karten?|tarjeta|carte bancaire|\bvisa|master ?card|maestro|amex|american express"
    rb"|unionpay|diners|jcb"
    rb"|rupay|\b_?(?:pan|ccn?|discover)(?:[_-]?(?:num(?:ber)?|no))?\b|_(?:pan|ccn?)\b"
    rb"|\xe5\x8d\xa1\xe5\x8f\xb7|\xe9\x93\xb6\xe8\xa1\x8c\xe5\x8d\xa1|\xe4\xbf\xa1\xe7\x94\xa8\xe5\x8d\xa1)"
)
ESCAPED_WORDS: Final = rb"\\u5361\\u53f7|\\u94f6\\u884c\\u5361|\\u4fe1\\u7528\\u5361"
"""The words that are not ASCII, as JSON escapes."""

_PLAIN: Final = rb"[2-68][0-9]{3}(?:[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{1,7}|[ -]?[0-9]{6}[ -]?[0-9]{4,5})"
_NAMED: Final = rb"%s[^0-9\n]*?%s" % (_WORD, _PLAIN)
# In these two, the number itself is not part of the expression, which would make its automaton large.
_SUFFIXED: Final = rb"[0-9]{4}[\"' \t(\[,:;-]{1,4}%s" % _WORD
# Track data of a magnetic stripe: the number is followed by the holder or the month of expiry.
_TRACK: Final = rb"[0-9]{6}(?:=[0-9]{7}|\^[A-Za-z /.-]{2,26}\^[0-9]{4})"
_BEFORE: Final = rb"(?:^|[^0-9A-Za-z_.,-]|(?:^|[^0-9])[.,-]|\\[nrtbf])"
_BEFORE_SPACES: Final = (
    rb"(?:^|[^0-9A-Za-z_ .,-]|(?:^|[^0-9])[ .,-]|\\[nrtbf]|:[0-9]{2} |:[0-9]{2}[.,][0-9]{1,9} )"
)
_AFTER: Final = rb"(?:$|[^0-9A-Za-z_.,-]|[.,-](?:$|[^0-9]))"
_AFTER_SPACES: Final = rb"(?:$|[^0-9A-Za-z_ .,-]|[ .,-](?:$|[^0-9]))"
_DASHED: Final = rb"[2-68][0-9]{3}-(?:[0-9]{4}-[0-9]{4}-[0-9]{4}|[0-9]{6}-[0-9]{4,5})"
_SPACED: Final = rb"[2-68][0-9]{3} (?:[0-9]{4} [0-9]{4} [0-9]{4}|[0-9]{6} [0-9]{4,5})"

SUSPECT: Final = rb"(?im:%s|%s|%s|%s|%s%s%s|%s%s%s)" % (
    ESCAPED_WORDS, _NAMED, _SUFFIXED, _TRACK, _BEFORE, _DASHED, _AFTER,
    _BEFORE_SPACES, _SPACED, _AFTER_SPACES,
)  # fmt: skip
"""Expression for a possible card number, which hardly ever matches in the depth of a market."""

_NUMBER: Final = compile_bytes(
    rb"[0-9]{13,19}|[0-9]{4}(?: [0-9]{4}){3}(?: [0-9]{1,3})?|[0-9]{4}(?:-[0-9]{4}){3}(?:-[0-9]{1,3})?"
    rb"|[0-9]{4} [0-9]{6} [0-9]{4,5}|[0-9]{4}-[0-9]{6}-[0-9]{4,5}"
)
_WORD_BEFORE: Final = re.compile(_WORD + rb"([^0-9\n]{0,40})\Z", re.IGNORECASE)
_WORD_AFTER: Final = re.compile(rb"[\"' \t(\[,:;-]{1,4}" + _WORD, re.IGNORECASE)
_TRACK_AFTER: Final = re.compile(rb"=[0-9]{7}|\^[A-Za-z /.-]{2,26}\^[0-9]{4}")
# 'discarded 4111...' and 'card payment of order 4111...' are about other numbers.
_OTHER_CARD: Final = re.compile(rb"(?:dis|wild|score|post|pla|time|punch|flash|board|busin)\Z", re.IGNORECASE)
_OTHER_NUMBER: Final = re.compile(
    rb"\b(?:order|trade|txn|transaction|tx|ref|reference|request|req|session|trace|span|message|msg|event"
    rb"|job|invoice"
    rb"|customer|user|client|account|seq|sequence|offset|time|timestamp|ts|block|batch|phone|tracking)"
    rb"(?:[ _-]?(?:id|no|number|ref))?\b|(?:_|\b)id\b",
    re.IGNORECASE,
)
_TIME_BEFORE: Final = re.compile(rb":[0-9]{2}(?:[.,][0-9]{1,9})? \Z")
_MARKET: Final = re.compile(
    rb"(?:depth|bids?|asks?|offers?|prices?|px|qty|qtys|quantit(?:y|ies)|sizes?|vol|volumes?|books?"
    rb"|levels?|lvls?|l2|l3"
    rb"|ohlcv?|open|high|low|close|last|bars?|candles?|klines?|ticks?|quotes?|trades?|lots?|fills?|ladder"
    rb"|spread"
    rb"|sums?|counts?|values|rows|ports?|pids?|ids|samples|hist|histogram|buckets|latency|latencies"
    rb"|stats|offsets?"
    rb"|positions?|seq|seqs|sequences?|numbers|bytes|years?|range|coords?|points?)"
    rb"[\"'\]})]?[ \t]*[:=]?[ \t]*[\[({]?[ \t]*\Z",
    re.IGNORECASE,
)


def luhn(digits: bytes) -> bool:
    """Return whether digits pass the Luhn check, which detects any single wrong digit."""
    total = sum(digit - 48 for digit in digits[-1::-2])
    total += sum(_DOUBLED[digit - 48] for digit in digits[-2::-2])
    return total % 10 == 0


def is_card(digits: bytes) -> bool:
    """Return whether digits without separators can be a card number."""
    if not 13 <= len(digits) <= 19:
        return False
    prefix = int(digits[:6])
    return any(low <= prefix <= high and len(digits) in sizes for low, high, sizes in _ISSUERS) and luhn(
        digits
    )


def is_card_text(text: str) -> bool:
    """Return whether a text is a card number, with or without groups."""
    data = text.strip().encode()
    return _NUMBER.fullmatch(data) is not None and is_card(data.replace(b" ", b"").replace(b"-", b""))


def replace(text: bytes, replacement: Callable[[], bytes]) -> bytes:
    """Replace every card number.

    Args:
        text: UTF-8.
        replacement: called for each card number; returns its replacement.
    """
    ends = [0]  # of the card number before, whose word also holds for a list of numbers

    def replace_number(match: Any) -> bytes:
        found: bytes = match.group()
        # A fifth group can be part of the number, or its security code.
        for number in dict.fromkeys((found, found[:19])):
            end = match.start() + len(number)
            if _is_card_at(text, match.start(), end, number, ends[0]):
                ends[0] = end
                return replacement() + found[len(number) :]
        return found

    replaced: bytes = _NUMBER.sub(replace_number, text)
    return replaced


def _is_card_at(text: bytes, start: int, end: int, number: bytes, last_end: int) -> bool:
    before = text[max(0, start - 80) : start]
    after = text[end : end + 40]
    if _touches(before[-2:][::-1], after[:2]) and not (before[-1:] == b"B" and _TRACK_AFTER.match(after)):
        return False
    digits = number.replace(b" ", b"").replace(b"-", b"")
    if not is_card(digits):
        return False
    if _TRACK_AFTER.match(after) or _has_word(before, after):
        return True
    if last_end and start - last_end <= 4 and text[last_end:start].strip(b" ,;/|") == b"":
        return True
    if digits == number or not _is_grouped(number, digits):
        return False
    return b" " not in number or not _is_list(number.split(b" "), before, after)


def _touches(before: bytes, after: bytes) -> bool:
    """Return whether a digit or a letter is next to a number.

    Args:
        before: up to two bytes before the number, the nearest first.
        after: up to two bytes after it.
    """
    # A JSON escape ends with a letter, which is no part of a word before the number.
    if before[1:] == b"\\" and before[:1] in b"nrtbf":
        before = b""
    for near, far in ((before[:1], before[1:2]), (after[:1], after[1:2])):
        if near.isalnum() or near == b"_" or (near in (b".", b",", b"-") and far.isdigit()):
            return True
    return False


def _has_word(before: bytes, after: bytes) -> bool:
    match = _WORD_BEFORE.search(before)
    if match is not None and not _OTHER_NUMBER.search(match[1]):
        return not (
            _OTHER_CARD.search(before[: match.start()]) or match[1].startswith((b"inal", b"io", b"iff"))
        )
    return _WORD_AFTER.match(after) is not None


def _is_grouped(number: bytes, digits: bytes) -> bool:
    sizes = tuple(map(len, number.replace(b"-", b" ").split(b" ")))
    match len(digits):
        case 16:
            return sizes == (4, 4, 4, 4)
        case 15:
            return sizes == (4, 6, 5) and digits[:1] == b"3"
        case 14:
            return sizes == (4, 6, 4) and digits[:1] == b"3"
    return False


def _is_list(groups: list[bytes], before: bytes, after: bytes) -> bool:
    """Return whether groups between spaces can be a list of numbers, such as prices and quantities."""
    neighbour = before[:-1].rsplit(b" ", 1)[-1] if before[-1:] == b" " else b""
    if neighbour[-1:].isdigit() and not _TIME_BEFORE.search(before):
        return True
    if after[:1] == b" " and after[1:2].isdigit():
        return True
    if _MARKET.search(before):
        return True
    # Prices of one instrument are close to one another, but hardly ever equal; they alternate with
    # quantities, or follow one another.
    first, second, third, fourth = (int(group) for group in groups[:4]) if len(groups) >= 4 else (0, 0, 0, 0)
    lowest, highest = min(first, second, third, fourth), max(first, second, third, fourth)
    return 0 < abs(first - third) <= first // 100 or 0 < highest - lowest <= lowest // 20
