"""Syslog over the network: real senders, kills, floods and bad frames."""

import asyncio
import re
import socket
import ssl
import sys
from pathlib import Path

import pytest
import trustme
from tickertape.producers.shipper.syslog.addresses import SyslogAddress
from tickertape.producers.shipper.syslog.receiver import SyslogReceiver

from tests.support.clients.shipped import listening
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.rsyslog import needs_rsyslog, rsyslog
from tests.support.servers.nats_server import free_port
from tickertape.process.tasks import Tasks

BAD = {
    "a frame of 2 GB": b"2147483648 <3>x",
    "binary": bytes(range(256)) * 4 + b"\n",
    "no priority": b"no priority\n",
    "an endless line": b"x" * 1_000_000,
    "half a frame": b"100 <3>half",
    "nothing": b"",
}


class Shipper:
    """Shipper process that receives syslog.

    Args:
        url, prefix: NATS and the deployment.
        folder: its state.
        options: further options.
    """

    def __init__(self, url: str, prefix: str, folder: Path, *options: str) -> None:
        self._argv = [
            sys.executable, "-m", "tickertape", "ship", "--nats-url", url, "--subject-prefix", prefix,
            "--state-dir", str(folder / "state"), *options,
        ]  # fmt: skip

    async def start(self) -> None:
        """Start it; return when it receives."""
        self._process = await asyncio.create_subprocess_exec(*self._argv, stderr=asyncio.subprocess.PIPE)
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while b"receiving syslog on" not in (line := await self._process.stderr.readline()):
                assert line, "it ended"
        self._reading = asyncio.create_task(self._process.stderr.read())

    async def end(self, *, kill: bool = False) -> str:
        """End it; return what it printed meanwhile."""
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        output = await self._reading
        await self._process.wait()
        return output.decode()


def documented_action() -> str:
    """Return the parameters of the action of rsyslog in docs/sources/syslog.md."""
    found = re.search(r"\naction\((.+?)\)\n", (ROOT / "docs/sources/syslog.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def send(kind: str, port: int, data: bytes, context: ssl.SSLContext | None = None) -> socket.socket:
    """Send data over a new connection, which stays open."""
    if kind == "udp":
        sender = socket.socket(type=socket.SOCK_DGRAM)
        sender.connect(("127.0.0.1", port))
    else:
        sender = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    if context is not None:
        sender = context.wrap_socket(sender, server_hostname="127.0.0.1")
    sender.sendall(data)
    return sender


@pytest.mark.parametrize("kind", ["udp", "tcp", "tls"])
def test_messages_become_events(kind: str, nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Level, source and time are those of the message, over each transport."""
    port, context, options = free_port(), None, []
    if kind == "tls":
        authority = trustme.CA()
        leaf = authority.issue_cert("127.0.0.1")
        leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        authority.issue_cert("sender@x.example").private_key_and_cert_chain_pem.write_to_path(
            tmp_path / "c.pem"
        )
        context.load_cert_chain(tmp_path / "c.pem")
        options = [
            "--syslog-cert",
            str(tmp_path / "cert.pem"),
            "--syslog-client-ca",
            str(tmp_path / "ca.pem"),
        ]
    messages = [
        b'<27>1 2025-06-24T10:30:45.123Z gw1 oms 77 ID4 [desk@1 region="eu"] slow ack',
        b"<163>Jun 24 10:30:46 gw1 ctp[9]: link lost",
        b"<14>two\nlines",
    ]
    data = b"".join(b"%d %b" % (len(message), message) for message in messages)

    async def main() -> None:
        shipper = Shipper(nats_url, nats_prefix, tmp_path, "--syslog", f"{kind}://127.0.0.1:{port}", *options)
        async with listening(nats_url, nats_prefix) as shipped:
            await shipper.start()
            try:
                if kind == "udp":
                    senders = [send(kind, port, message) for message in messages]
                else:
                    senders = [await asyncio.to_thread(send, kind, port, data, context)]
                await shipped.until(3)
                for sender in senders:
                    sender.close()
            finally:
                await shipper.end()
            found = [(event["level"], event["source"], event["message"]) for event in shipped.events]
            assert found == [
                ("ERROR", "oms", "slow ack"),
                ("ERROR", "ctp", "link lost"),
                ("INFO", "syslog", "two#012lines"),
            ]  # fmt: skip
            assert shipped.events[0]["timestamp"] == "2025-06-24T10:30:45.123Z"

    asyncio.run(main())


@needs_rsyslog
def test_kills_lose_nothing_over_relp(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """What rsyslog forwards over RELP arrives although the shipper is killed, at least once."""
    port, total, step = free_port(), 6_000, 1_000
    lines = [f"line {number}" for number in range(total)]

    async def main() -> list[str]:
        shipper = Shipper(nats_url, nats_prefix, tmp_path, "--syslog", f"relp://127.0.0.1:{port}")
        async with listening(nats_url, nats_prefix) as shipped:
            await shipper.start()
            action = documented_action().replace('port="2514"', f'port="{port}" timeout="5"')
            with rsyslog(tmp_path, action) as sender:
                for start in range(0, total, step):
                    sender.append(lines[start : start + step])
                    await shipped.until(start + step // 2)
                    if start % (3 * step) == step:
                        # After SIGKILL, what its queue has not written to the disk would be lost there.
                        sender.stop()
                        sender.start()
                    else:
                        await shipper.end(kill=True)
                        await shipper.start()
                try:
                    async with asyncio.timeout(PATIENCE):
                        while set(shipped.messages) != set(lines):
                            await shipped.until(len(shipped.messages) + 1)
                except TimeoutError:
                    missing = sorted(set(lines) - set(shipped.messages), key=lines.index)
                    raise AssertionError(f"{len(missing)} lines are missing: {missing[:3]}") from None
            await shipper.end()
            assert {event["level"] for event in shipped.events} == {"WARN"}
            assert {event["source"] for event in shipped.events} == {"app"}
            return shipped.messages

    messages = asyncio.run(main())
    assert len(messages) < 2 * total


@needs_rsyslog
def test_rsyslog_forwards_over_tcp(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Every line arrives once and in order, in the format that rsyslog forwards by default."""
    port, lines = free_port(), [f"line {number}" for number in range(2_000)]

    async def main() -> None:
        shipper = Shipper(nats_url, nats_prefix, tmp_path, "--syslog", f"tcp://127.0.0.1:{port}")
        async with listening(nats_url, nats_prefix) as shipped:
            await shipper.start()
            action = f'type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp"'
            with rsyslog(tmp_path, action) as sender:
                sender.append(lines)
                await shipped.until(len(lines))
            await shipper.end()
            assert shipped.messages == lines

    asyncio.run(main())


def test_bad_frames_disturb_no_other_sender(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Whatever senders write, the messages of another one arrive, over each transport."""
    ports = {kind: free_port() for kind in ("udp", "tcp", "relp")}
    options = [f"--syslog={kind}://127.0.0.1:{port}" for kind, port in ports.items()]

    async def main() -> str:
        shipper = Shipper(nats_url, nats_prefix, tmp_path, *options)
        async with listening(nats_url, nats_prefix) as shipped:
            await shipper.start()
            good = send("tcp", ports["tcp"], b"<11>before\n")
            bad = [
                await asyncio.to_thread(send, kind, port, data[: 60_000 if kind == "udp" else None])
                for kind, port in ports.items()
                for data in BAD.values()
            ]
            async with asyncio.timeout(PATIENCE):
                while not {"before", "no priority"} <= set(shipped.messages):
                    await shipped.until(len(shipped.messages) + 1)
            good.sendall(b"<11>after\n")
            async with asyncio.timeout(PATIENCE):
                while "after" not in shipped.messages:
                    await shipped.until(len(shipped.messages) + 1)
            for sender in (good, *bad):
                sender.close()
            return await shipper.end()

    output = asyncio.run(main())
    assert "syslog from 127.0.0.1: a frame of 2147483648 bytes is longer than 262144" in output
    assert "Traceback" not in output


def test_lost_datagrams_are_counted() -> None:
    """Datagrams that the kernel drops while nothing reads them are reported with their number."""
    total, reports = 4_000, list[str]()

    async def main() -> None:
        receiver = SyslogReceiver(reports.append)
        async with Tasks() as tasks:
            (bound,) = receiver.open([SyslogAddress("udp", "127.0.0.1", 0)], None, tasks)
            port = int(bound.rpartition(":")[2])
            with socket.socket(type=socket.SOCK_DGRAM) as sender:
                sender.connect(("127.0.0.1", port))
                for number in range(total):
                    sender.send(b"<13>%d %b" % (number, b"x" * 8_000))
                received = 0
                async with asyncio.timeout(PATIENCE):
                    while received + receiver.dropped < total:
                        # The next datagram tells how many were dropped before it.
                        sender.send(b"<13>last")
                        await receiver.wait()
                        data = receiver.read() or b""
                        receiver.confirm()
                        received += data.count(b"x\n")
                assert received + receiver.dropped == total
                assert receiver.dropped > 0
            receiver.close()

    asyncio.run(main())
    assert "datagrams were lost so far" in reports[0]
