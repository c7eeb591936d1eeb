"""``tickertape check``: validate a configuration and the environment of the relay.

Each finding is a line: ``ok``, ``warn`` (possibly intended) or ``error``, and a hint. With ``--json``, the
output is a single object with stable names instead::

    {"ok": bool, "checks": [{"name": str, "state": "ok" | "warn" | "error", "text": str, "hint": str}]}

* NATS: ``nats`` (one for each address), ``nats_version``, ``jetstream``, ``streams``, ``storage``,
  ``states`` (only if there is a finding), ``rejected``, ``clock``, ``round_trip``;
* this machine: ``main_port``, ``ops_port``, ``descriptors``, ``certificate``, ``data_dir``,
  ``nats_program``;
* clients: ``token_keys``, ``certificate_grants``, ``revocations``, ``token`` (for ``--token-file``),
  ``origin`` (for ``--origin``);
* settings, only if there is a finding: ``settings``, ``readers``, ``ops_host``,
  ``token_rules``, ``tls``, ``origins``, ``networks``, ``limits``, ``nats_access``, ``secret_files``;
* a monitor's configuration file: ``monitor_file``.

The exit code is 0 if no finding is an error, 1 otherwise, and 2 for bad usage. ``--live`` and ``--ready``
(``health_probe.py``) only probe a running relay; their exit code is 0 if it is live or ready.
"""

import asyncio
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import CliPositionalArg

from tickertape.cli.check import health_probe
from tickertape.cli.check.files import check_files
from tickertape.cli.check.finding import Finding
from tickertape.cli.check.nats import check_nats
from tickertape.cli.check.ports import check_ports
from tickertape.cli.check.report import Sections, passed, print_report, to_json
from tickertape.cli.check.settings import check_settings
from tickertape.cli.check.tokens import check_origin, check_tokens, validate_origin
from tickertape.process.console import print_json
from tickertape.relay.settings import MAX_WORKERS, RelaySettings

with warnings.catch_warnings():
    # The option must be called `json`; the method of BaseModel that the field hides is deprecated.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class CheckSettings(RelaySettings):
        """Options of ``tickertape check``, in addition to those of the relay."""

        file: CliPositionalArg[Path | None] = Field(
            None,
            description="configuration file of a monitor; without it, the settings of the relay are checked",
        )
        workers: int = Field(1, ge=1, le=MAX_WORKERS, description="number of worker processes, as for serve")
        json: bool = Field(False, description="print the findings as one JSON object")  # type: ignore[assignment]
        live: bool = Field(False, description="only probe whether the relay on the ops port is live")
        ready: bool = Field(
            False, description="only probe whether the relay on the ops port is ready for clients"
        )
        token_file: Path | None = Field(
            None, description="file with a token to verify; shows what the token grants"
        )
        origin: Annotated[str | None, AfterValidator(lambda text: text and validate_origin(text))] = Field(
            None, description="origin of a page to check, such as https://app.example.com"
        )

        @model_validator(mode="after")
        def _check_mode(self) -> Self:
            modes = [name for name in ("file", "live", "ready") if getattr(self, name)]
            if len(modes) > 1:
                raise ValueError(f"{' and '.join(modes)} are mutually exclusive; use one of them")
            if self.json and (self.live or self.ready):
                raise ValueError(f"json: {modes[0]} reports its result as the exit code; omit --json")
            return self


async def run(settings: CheckSettings, now: Callable[[], float] = time.time) -> int:
    """Run the checks and print the findings.

    Args:
        settings: settings to check.
        now: clock of this machine, in UNIX seconds.

    Returns:
        0 if no finding is an error, 1 otherwise.
    """
    if settings.live or settings.ready:
        return health_probe.probe(settings.ops_host, settings.ops_port, ready=settings.ready)
    found = _check_monitor(settings.file) if settings.file is not None else await _check_relay(settings, now)
    if settings.json:
        print_json(to_json(found))
    else:
        print_report(found)
    return 0 if passed(found) else 1


async def _check_relay(settings: CheckSettings, now: Callable[[], float]) -> Sections:
    # The checks that wait for other processes run concurrently.
    upstream, local, clients = await asyncio.gather(
        check_nats(settings, now),
        asyncio.to_thread(check_ports, settings),
        check_tokens(settings, settings.token_file),
    )
    if settings.origin is not None:
        clients.append(check_origin(settings, settings.origin))
    return {
        "NATS": upstream,
        "This machine": [*local, *check_files(settings, now())],
        "Clients": clients,
        "Settings": check_settings(settings),
    }


def _check_monitor(file: Path) -> Sections:
    from tickertape.producers.monitor.config.validate import check

    problems = [Finding.error("monitor_file", line) for line in check(file)]
    return {"Monitor": problems or [Finding.ok("monitor_file", f"{file}: no errors")]}
