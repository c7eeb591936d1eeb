"""Accessibility of the dashboard: axe-core, small screens and touch targets.

Every wait is for a state of the page.
"""

import os
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from tests.e2e.dashboard.test_token import ENV, token
from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import Page, expect

from tests.support.browser.browser_desk import Desk, missing, open_desk, run
from tests.support.browser.dashboard_scene import LINES, MAIN, open_scene
from tests.support.paths import ROOT

pytestmark = pytest.mark.browser

AXE: Final = ROOT / "contracts" / "typescript" / "node_modules" / "axe-core" / "axe.min.js"

TAGS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

SCHEMES: Final[tuple[Literal["dark", "light"], ...]] = ("dark", "light")
SIZES: Final = {"desktop": (1440, 900), "phone": (390, 844)}

OVERLAPS: Final = """(tile) => {
  const end = tile.getBoundingClientRect().bottom;
  const box = (name) => tile.querySelector(name).getBoundingClientRect();
  const [bar, fault] = [box(".tile-bar"), box(".tile-fault")];
  return [
    fault.top < bar.bottom - 6 && "the fault overlaps the bar",
    fault.bottom > end && "the fault is clipped",
  ].filter(Boolean);
}"""
"""Return the layout errors of a tile."""

FINDINGS: Final = """(tags) => axe.run(document, { runOnly: tags }).then(({ violations }) =>
  violations.flatMap(({ id, impact, help, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${impact} ${id} (${help}), ${target}: ${failureSummary}`)))"""


def axe_source() -> str:
    """Return the source of axe-core; if it is missing, skip the test, or fail it in CI."""
    if not AXE.exists():
        missing(f"needs axe-core; 'npm ci' in {AXE.parents[2].relative_to(ROOT)} brings it")
    return AXE.read_text()


async def scroll_to_first_gap(page: Page) -> None:
    """Scroll down the log from its start until a gap is in view; its position differs between runs."""
    await page.locator("#feed").focus()
    await page.keyboard.press("Home")
    for _ in range(50):
        if await page.locator('#feed .row[data-kind="gap"] button').count() > 0:
            return
        await page.keyboard.press("PageDown")


async def check_axe(page: Page, text: str, state: str) -> None:
    """Run axe-core on the page in both colour schemes.

    The browser evaluates the source itself, which the page's content security policy does not affect.
    """
    if await page.evaluate("typeof axe") == "undefined":
        await page.evaluate(text)
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        findings = await page.evaluate(FINDINGS, TAGS)
        assert findings == [], f"{state}, {scheme}:\n" + "\n".join(findings)


async def check_all_states(desk: Desk, text: str) -> None:
    """Run axe-core in each state of the page."""
    page = desk.page
    await check_axe(page, text, "everything")
    await page.locator("#group-by").select_option("group")
    await expect(page.locator(".group-head").first).to_be_visible()
    for level in ("CRITICAL", "ERROR"):
        await desk.line(LINES[level]).last.click()
        await expect(page.locator("#details-body .detail-message")).to_have_text(LINES[level])
        await page.locator("#details-body summary").click()
        await check_axe(page, text, f"an open {level} line, and groups")
        await page.keyboard.press("Escape")
    await page.locator("#pause").click()
    await scroll_to_first_gap(page)
    await expect(page.locator('#feed [aria-selected="true"]')).to_be_visible()
    await expect(page.locator('#feed .row[data-kind="gap"]').first).to_be_visible()
    await check_axe(page, text, "paused, the first line selected, a gap")
    await page.locator("#pause").click()
    await desk.tile(MAIN).locator("button").focus()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("tooltip")).to_be_visible()
    await check_axe(page, text, "the tooltip of a state")
    await desk.tile(MAIN).locator("button").press("Enter")
    await expect(page.locator(".past")).to_have_count(12)
    await check_axe(page, text, "a history")
    await page.keyboard.press("Escape")
    await page.locator("#filter").fill("matches nothing")
    await expect(page.locator('#feed .row[data-kind="log"]')).to_have_count(0)
    await check_axe(page, text, "no line matches the filter")
    await page.keyboard.press("Escape")
    await desk.relay.stop()
    await expect(page.locator("#banner")).to_be_visible()
    await check_axe(page, text, "disconnected")


@pytest.mark.parametrize("size", SIZES)
def test_axe_reports_nothing(nats_server: NatsServer, tmp_path: Path, size: str) -> None:
    """axe-core reports no violation in any state of the page."""
    text = axe_source()

    async def work() -> None:
        async with open_scene(nats_server, tmp_path) as desk:
            width, height = SIZES[size]
            await desk.page.set_viewport_size({"width": width, "height": height})
            await check_all_states(desk, text)

    run(work())


@pytest.mark.parametrize("size", SIZES)
def test_axe_reports_nothing_on_the_token_prompt(nats_server: NatsServer, tmp_path: Path, size: str) -> None:
    """axe-core reports no violation on the token prompt, before and after a rejected token."""
    text = axe_source()

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env=ENV) as desk:
            width, height = SIZES[size]
            page = desk.page
            await page.set_viewport_size({"width": width, "height": height})
            await desk.visit("/")
            await expect(page.locator("#token-form")).to_be_visible()
            await check_axe(page, text, "the prompt")
            await page.locator("#token").fill("nonsense")
            await page.locator("#token").press("Enter")
            await expect(page.locator("#banner-headline")).to_have_text("Token rejected")
            await check_axe(page, text, "a rejected token")

    run(work())


WIDTHS: Final = (320, 390, 768)

MIN_TARGET_PX: Final = 24
"""Minimum width and height of a touch target in pixels (WCAG 2.2, 2.5.8)."""

CONTROLS: Final = "button, input, select, summary, a[href], [role=slider][tabindex='0']"


async def check_no_overflow(page: Page, state: str) -> None:
    """Check that the page does not scroll sideways and that no control overflows it."""
    width = await page.evaluate("innerWidth")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width, state
    assert await page.evaluate("document.body.scrollWidth") <= width, state
    for box in await visible_controls(page):
        within = box["x"] >= 0 and box["x"] + box["width"] <= width
        assert within, f"{state}, {width} px: {box['html']}"


VISIBLE: Final = """(controls) => [...document.querySelectorAll(controls)]
    .filter((node) => node.checkVisibility({ visibilityProperty: true }))
    .map((node) => ({ box: node.getBoundingClientRect().toJSON(), html: node.outerHTML }))
    .filter(({ box }) => box.width > 0 && box.height > 0)
    .map(({ box, html }) => ({ ...box, html }))"""


async def visible_controls(page: Page) -> list[Any]:
    """Return the boxes of all visible controls, read in one step because controls come and go."""
    findings: list[Any] = await page.evaluate(VISIBLE, CONTROLS)
    assert findings
    return findings


async def check_target_sizes(page: Page, state: str) -> None:
    """Check that every control is large enough to touch."""
    for box in await visible_controls(page):
        assert min(box["width"], box["height"]) >= MIN_TARGET_PX, f"{state}: {box}"


def test_the_page_fits_on_a_phone(nats_server: NatsServer, tmp_path: Path) -> None:
    """Nothing overflows at any width, controls are large enough to touch, and selects have visible labels."""

    async def work() -> None:
        async with open_scene(nats_server, tmp_path) as desk:
            page = desk.page

            async def check(state: str) -> None:
                for width in WIDTHS:
                    await page.set_viewport_size({"width": width, "height": 844})
                    await check_no_overflow(page, state)
                await page.set_viewport_size({"width": 390, "height": 844})
                await check_target_sizes(page, state)

            await check("everything")
            await expect(desk.tile(MAIN).locator(".tile-fault")).to_be_visible()
            assert await desk.tile(MAIN).evaluate(OVERLAPS) == []
            for label in ("Group by", "Level"):
                await expect(page.locator(".field-name", has_text=label)).to_be_visible()
                await expect(page.locator(".field", has_text=label).locator("select")).to_be_visible()
            await scroll_to_first_gap(page)
            await expect(page.locator('#feed .row[data-kind="gap"] button').first).to_be_visible()
            await check("a gap")
            await page.keyboard.press("Escape")
            await desk.line(LINES["ERROR"]).last.click()
            await expect(page.locator("#details-body summary")).to_be_visible()
            await check("an open line")
            await page.keyboard.press("Escape")
            await desk.tile(MAIN).locator("button").click()
            await expect(page.locator(".past")).to_have_count(12)
            await check("a history")
            await page.locator("#history").get_by_role("button", name="Close").click()
            await desk.relay.stop()
            await expect(page.locator("#retry")).to_be_visible()
            await check("disconnected")

    run(work())


def test_the_token_prompt_fits_on_a_phone(nats_server: NatsServer, tmp_path: Path) -> None:
    """The form and the button that forgets the token fit at any width."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env=ENV) as desk:
            await desk.visit("/")
            await expect(desk.page.locator("#token-form")).to_be_visible()
            for state in ("the prompt", "a token"):
                for width in WIDTHS:
                    await desk.page.set_viewport_size({"width": width, "height": 844})
                    await check_no_overflow(desk.page, state)
                await desk.page.set_viewport_size({"width": 390, "height": 844})
                await check_target_sizes(desk.page, state)
                if state == "the prompt":
                    # Expires on another day, which is the longest text that the header shows.
                    await desk.page.locator("#token").fill(token(2 * 86_400))
                    await desk.page.locator("#token").press("Enter")
                    await expect(desk.page.locator("#token-forget")).to_be_visible()
                    await desk.live()
                    await expect(desk.page.locator("#banner")).to_be_hidden()

    run(work())
