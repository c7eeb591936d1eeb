"""``tickertape check``: say what is wrong with a configuration, or with what the relay would meet here.

Each finding is a line: ``ok``, ``warn`` (possibly intended) or ``error``, and a hint. With ``--json`` there
is one object on standard output instead, whose names stay::

    {"ok": bool, "checks": [{"name": str, "state": "ok" | "warn" | "error", "text": str, "hint": str}]}

* of NATS: ``nats`` (one for each address), ``nats_version``, ``jetstream``, ``streams``, ``storage``,
  ``rejected``, ``clock``, ``round_trip``;
* of this machine: ``main_port``, ``ops_port``, ``descriptors``, ``certificate``, ``data_dir``,
  ``nats_program``;
* of who may connect: ``token_keys``, ``revocations``, ``token`` (of ``--token-file``), ``origin`` (of
  ``--origin``);
* of the settings, only where something is to be said: ``settings``, ``readers``, ``ops_host``,
  ``token_rules``, ``tls``, ``origins``, ``networks``, ``limits``, ``nats_access``, ``secret_files``;
* of a monitor's file: ``monitor_file``.

The exit code is 0 without an error, 1 otherwise, 2 for bad usage. ``--live`` and ``--ready`` only
ask the relay of these settings, and are 0 when it says yes; ``health_probe.py`` does that.
"""

import asyncio
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import CliPositionalArg

from tickertape.cli.check import health_probe as alive
from tickertape.cli.check.files import files
from tickertape.cli.check.finding import Finding
from tickertape.cli.check.nats import nats
from tickertape.cli.check.ports import ports
from tickertape.cli.check.report import Sections, as_json, passed, show
from tickertape.cli.check.settings import findings
from tickertape.cli.check.tokens import checked_origin, origin, tokens
from tickertape.relay.settings import MAX_WORKERS, RelaySettings

with warnings.catch_warnings():
    # `json` is what flag and variable must be called; the method that it hides is deprecated.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class CheckSettings(RelaySettings):
        """Checks a monitor's file when one is given, else the relay's settings, NATS and this machine."""

        file: CliPositionalArg[Path | None] = Field(
            None, description="a monitor's file; without one, the relay's settings are checked"
        )
        workers: int = Field(1, ge=1, le=MAX_WORKERS, description="as for serve, whose settings these are")
        json: bool = Field(False, description="one JSON object on standard output, for programs")  # type: ignore[assignment]
        live: bool = Field(False, description="only ask the relay on its ops port whether it lives")
        ready: bool = Field(False, description="only ask it whether clients should be sent there")
        token_file: Path | None = Field(
            None, description="a file with a token: is it good, what does it grant"
        )
        origin: Annotated[str | None, AfterValidator(lambda text: text and checked_origin(text))] = Field(
            None, description="a page's origin, as https://app.example.com: would it be let in"
        )

        @model_validator(mode="after")
        def _one_question(self) -> Self:
            asked = [name for name in ("file", "live", "ready") if getattr(self, name)]
            if len(asked) > 1:
                raise ValueError(f"{' and '.join(asked)} are different questions; ask one")
            if self.json and (self.live or self.ready):
                raise ValueError(f"json: {asked[0]} says yes or no with its exit code; leave --json out")
            return self


async def run(settings: CheckSettings, now: Callable[[], float] = time.time) -> int:
    """Check, a line for each thing.

    Args:
        settings: what is checked.
        now: UNIX seconds of this machine.

    Returns:
        0 when no finding is an error, 1 otherwise.
    """
    if settings.live or settings.ready:
        return alive.run(settings.ops_host, settings.ops_port, ready=settings.ready)
    found = _monitor(settings.file) if settings.file is not None else await _relay(settings, now)
    if settings.json:
        print(as_json(found))
    else:
        show(found)
    return 0 if passed(found) else 1


async def _relay(settings: CheckSettings, now: Callable[[], float]) -> Sections:
    # What waits for others is asked at the same time.
    upstream, local, clients = await asyncio.gather(
        nats(settings, now), asyncio.to_thread(ports, settings), tokens(settings, settings.token_file)
    )
    if settings.origin is not None:
        clients.append(origin(settings, settings.origin))
    return {
        "NATS": upstream,
        "This machine": [*local, *files(settings, now())],
        "Who may connect": clients,
        "Settings": findings(settings),
    }


def _monitor(file: Path) -> Sections:
    from tickertape.producers.monitor.config.validate import check

    problems = [Finding.error("monitor_file", line) for line in check(file)]
    return {"Monitor": problems or [Finding.ok("monitor_file", f"{file}: no errors")]}
