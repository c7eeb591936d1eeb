"""Clients of many addresses that request pages of history and read none of them."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tickertape.contracts.events import SystemLog

from tests.integration.attacks.conftest import Deploy
from tests.integration.attacks.test_attack_frames import MEGABYTE, peak
from tests.support.clients.attacker import read_all
from tests.support.clients.feed_client import PATIENCE, jetstream, publish, run
from tests.support.programs.deployment import Deployment

PAGES = 60
CAPACITY = 120 * MEGABYTE
"""Bytes by which the attack may increase the peak memory: 64 MiB of pages, and what they are read from."""

REQUEST = b"GET /events?since=earliest&limit=1000 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def relay(deploy: Deploy, prefix: str) -> Iterator[Deployment]:
    """Run a relay whose pages are as large as they can be."""

    async def fill(url: str) -> None:
        async with jetstream(url) as js:
            for _ in range(20):
                await publish(js, SystemLog.model_validate({
                    "level": "INFO", "source": "x", "message": "x", "metadata": {"text": "x" * 250_000},
                }), f"{prefix}.")  # fmt: skip

    with deploy() as running:
        run(fill(running.nats_url))
        yield running


@pytest.mark.deployments("plain", "workers", "mounted")
def test_pages_that_are_not_read_are_bounded(relay: Deployment) -> None:
    """However many clients do not read their pages, memory is bounded, and another client gets its page."""
    before = peak(relay)
    with ExitStack() as stack:
        for number in range(PAGES):
            link = stack.enter_context(relay.connect(f"127.0.1.{number // 4 + 1}"))
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.sendall(REQUEST)
        run(asyncio.to_thread(_read_page, relay))
        grown = peak(relay) - before
    assert grown < CAPACITY


def _read_page(relay: Deployment) -> None:
    """Request a page until it arrives.

    Raises:
        TimeoutError: it does not arrive in time.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with relay.connect("127.0.0.9") as link:
            link.sendall(REQUEST)
            answer = read_all(link)
        if answer.startswith(b"HTTP/1.1 200"):
            assert len(answer) > 4 * MEGABYTE
            return
        assert answer.startswith(b"HTTP/1.1 503")
        assert re.search(rb"(?i)\r\nretry-after: 1\r\n", answer)
    raise TimeoutError("no page arrived")
