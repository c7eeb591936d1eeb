"""Probes of gateways, each with a hard timeout.

A kind of probe is one module, with a settings class that implements the probe, and one entry in ``KINDS``,
the only registry of kinds.

Invariants:

1. ``run`` always returns within the probe's timeout; a failure of the gateway is a result, not an exception.
2. Memory is bounded by named constants, whatever a peer sends.
3. When ``run`` returns, every connection is closed and every process has exited.
"""

import errno
import os
from typing import Annotated, Any, Final

from pydantic import PlainValidator, ValidationError
from pydantic_core import InitErrorDetails
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes import (
    dns,
    exec,
    fix,
    freshness,
    grpc,
    http,
    icmp,
    push,
    tcp,
    tls,
    websocket,
)
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import CannotProbe, describe, failed
from tickertape.producers.monitor.probes.settings import ProbeSettings

from tickertape.net.outgoing import describe_timeout
from tickertape.net.resolver import LookupsExhausted

__all__ = ["KINDS", "CannotProbe", "Probe", "ProbeContext", "ProbeSettings", "run"]

KINDS: Final[dict[str, type[ProbeSettings]]] = {
    "tcp": tcp.TcpProbe,
    "tls": tls.TlsProbe,
    "http": http.HttpProbe,
    "websocket": websocket.WebSocketProbe,
    "dns": dns.DnsProbe,
    "grpc": grpc.GrpcProbe,
    "icmp": icmp.IcmpProbe,
    "fix": fix.FixProbe,
    "freshness": freshness.FreshnessProbe,
    "push": push.PushProbe,
    "exec": exec.ExecProbe,
}
"""Settings class of each kind."""


def _parse_probe(value: Any) -> ProbeSettings:
    """Parse the settings of a probe with the model of its kind."""
    if isinstance(value, ProbeSettings):
        return value
    if not isinstance(value, dict):
        raise ValueError("is not a mapping; write it as {kind: tcp, address: ...}")
    kind = value.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        problem = InitErrorDetails(type="missing", loc=("kind",), input=value)
        if "kind" in value:
            expected = {"expected": ", ".join(KINDS)}
            problem = InitErrorDetails(type="literal_error", loc=("kind",), input=kind, ctx=expected)
        raise ValidationError.from_exception_data("probe", [problem])
    return model.model_validate(value)


EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})
"""Errors for which this host has no descriptor, memory or process left; they say nothing about a gateway."""


class ExhaustedError(CannotProbe):
    """Failure to run a probe for lack of a resource of this host.

    Args:
        error: error of the operating system, or of a look-up that was not started.
    """

    def __init__(self, error: OSError) -> None:
        if isinstance(error, LookupsExhausted):
            super().__init__(str(error), "check the DNS servers")
        else:
            super().__init__(os.strerror(error.errno or 0).lower(), "raise the limits (ulimit -a)")


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

    Raises:
        CannotProbe: this host lacks a resource, a secret, a file or a permission, so that the gateway was not
            probed.
    """
    try:
        return await check.probe.probe(check.timeout, context)
    except TimeoutError as error:
        return failed(describe_timeout(error, check.timeout))
    # A peer can also cause ValueErrors, such as by a redirect to an invalid address.
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            raise ExhaustedError(error) from None
        return failed(describe(error))
