"""FIX messages in log lines: their type and identifiers, for the metadata of an event.

Invariants:

1. Any text is accepted: a field that is not ``tag=value`` is skipped, and of a tag that repeats, as in the
   groups of a list, the first value counts.
2. The result is small: at most ``MAX_MESSAGES`` messages with ``MAX_VALUE`` characters in each value.
"""

import re
from typing import Any, Final

from tickertape.producers.shipper.redaction.fix_fields import separator_of

SUSPECT: Final = rb"8=FIXT?\.[0-9]"
"""Expression for a line with a FIX message whose separators are visible."""

MAX_MESSAGES: Final = 20
"""Messages of an event that are described; a line with more is a dump."""

MAX_VALUE: Final = 128
"""Characters of a value that are kept."""

FIELDS: Final = {
    "8": "begin_string", "35": "msg_type", "34": "msg_seq_num", "49": "sender_comp_id",
    "56": "target_comp_id", "50": "sender_sub_id", "57": "target_sub_id", "115": "on_behalf_of_comp_id",
    "128": "deliver_to_comp_id", "52": "sending_time", "11": "cl_ord_id", "41": "orig_cl_ord_id",
    "37": "order_id", "198": "secondary_order_id", "526": "secondary_cl_ord_id", "17": "exec_id",
    "150": "exec_type", "39": "ord_status", "66": "list_id", "70": "alloc_id", "117": "quote_id",
    "131": "quote_req_id", "262": "md_req_id", "571": "trade_report_id", "1003": "trade_id",
    "55": "symbol", "48": "security_id", "45": "ref_seq_num", "112": "test_req_id",
}  # fmt: skip
"""Names of the fields that are kept, by tag: FIX's names in lower case."""

NAMES: Final = {
    "0": "Heartbeat", "1": "TestRequest", "2": "ResendRequest", "3": "Reject", "4": "SequenceReset",
    "5": "Logout", "6": "IOI", "7": "Advertisement", "8": "ExecutionReport", "9": "OrderCancelReject",
    "A": "Logon", "B": "News", "D": "NewOrderSingle", "E": "NewOrderList", "F": "OrderCancelRequest",
    "G": "OrderCancelReplaceRequest", "H": "OrderStatusRequest", "J": "AllocationInstruction",
    "P": "AllocationInstructionAck", "Q": "DontKnowTrade", "R": "QuoteRequest", "S": "Quote",
    "V": "MarketDataRequest", "W": "MarketDataSnapshotFullRefresh", "X": "MarketDataIncrementalRefresh",
    "Y": "MarketDataRequestReject", "Z": "QuoteCancel", "b": "MassQuoteAck",
    "c": "SecurityDefinitionRequest", "d": "SecurityDefinition", "f": "SecurityStatus",
    "g": "TradingSessionStatusRequest", "h": "TradingSessionStatus", "i": "MassQuote",
    "j": "BusinessMessageReject", "q": "OrderMassCancelRequest", "r": "OrderMassCancelReport",
    "AD": "TradeCaptureReportRequest", "AE": "TradeCaptureReport", "AF": "OrderMassStatusRequest",
    "AP": "PositionReport", "x": "SecurityListRequest", "y": "SecurityList", "BE": "UserRequest",
    "BF": "UserResponse",
}  # fmt: skip
"""Names of common message types."""

_BEGIN: Final = re.compile(r"8=FIXT?\.")
_TAG: Final = re.compile(r"(?:.*[^0-9])?([0-9]{1,5})\Z", re.ASCII | re.DOTALL)
_CHECKSUM: Final = "10"


def read_messages(text: str) -> dict[str, Any] | None:
    """Return the type and the identifiers of the first FIX message in a text; ``more`` has further ones.

    Args:
        text: message of an event, with visible separators and without secrets.

    Returns:
        The fields, or None if there is no FIX message.
    """
    if "35=" not in text:
        return None
    separator = separator_of(text.encode())
    if separator is None:
        return None
    mark = separator.decode("utf-8", "replace")
    starts = [match.start() for match in _BEGIN.finditer(text)][: MAX_MESSAGES + 1]
    stops = [*starts[1:], len(text)]
    found = [
        fields
        for start, stop in zip(starts or [0], stops if starts else [len(text)], strict=True)
        if (fields := _read_fields(text[start:stop].split(mark)))
    ][:MAX_MESSAGES]
    if not found:
        return None
    return {**found[0], "more": found[1:]} if len(found) > 1 else found[0]


def _read_fields(parts: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in parts:
        tag, equals, value = part.partition("=")
        tag = tag.strip()
        # Before the first field there can be the prefix of the log.
        if not fields and not tag.isdecimal() and (match := _TAG.match(tag)) is not None:
            tag = match[1]
        if tag == _CHECKSUM and fields:
            break
        name = FIELDS.get(tag)
        if name is not None and equals and value and name not in fields:
            fields[name] = value[:MAX_VALUE]
    kind = fields.get("msg_type")
    if kind is None:
        return {}
    if kind in NAMES:
        fields["msg_name"] = NAMES[kind]
    number = fields.get("msg_seq_num", "")
    if number.isdecimal() and len(number) < 16:
        fields["msg_seq_num"] = int(number)
    return fields
