"""Screenshots of the dashboard in ``tests/e2e/artefacts``, for visual reviews.

They are not compared, because fonts differ between machines; each only has to have the right size and not
to be empty. Git ignores the folder, and ``make clean`` removes it.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import pytest
from tickertape.contracts.events import Status

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import Page, expect

from tests.support.browser.browser_desk import open_desk, run
from tests.support.browser.dashboard_scene import LINES, MAIN, change, open_scene
from tests.support.paths import ROOT

pytestmark = pytest.mark.browser

FOLDER: Final = ROOT / "tests" / "e2e" / "artefacts"
DESKTOP: Final = (1440, 900)
PHONE: Final = (390, 844)
MANY: Final = 1_000
MIN_ROWS: Final = 100
"""Minimum number of distinct pixel rows in a screenshot; an empty page has only a few."""


async def picture(page: Page, name: str, size: tuple[int, int], **media: Any) -> None:
    """Take a screenshot, check its size and content, and print its path."""
    width, height = size
    await page.set_viewport_size({"width": width, "height": height})
    await page.emulate_media(reduced_motion="reduce", **media)
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{name}.png"
    await page.screenshot(path=file)
    measured, rows = read_png(file.read_bytes())
    assert measured == size, file
    assert rows > MIN_ROWS, f"{file} is nearly empty: {rows} distinct rows"
    print(file.relative_to(ROOT))


def read_png(data: bytes) -> tuple[tuple[int, int], int]:
    """Return the size of a PNG and its number of distinct rows (chunk layout: RFC 2083, 3)."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    packed, offset = b"", 8
    width = height = 0
    while offset < len(data):
        length, kind = struct.unpack(">I4s", data[offset : offset + 8])
        content = data[offset + 8 : offset + 8 + length]
        if kind == b"IHDR":
            width, height = struct.unpack(">II", content[:8])
        elif kind == b"IDAT":
            packed += content
        offset += length + 12
    rows = zlib.decompress(packed)
    step = len(rows) // height
    return (width, height), len({rows[at : at + step] for at in range(0, len(rows), step)})


def test_pictures_of_the_page(nats_server: NatsServer, tmp_path: Path) -> None:
    """Take screenshots in both themes and sizes, of details and a history, and without the relay."""

    async def work() -> None:
        async with open_scene(nats_server, tmp_path) as desk:
            page = desk.page
            await picture(page, "light", DESKTOP, color_scheme="light")
            await picture(page, "dark", DESKTOP, color_scheme="dark")
            await picture(page, "phone", PHONE, color_scheme="light")
            await desk.line(LINES["ERROR"]).last.click()
            await expect(page.locator("#details-body")).to_be_visible()
            await picture(page, "phone-line", PHONE, color_scheme="dark")
            await page.keyboard.press("Escape")
            await picture(page, "phone-dark", PHONE, color_scheme="dark")
            await desk.tile(MAIN).locator("button").click()
            await expect(page.locator(".past")).to_have_count(12)
            await picture(page, "history", DESKTOP, color_scheme="dark")
            await page.locator("#history").get_by_role("button", name="Close").click()
            await desk.relay.stop()
            await expect(page.locator("#banner")).to_be_visible()
            await picture(page, "disconnected", DESKTOP, color_scheme="light")
            await picture(page, "phone-disconnected", PHONE, color_scheme="light")

    run(work())


def test_a_picture_of_a_thousand_gateways(nats_server: NatsServer, tmp_path: Path) -> None:
    """Take a screenshot of a thousand gateways grouped by type."""
    statuses = [Status.HEALTHY] * 40 + [
        Status.DEGRADED,
        Status.UNHEALTHY,
        Status.RECOVERING,
        Status.OFF_SESSION,
    ]
    past = [
        change(
            f"gw-{number:04}",
            Status.UNKNOWN,
            statuses[number % len(statuses)],
            ("ctp", "fix", "xtp")[number % 3],
            latency_ms=1 + number % 90,
        )
        for number in range(MANY)
    ]

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, *past) as desk:
            await expect(desk.page.locator(".tile[data-status]")).to_have_count(MANY)
            await desk.page.locator("#group-by").select_option("type")
            await expect(desk.page.locator(".group-head").first).to_be_visible()
            await expect(desk.page.locator(".tile").first.locator(".cell")).to_have_count(1)
            await picture(desk.page, "thousand", DESKTOP, color_scheme="dark")

    run(work())
