"""A name server of one zone, over UDP and TCP."""

import contextlib
from collections.abc import Iterator
from typing import Any

from dnslib import QTYPE, RR, DNSRecord
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from tests.support.servers.nats_server import free_port

ZONE = """
gw.test. 60 IN A 10.0.0.1
gw.test. 60 IN A 10.0.0.2
gw.test. 60 IN AAAA fd00::1
gw.test. 60 IN MX 10 mail.gw.test.
www.gw.test. 60 IN CNAME gw.test.
www.gw.test. 60 IN A 10.0.0.1
gw.test. 60 IN TXT "v=spf1 -all"
"""
RECORDS = RR.fromZone(ZONE)


class Zone(BaseResolver):  # type: ignore[misc]
    """Resolver of the zone above."""

    def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
        """Answer a query."""
        reply = request.reply()
        name = str(request.q.qname).lower()
        if name == "refused.test.":
            reply.header.rcode = 5
        elif name == "large.test.":
            for number in range(200):
                reply.add_answer(*RR.fromZone(f"large.test. 60 IN TXT {'x' * 50}{number}"))
        elif not any(str(record.rname) == name for record in RECORDS):
            reply.header.rcode = 3
        for record in RECORDS:
            if str(record.rname) == name and record.rtype in (request.q.qtype, QTYPE.CNAME):
                reply.add_answer(record)
        return reply


@contextlib.contextmanager
def dns_server() -> Iterator[int]:
    """Run the server over UDP and TCP on one port; yield the port."""
    port, quiet = free_port(), DNSLogger("-request,-reply,-truncated,-error,-recv,-send,-data")
    servers = [
        DNSServer(Zone(), address="127.0.0.1", port=port, tcp=tcp, logger=quiet) for tcp in (False, True)
    ]
    for server in servers:
        server.start_thread()
    try:
        yield port
    finally:
        for server in servers:
            server.stop()
            server.server.server_close()
