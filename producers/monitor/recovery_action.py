"""Recovery attempt: a command without a shell, or an HTTP request."""

from tickertape.contracts.events import GatewayRecovery
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.probes import exec, http
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import MAX_ERROR_LENGTH, describe, redact

from tickertape.net.outgoing import describe_timeout
from tickertape.process.command import run_command

_SUCCESS_STATUSES = [200, 201, 202, 204]


async def attempt(settings: RecoverySettings, event: GatewayRecovery) -> str | None:
    """Make a recovery attempt within ``settings.timeout`` seconds.

    Args:
        settings: the action.
        event: event of the attempt; a command receives its fields as the environment variables
            TICKERTAPE_GATEWAY_ID, TICKERTAPE_GATEWAY_TYPE and TICKERTAPE_ATTEMPT, and no secrets of the
            monitor.

    Returns:
        the error; None if the attempt succeeded.
    """
    try:
        if settings.command is not None:
            environment = {
                **settings.environment,
                "TICKERTAPE_GATEWAY_ID": event.gateway_id,
                "TICKERTAPE_GATEWAY_TYPE": event.gateway_type,
                "TICKERTAPE_ATTEMPT": str(event.attempt),
            }
            try:
                finished = await run_command(settings.command, environment, settings.timeout)
            except OSError as failure:
                return exec.describe_start(settings.command, failure)[:MAX_ERROR_LENGTH]
            if finished.code == 0:
                return None
            line = redact(exec.last_line(finished), environment)
            error = exec.describe_code(finished.code) + (f": {line}" if line else "")
            return error[:MAX_ERROR_LENGTH]
        request = {
            "kind": "http",
            "url": settings.url,
            "method": settings.method,
            "status": _SUCCESS_STATUSES,
        }
        result = await http.HttpProbe.model_validate(request).probe(settings.timeout, ProbeContext())
        return None if result.outcome is Outcome.OK else result.error
    except TimeoutError as error:
        return describe_timeout(error, settings.timeout, "not finished")
    except (OSError, ValueError) as error:
        return describe(error)
