"""The table of close codes."""

from tickertape.contracts.close_codes import CLOSE_CODES, CloseCode, ErrorCode, Reconnect


def test_every_code_is_in_the_table() -> None:
    """The table has every close code, in ascending order."""
    assert list(CLOSE_CODES) == list(CloseCode)
    assert [int(code) for code in CLOSE_CODES] == sorted(int(code) for code in CloseCode)


def test_reconnect_rules() -> None:
    """Clients reconnect after temporary conditions, but never after an error of their own."""
    by_rule = {
        rule: {int(c) for c, row in CLOSE_CODES.items() if row.reconnect is rule} for rule in Reconnect
    }
    assert by_rule == {
        Reconnect.NEVER: {1000, 1002, 1003, 1007, 1009, 4400, 4403, 4409},
        Reconnect.BACKOFF: {1011, 4408, 4429, 4503},
        Reconnect.AFTER_RETRY_MS: {1001},
        Reconnect.NEW_TOKEN: {4401},
    }


def test_rejections_before_the_upgrade() -> None:
    """Rejections before the upgrade use the HTTP status of the same condition."""
    statuses = {int(code): row.http_status for code, row in CLOSE_CODES.items() if row.http_status}
    assert statuses == {1011: 500, 4400: 400, 4401: 401, 4403: 403, 4409: 400, 4429: 429, 4503: 503}


def test_error_codes_are_words() -> None:
    """Error codes are lower-case words, since clients compare them."""
    assert all(code.isascii() and code.replace("_", "").islower() for code in ErrorCode)
