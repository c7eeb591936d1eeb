"""The dashboard with the keyboard only.

Every wait is for a state of the page.
"""

import os
from pathlib import Path
from typing import Final

import pytest

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import Page, expect

from tests.support.browser.browser_desk import run
from tests.support.browser.dashboard_scene import LINES, MAIN, TRACE, open_scene

pytestmark = pytest.mark.browser

STOPS: Final = [
    "a.skip",
    "#notify",
    "#sound",
    "#theme",
    "#flow-chart",
    "#group-by",
    f'.tile[data-gateway="{MAIN}"] .tile-name',
    f'.tile[data-gateway="{MAIN}"] .bar',
    "#component-list",
    "#level",
    "#source",
    "#filter",
    "#pause",
    "#feed",
]
"""Tab stops of the page in order."""

FOCUSED: Final = """() => {
  const node = document.activeElement;
  const outlined = (element) => {
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
  };
  const { left, top, right, bottom } = node.getBoundingClientRect();
  return {
    seen: outlined(node) || [node.closest(".tile")].some((tile) => tile && outlined(tile)),
    within: left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight,
  };
}"""
"""Return whether the focused element has a visible outline and is inside the viewport."""


async def expect_tab_to(page: Page, selector: str) -> None:
    """Press Tab, and check that it focuses an element with a visible outline."""
    await page.keyboard.press("Tab")
    await expect(page.locator(selector)).to_be_focused()
    assert await page.evaluate(FOCUSED) == {"seen": True, "within": True}, selector


def test_the_tab_key_reaches_every_control(nats_server: NatsServer, tmp_path: Path) -> None:
    """Tab stops are in page order and visible; a line is selected, opened, copied and closed."""

    async def work() -> None:
        async with open_scene(nats_server, tmp_path) as desk:
            page = desk.page
            await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            for stop in STOPS:
                await expect_tab_to(page, stop)
                if stop.endswith(".bar"):
                    await expect(page.get_by_role("tooltip")).to_contain_text("UNHEALTHY")
                    await page.keyboard.press("ArrowLeft")
                    await expect(page.get_by_role("tooltip")).to_contain_text("HEALTHY")
                if stop == "#filter":
                    await page.keyboard.type(LINES["ERROR"])
                    await expect(page.locator('#feed .row[data-kind="log"]')).to_have_count(1)
                if stop == "#pause":
                    await page.keyboard.press("Space")
                    await expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
            await expect(page.get_by_role("tooltip")).to_be_hidden()
            selected = page.locator('#feed .row[aria-selected="true"]')
            for _ in range(await page.locator("#feed .row").count()):
                await page.keyboard.press("ArrowUp")
                if await selected.get_attribute("data-kind") == "log":
                    break
            await page.keyboard.press("Enter")
            await expect(page.locator("#details-body .trace")).to_contain_text("ConnectionRefusedError")
            await expect_tab_to(page, ".copy-line")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("button", name="Copied")).to_be_visible()
            copied = str(await page.evaluate("navigator.clipboard.readText()"))
            assert copied.endswith(f" ERROR orders {LINES['ERROR']}\n{TRACE}")
            for stop in (".copy-link", ".only-source", ".details-close", "#details-body summary"):
                await expect_tab_to(page, stop)
            await page.keyboard.press("Escape")
            await expect(page.locator("#details-body")).to_have_count(0)
            await expect(page.locator("#feed")).to_be_focused()

    run(work())


def test_the_history_is_usable_with_the_keyboard(nats_server: NatsServer, tmp_path: Path) -> None:
    """Enter on a tile opens the history, Tab enters it, and Esc returns to the tile."""

    async def work() -> None:
        async with open_scene(nats_server, tmp_path) as desk:
            page = desk.page
            tile = STOPS[6]
            for stop in STOPS[:7]:
                await expect_tab_to(page, stop)
            await page.keyboard.press("Enter")
            await expect(page.locator(".past")).to_have_count(12)
            await expect(page.locator(tile)).to_have_attribute("aria-expanded", "true")
            for stop in (
                STOPS[7],
                "#history .history-head button",
                "#history .bar",
                "#history .history-latency",
                "#history .history-rows",
            ):
                await expect_tab_to(page, stop)
            await page.keyboard.press("Escape")
            await expect(page.locator("#history")).to_be_hidden()
            await expect(page.locator(tile)).to_be_focused()
            await page.locator(tile).click()
            await expect(page.locator("#history")).to_be_visible()
            await page.keyboard.press("Escape")
            await expect(page.locator("#history")).to_be_hidden()

    run(work())


def test_the_first_tab_stop_skips_to_the_log(nats_server: NatsServer, tmp_path: Path) -> None:
    """The first tab stop is a link to the log."""

    async def work() -> None:
        async with open_scene(nats_server, tmp_path) as desk:
            await expect_tab_to(desk.page, "a.skip")
            await desk.page.keyboard.press("Enter")
            await expect(desk.page.locator("#feed")).to_be_focused()

    run(work())
