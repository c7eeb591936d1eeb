"""What one client can take of the acceptor: TLS handshakes, and rejections that it may read."""

import asyncio
import time
from collections import Counter

from tickertape.relay.core.connection_limits import Admission, Limits
from tickertape.relay.transport.acceptor import MAX_ADDRESS_HANDSHAKES, Acceptor


def acceptor() -> Acceptor:
    """Return an acceptor that exempts 127.0.0.1."""
    admission = Admission(Limits(), lambda address: address == "127.0.0.1")
    return Acceptor(admission, time.monotonic, lambda **_: None)


def test_handshakes_of_one_address_take_turns() -> None:
    """However many handshakes an address starts, a bounded number is in progress; others do not wait."""

    async def scenario() -> None:
        one, running, most = acceptor(), Counter[str](), Counter[str]()
        proceed = asyncio.Event()

        async def shake(address: str) -> None:
            async with one.handshake_turn(address):
                running[address] += 1
                most[address] = max(most[address], running[address])
                try:
                    await proceed.wait()
                finally:
                    running[address] -= 1

        addresses = ["192.0.2.1"] * 200 + ["192.0.2.2"] * 3 + ["127.0.0.1"] * 200
        tasks = [asyncio.create_task(shake(address)) for address in addresses]
        await asyncio.sleep(0)
        assert running == {"192.0.2.1": MAX_ADDRESS_HANDSHAKES, "192.0.2.2": 3, "127.0.0.1": 200}
        for task in tasks[:100]:
            task.cancel()
        proceed.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert len([end for end in ended if end is None]) == len(tasks) - 100
        assert most["192.0.2.1"] == MAX_ADDRESS_HANDSHAKES
        assert not one.waiting, "an address without handshakes is forgotten"

    asyncio.run(scenario())


def test_one_address_cannot_deny_the_reason_to_others() -> None:
    """The rejected clients of one address that linger leave room for those of others."""
    one = acceptor()
    lingering = 0
    while one.may_linger("192.0.2.1"):
        one.lingering["192.0.2.1"] += 1
        lingering += 1
    assert 0 < lingering < 48
    assert one.may_linger("192.0.2.2")
    assert one.may_linger("127.0.0.1")
    one.lingering["127.0.0.1"] += 48 - lingering
    assert not one.may_linger("192.0.2.2"), "the pool is bounded"
