"""Helpers for the browser tests of the dashboard's log."""

from typing import Any

from playwright.async_api import expect
from tickertape.contracts.events import SystemLog

from tests.support.browser.browser_desk import Desk


def log(message: str, level: str = "INFO", source: str = "desk", **metadata: Any) -> SystemLog:
    """Return a log line."""
    fields = {"level": level, "message": message, "source": source, "metadata": metadata}
    return SystemLog.model_validate(fields)


async def messages(desk: Desk, *expected: str) -> None:
    """Wait until the rows have exactly these messages."""
    await expect(desk.page.locator("#feed .row .row-message")).to_have_text(list(expected))


async def publish(desk: Desk, *events: SystemLog) -> None:
    """Publish events in order."""
    for event in events:
        await desk.publish(event)


async def query(desk: Desk) -> str:
    """Return the query in the address bar."""
    return str(await desk.page.evaluate("location.search"))


async def count(desk: Desk, text: str) -> None:
    """Wait until the page reports this number of lines."""
    await expect(desk.page.locator("#log-counts")).to_have_text(text)


async def copied_link(desk: Desk) -> str:
    """Return what the link button of the open line copies to the clipboard."""
    await desk.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await desk.page.locator("#details-body").get_by_role("button", name="Copy link").click()
    await expect(desk.page.locator("#details-body").get_by_role("button", name="Copied")).to_be_visible()
    return str(await desk.page.evaluate("navigator.clipboard.readText()"))


__all__ = ["copied_link", "count", "log", "messages", "publish", "query"]
