"""Probe ``icmp``: one echo request, from an unprivileged socket.

Linux grants such sockets to the groups in ``net.ipv4.ping_group_range``. Without it, a raw socket is tried,
which needs CAP_NET_RAW.
"""

import asyncio
import errno
import os
import socket
import sys
import time
from typing import Final, Literal

from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import CannotProbe, answered
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.monitor.types import Host, PositiveDuration

from tickertape.net.outgoing import resolve

PAYLOAD_BYTES: Final = 32
"""Bytes of data in a request, random ones that identify its reply."""

MAX_PACKET_BYTES: Final = 2 * 1024
"""Bytes read of a packet."""

_REQUESTS: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLIES: Final = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOLS: Final = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_HEADER_BYTES: Final = 8


class IcmpProbe(ProbeSettings):
    """Echo request that the host must answer."""

    target = "address"
    kind: Literal["icmp"]
    address: Host
    """Name or IP address, without a port."""
    degraded_above: PositiveDuration | None = None

    @property
    def host(self) -> str:
        return self.address

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        async with asyncio.timeout(time_limit):
            failure: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            for family, _, _, _, address in await resolve(self.address, 0):
                try:
                    await _ping(family, address)
                # An address without a route fails immediately; the next one may have a route.
                except OSError as error:
                    failure = error
                else:
                    return answered(clock() - started, self.degraded_above)
        raise failure


async def _ping(family: socket.AddressFamily, address: tuple[str, int]) -> None:
    """Send a request, and wait for its reply.

    Raises:
        OSError: the host cannot be reached; CannotProbe: this process may not send requests.
    """
    loop = asyncio.get_running_loop()
    payload = os.urandom(PAYLOAD_BYTES)
    with _open(family) as sock:
        sock.setblocking(False)
        sock.connect(address)  # does not block without a connection; only a connected socket gets errors
        await loop.sock_sendall(sock, encode_request(family, payload))
        while True:
            packet = await loop.sock_recv(sock, MAX_PACKET_BYTES)
            await asyncio.sleep(0)  # the read itself does not suspend while packets are buffered
            if is_reply(family, packet, payload, raw=sock.type is socket.SOCK_RAW):
                return


def _open(family: socket.AddressFamily) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_DGRAM, _PROTOCOLS[family])
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EPROTONOSUPPORT):
            raise
    try:
        return socket.socket(family, socket.SOCK_RAW, _PROTOCOLS[family])
    except PermissionError:
        raise CannotProbe(
            "this user may not send ICMP requests",
            f"include its group {os.getegid()} in the sysctl net.ipv4.ping_group_range, or grant CAP_NET_RAW",
        ) from None


def encode_request(family: socket.AddressFamily, payload: bytes) -> bytes:
    """Encode an echo request; the kernel sets the identifier of unprivileged sockets, and sums of ICMPv6."""
    head = bytes([_REQUESTS[family], 0, 0, 0]) + os.urandom(2) + b"\0\1"
    if family == socket.AF_INET6:
        return head + payload
    words = memoryview(head + payload).cast("H")
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:2] + total.to_bytes(2, sys.byteorder) + head[4:] + payload


def is_reply(family: socket.AddressFamily, packet: bytes, payload: bytes, *, raw: bool) -> bool:
    """Return whether a packet is the reply to the request with a payload.

    Args:
        family: address family of the socket.
        packet, payload: the packet, and the data of the request.
        raw: whether the socket is raw; one for IPv4 receives packets with their header of IP.
    """
    if raw and family == socket.AF_INET and packet:
        packet = packet[4 * (packet[0] & 0x0F) :]
    return packet[:1] == bytes([_REPLIES[family]]) and packet[_HEADER_BYTES:] == payload
