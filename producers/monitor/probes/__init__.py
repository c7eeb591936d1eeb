"""The probes: one look at a gateway, each with a hard limit of time.

Invariants:

1. ``run`` always returns within the probe's limit; what goes wrong out there is a result, no exception.
2. Nothing that a peer sends can make it hold more than a named bound of memory.
3. Every connection is closed and every process gone when ``run`` returns.
"""

import asyncio
import ssl

import h11
from tickertape.producers.monitor.config.models import Check
from tickertape.producers.monitor.config.probes import (
    ExecProbe,
    FixProbe,
    FreshnessProbe,
    HttpProbe,
    TcpProbe,
    TlsProbe,
    WebSocketProbe,
)
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes import exec, fix, freshness, http, tcp, tls, websocket
from tickertape.producers.monitor.probes.context import Kit
from tickertape.producers.monitor.probes.result import describe, failed

__all__ = ["Kit", "run"]


async def run(check: Check, kit: Kit) -> Result | None:
    """Probe once.

    Args:
        check: ``timeout`` is for connecting and answering; ``hold`` comes on top.
        kit: what probes remember.

    Returns:
        what was found; None when there is nothing to judge by: a log-in over its cap, or a subject that is
        not listened to for long enough.
    """
    probe, limit = check.probe, check.timeout
    try:
        match probe:
            case TcpProbe():
                return await tcp.look(probe, limit)
            case TlsProbe():
                return await tls.look(probe, limit)
            case HttpProbe():
                return await http.look(probe, limit)
            case WebSocketProbe():
                return await websocket.look(probe, limit)
            case FixProbe():
                return await fix.look(probe, kit.logons, limit)
            case FreshnessProbe():
                return freshness.look(probe, kit.freshness, asyncio.get_running_loop().time())
            case ExecProbe():
                return await exec.look(probe, limit)
    except TimeoutError:
        return failed(f"no answer within {limit:g} s")
    except (OSError, h11.ProtocolError, ssl.SSLError, UnicodeError) as error:
        return failed(describe(error))
