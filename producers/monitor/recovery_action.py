"""One attempt to bring a gateway back: a command without a shell, or an HTTP call."""

import ssl

import h11
from tickertape.contracts.events import GatewayRecovery
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.probes import exec, http
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import describe

_ACCEPTED = [200, 201, 202, 204]


async def attempt(settings: RecoverySettings, event: GatewayRecovery) -> str | None:
    """Make an attempt, within ``settings.timeout`` seconds.

    Args:
        settings: what to do.
        event: the attempt; a command finds its fields in TICKERTAPE_GATEWAY_ID, _TYPE and _ATTEMPT.

    Returns:
        why it could not be done; None when it was.
    """
    try:
        if settings.command is not None:
            environment = {
                "TICKERTAPE_GATEWAY_ID": event.gateway_id,
                "TICKERTAPE_GATEWAY_TYPE": event.gateway_type,
                "TICKERTAPE_ATTEMPT": str(event.attempt),
            }
            code, output = await exec.run(settings.command, environment, settings.timeout)
            return f"ended with {code}: {exec.last_line(output)}"[:200] if code else None
        call = {"kind": "http", "url": settings.url, "method": settings.method, "status": _ACCEPTED}
        result = await http.HttpProbe.model_validate(call).probe(settings.timeout, ProbeContext())
        return None if result.outcome is Outcome.OK else result.error
    except TimeoutError:
        return f"not done within {settings.timeout:g} s"
    except (OSError, h11.ProtocolError, ssl.SSLError) as error:
        return describe(error)
