"""Probes of gateways, each with a hard timeout.

A kind of probe is one module, with a settings class that implements the probe, and one entry in ``KINDS``,
the only registry of kinds.

Invariants:

1. ``run`` always returns within the probe's timeout; a failure of the gateway is a result, not an exception.
2. Memory is bounded by named constants, whatever a peer sends.
3. When ``run`` returns, every connection is closed and every process has exited.
"""

from typing import Annotated, Any, Final

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
"""Settings class of each kind."""


def _parse_probe(value: Any) -> ProbeSettings:
    """Parse the settings of a probe with the model of its kind."""
    if isinstance(value, ProbeSettings):
        return value
    if not isinstance(value, dict) or "kind" not in value:
        raise ValueError(f"has no 'kind'; add one of {', '.join(KINDS)}")
    kind = value["kind"]
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ValueError(f"unknown kind {kind!r}; use one of {', '.join(KINDS)}")
    return model.model_validate(value)


Probe = Annotated[ProbeSettings, PlainValidator(_parse_probe)]
"""Field type for a probe of any kind."""


async def run(check: Check[ProbeSettings], context: ProbeContext) -> Result | None:
    """Run a probe once.

    Args:
        check: probe and schedule; ``timeout`` covers the whole exchange, to which ``hold`` and the grace of a
            FIX logout are added.
        context: state that probes keep between runs.

    Returns:
        the result; None if the probe is inconclusive, because the logon limit is reached or the subject has
        not been subscribed to for long enough.
    """
    try:
        return await check.probe.probe(check.timeout, context)
    except TimeoutError:
        return failed(f"no response within {check.timeout:g} s")
    # A peer can also cause ValueErrors, such as by a redirect to an invalid address.
    except (OSError, ValueError) as error:
        return failed(describe(error))
