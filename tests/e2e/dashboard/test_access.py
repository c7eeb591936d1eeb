"""The dashboard for everyone: what axe-core finds, what fits on a phone, what the keyboard reaches.

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
  return [fault.top < bar.bottom - 6 && "the fault covers the bar", fault.bottom > end && "the fault is cut"]
    .filter(Boolean);
}"""
"""What of a tile stands where it should not."""

FINDINGS: Final = """(tags) => axe.run(document, { runOnly: tags }).then(({ violations }) =>
  violations.flatMap(({ id, impact, help, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${impact} ${id} (${help}), ${target}: ${failureSummary}`)))"""


def axe() -> str:
    """The text of axe-core; a test that has none is skipped, but not in CI."""
    if not AXE.exists():
        missing(f"needs axe-core; 'npm ci' in {AXE.parents[2].relative_to(ROOT)} brings it")
    return AXE.read_text()


async def to_the_first_gap(page: Page) -> None:
    """Walk down the log from its beginning until a gap is there; how far differs from run to run."""
    await page.locator("#feed").focus()
    await page.keyboard.press("Home")
    for _ in range(50):
        if await page.locator('#feed .row[data-kind="gap"] button').count() > 0:
            return
        await page.keyboard.press("PageDown")


async def no_findings(page: Page, text: str, where: str) -> None:
    """Look at the page as it is now, in both colour schemes.

    The text is evaluated by the browser itself, past the page's policy.
    """
    if await page.evaluate("typeof axe") == "undefined":
        await page.evaluate(text)
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = await page.evaluate(FINDINGS, TAGS)
        assert found == [], f"{where}, {scheme}:\n" + "\n".join(found)


async def looked_at(desk: Desk, text: str) -> None:
    """Bring the page into all its states, and look at each."""
    page = desk.page
    await no_findings(page, text, "everything")
    await page.locator("#group-by").select_option("group")
    await expect(page.locator(".group-head").first).to_be_visible()
    for level in ("CRITICAL", "ERROR"):
        await desk.line(LINES[level]).last.click()
        await expect(page.locator("#details-body .detail-message")).to_have_text(LINES[level])
        await page.locator("#details-body summary").click()
        await no_findings(page, text, f"an open line, {level}, and groups")
        await page.keyboard.press("Escape")
    await page.locator("#pause").click()
    await to_the_first_gap(page)
    await expect(page.locator('#feed [aria-selected="true"]')).to_be_visible()
    await expect(page.locator('#feed .row[data-kind="gap"]').first).to_be_visible()
    await no_findings(page, text, "paused, the first line chosen, a gap")
    await page.locator("#pause").click()
    await desk.tile(MAIN).locator("button").focus()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("tooltip")).to_be_visible()
    await no_findings(page, text, "the tip of a state")
    await desk.tile(MAIN).locator("button").press("Enter")
    await expect(page.locator(".past")).to_have_count(12)
    await no_findings(page, text, "a history")
    await page.keyboard.press("Escape")
    await page.locator("#filter").fill("matches nothing")
    await expect(page.locator('#feed .row[data-kind="log"]')).to_have_count(0)
    await no_findings(page, text, "nothing passes the filter")
    await page.keyboard.press("Escape")
    await desk.relay.stop()
    await expect(page.locator("#banner")).to_be_visible()
    await no_findings(page, text, "disconnected")


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing(nats_server: NatsServer, tmp_path: Path, size: str) -> None:
    """Not on the full page, nor on an open line, a history, a tip, a gap, or without the relay."""
    text = axe()

    async def work() -> None:
        async with open_scene(nats_server, tmp_path) as desk:
            width, height = SIZES[size]
            await desk.page.set_viewport_size({"width": width, "height": height})
            await looked_at(desk, text)

    run(work())


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_in_the_question_for_a_token(
    nats_server: NatsServer, tmp_path: Path, size: str
) -> None:
    """Neither in the question, nor in the answer to a wrong token."""
    text = axe()

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env=ENV) as desk:
            width, height = SIZES[size]
            page = desk.page
            await page.set_viewport_size({"width": width, "height": height})
            await desk.visit("/")
            await expect(page.locator("#token-form")).to_be_visible()
            await no_findings(page, text, "the question")
            await page.locator("#token").fill("nonsense")
            await page.locator("#token").press("Enter")
            await expect(page.locator("#banner-headline")).to_have_text("Token rejected")
            await no_findings(page, text, "a wrong token")

    run(work())


WIDTHS: Final = (320, 390, 768)

SMALLEST: Final = 24
"""Pixels that a finger needs at least, each way (WCAG 2.2, 2.5.8)."""

CONTROLS: Final = "button, input, select, summary, a[href], [role=slider][tabindex='0']"


async def nothing_sticks_out(page: Page, where: str) -> None:
    """The page scrolls to no side, and no control stands beyond its edges."""
    width = await page.evaluate("innerWidth")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width, where
    assert await page.evaluate("document.body.scrollWidth") <= width, where
    for box in await shown(page):
        within = box["x"] >= 0 and box["x"] + box["width"] <= width
        assert within, f"{where}, {width} px: {box['html']}"


SHOWN: Final = """(controls) => [...document.querySelectorAll(controls)]
    .filter((node) => node.checkVisibility({ visibilityProperty: true }))
    .map((node) => ({ box: node.getBoundingClientRect().toJSON(), html: node.outerHTML }))
    .filter(({ box }) => box.width > 0 && box.height > 0)
    .map(({ box, html }) => ({ ...box, html }))"""


async def shown(page: Page) -> list[Any]:
    """Boxes of all controls that a reader can get at, in one moment: a control may go as a state changes."""
    found: list[Any] = await page.evaluate(SHOWN, CONTROLS)
    assert found
    return found


async def fit_for_fingers(page: Page, where: str) -> None:
    """Every control is large enough."""
    for box in await shown(page):
        assert min(box["width"], box["height"]) >= SMALLEST, f"{where}: {box}"


def test_a_phone_shows_all_of_it(nats_server: NatsServer, tmp_path: Path) -> None:
    """Nothing sticks out at any width, every control is fit for a finger, every choice says what it is of."""

    async def work() -> None:
        async with open_scene(nats_server, tmp_path) as desk:
            page = desk.page

            async def check(where: str) -> None:
                for width in WIDTHS:
                    await page.set_viewport_size({"width": width, "height": 844})
                    await nothing_sticks_out(page, where)
                await page.set_viewport_size({"width": 390, "height": 844})
                await fit_for_fingers(page, where)

            await check("everything")
            await expect(desk.tile(MAIN).locator(".tile-fault")).to_be_visible()
            assert await desk.tile(MAIN).evaluate(OVERLAPS) == []
            for label in ("Group by", "Level"):
                await expect(page.locator(".field-name", has_text=label)).to_be_visible()
                await expect(page.locator(".field", has_text=label).locator("select")).to_be_visible()
            await to_the_first_gap(page)
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


def test_a_phone_shows_all_of_the_question_for_a_token(nats_server: NatsServer, tmp_path: Path) -> None:
    """The form fits at any width, and so does the button that forgets the token."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env=ENV) as desk:
            await desk.visit("/")
            await expect(desk.page.locator("#token-form")).to_be_visible()
            for state in ("the question", "a token"):
                for width in WIDTHS:
                    await desk.page.set_viewport_size({"width": width, "height": 844})
                    await nothing_sticks_out(desk.page, state)
                await desk.page.set_viewport_size({"width": 390, "height": 844})
                await fit_for_fingers(desk.page, state)
                if state == "the question":
                    # That ends on another day: the longest thing that is ever said of it.
                    await desk.page.locator("#token").fill(token(2 * 86_400))
                    await desk.page.locator("#token").press("Enter")
                    await expect(desk.page.locator("#token-forget")).to_be_visible()
                    await desk.live()
                    await expect(desk.page.locator("#banner")).to_be_hidden()

    run(work())
