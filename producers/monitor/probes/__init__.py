"""The probes: one look at a gateway, each with a hard limit of time.

A kind is one module with its settings, which say how to probe, and one entry in ``KINDS``; all else takes the
kinds from there.

Invariants:

1. ``run`` always returns within the probe's limit; what goes wrong out there is a result, no exception.
2. Nothing that a peer sends can make it hold more than a named bound of memory.
3. Every connection is closed and every process gone when ``run`` returns.
"""

import ssl
from typing import Annotated, Any, Final

import h11
from pydantic import PlainValidator
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes import exec, fix, freshness, http, tcp, tls, websocket
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import describe, failed
from tickertape.producers.monitor.probes.settings import ProbeSettings

__all__ = ["KINDS", "Probe", "ProbeContext", "ProbeSettings", "run"]

KINDS: Final[dict[str, type[ProbeSettings]]] = {
    "tcp": tcp.TcpProbe,
    "tls": tls.TlsProbe,
    "http": http.HttpProbe,
    "websocket": websocket.WebSocketProbe,
    "fix": fix.FixProbe,
    "freshness": freshness.FreshnessProbe,
    "exec": exec.ExecProbe,
}
"""Settings of each kind."""


def _parsed(value: Any) -> ProbeSettings:
    """Read the settings of a probe, with the model that its kind names."""
    if isinstance(value, ProbeSettings):
        return value
    if not isinstance(value, dict) or "kind" not in value:
        raise ValueError(f"has no 'kind'; one of {', '.join(KINDS)}")
    kind = value["kind"]
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    return model.model_validate(value)


Probe = Annotated[ProbeSettings, PlainValidator(_parsed)]
"""A probe of any kind, in a model of settings."""


async def run(check: Check[ProbeSettings], context: ProbeContext) -> Result | None:
    """Probe once.

    Args:
        check: ``timeout`` is for connecting and answering; ``hold`` comes on top.
        context: what probes remember.

    Returns:
        what was found; None when there is nothing to judge by: a log-in over its cap, or a subject that is
        not listened to for long enough.
    """
    try:
        return await check.probe.probe(check.timeout, context)
    except TimeoutError:
        return failed(f"no answer within {check.timeout:g} s")
    except (OSError, h11.ProtocolError, ssl.SSLError, UnicodeError) as error:
        return failed(describe(error))
