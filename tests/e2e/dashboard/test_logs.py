"""The dashboard's log as a list, in a real browser with a real relay and NATS server.

Every wait is for a state of the page.
"""

import os
from pathlib import Path

import pytest

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import expect

from tests.support.browser.browser_desk import open_desk, run
from tests.support.browser.log_desk import log, publish

pytestmark = pytest.mark.browser


def test_the_log_is_navigated_with_the_keyboard(nats_server: NatsServer, tmp_path: Path) -> None:
    """Arrow and page keys and Home select lines, Enter toggles details, and End follows the newest line."""

    async def work() -> None:
        past = [log(f"line {number:03}") for number in range(300)]
        async with open_desk(nats_server, tmp_path, *past) as desk:
            page = desk.page
            selected = page.locator('#feed .row[aria-selected="true"] .row-message')
            await expect(desk.line("line 299")).to_be_in_viewport()
            await page.locator("#feed").focus()
            await page.keyboard.press("ArrowUp")
            await expect(selected).to_have_text("line 299")
            await page.keyboard.press("ArrowUp")
            await expect(selected).to_have_text("line 298")
            await page.keyboard.press("PageUp")
            await expect(selected).not_to_have_text("line 298")
            await page.keyboard.press("PageDown")
            await expect(selected).to_have_text("line 298")
            await page.keyboard.press("Home")
            await expect(selected).to_have_text("line 000")
            await expect(selected).to_be_in_viewport()
            await page.keyboard.press("ArrowDown")
            await page.keyboard.press("Enter")
            await expect(page.locator("#details-body .detail-message")).to_have_text("line 001")
            opened = page.locator("#feed .row[aria-expanded='true']")
            await expect(opened.locator(".row-message")).to_have_text("line 001")
            await page.keyboard.press("Enter")
            await expect(page.locator("#details-body")).to_have_count(0)
            await desk.log("the newest")
            await expect(page.locator("#jump")).to_have_text("1 newer ↓")
            await page.keyboard.press("End")
            await expect(desk.line("the newest")).to_be_in_viewport()
            await expect(page.locator("#jump")).to_be_hidden()
            await expect(selected).to_have_count(0)
            await desk.log("newer still")
            await expect(desk.line("newer still")).to_be_in_viewport()

    run(work())


def test_an_open_line_shows_its_traceback(nats_server: NatsServer, tmp_path: Path) -> None:
    """Tracebacks keep their line breaks, metadata is listed, markup is escaped; the line can be copied."""
    trace = (
        "Traceback (most recent call last):\n  File 'desk.py', line 7\nOSError: <img src=x onerror=alert(1)>"
    )

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = desk.page
            await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            await publish(desk, log("send failed", "ERROR", exception=trace, order={"id": 7, "legs": [1, 2]}))
            await desk.line("send failed").click()
            body = page.locator("#details-body")
            await expect(body.locator(".trace pre")).to_have_text(trace)
            await expect(body.locator("dd").last).to_contain_text('"legs": [')
            assert await page.locator("#feed img").count() == 0
            await body.get_by_role("button", name="Copy line").click()
            await expect(body.get_by_role("button", name="Copied")).to_be_visible()
            copied = await page.evaluate("navigator.clipboard.readText()")
            assert " ERROR desk send failed\nTraceback" in copied
            await page.keyboard.press("Escape")
            await expect(body).to_have_count(0)
            assert desk.errors == []

    run(work())
