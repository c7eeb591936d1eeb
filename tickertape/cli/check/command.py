"""``tickertape check``: validate a configuration and the environment of the relay.

Each finding is a line: ``ok``, ``warn`` (possibly intended) or ``error``, and a hint. With ``--json``, the
output is a single object with stable names instead::

    {"ok": bool, "checks": [{"name": str, "state": "ok" | "warn" | "error", "text": str, "hint": str}]}

* NATS: ``nats`` (one for each address), ``nats_version``, ``jetstream``, ``nats_store``, ``permissions``,
  ``streams``, ``storage``, ``states`` (only if there is a finding), ``rejected``, ``clock``, ``round_trip``;
* this machine: ``main_port``, ``ops_port``, ``descriptors``, ``certificate``, ``credentials``, ``data_dir``,
  ``nats_program``;
* clients: ``token_keys``, ``certificate_grants``, ``revocations``, ``token`` (for ``--token-file``),
  ``origin`` (for ``--origin``);
* settings, only if there is a finding: ``settings``, ``readers``, ``ops_host``,
  ``token_rules``, ``tls``, ``origins``, ``networks``, ``limits``, ``nats_access``, ``secret_files``;
* a shipper, with ``--shipper-paths``: ``shipper_paths``, ``shipper_host``; with ``--shipper-format-file``:
  ``shipper_formats``;
* a monitor's configuration file: ``monitor_file``.

The exit code is 0 if no finding is an error, 1 otherwise, and 2 for bad usage. ``--live`` and ``--ready``
(``health_probe.py``) only probe a running relay; their exit code is 0 if it is live or ready.
"""

import asyncio
import socket
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from tickertape.cli.check import health_probe
from tickertape.cli.check.files import check_files
from tickertape.cli.check.finding import Finding
from tickertape.cli.check.nats import check_nats
from tickertape.cli.check.ports import check_ports
from tickertape.cli.check.report import Sections, passed, print_report, to_json
from tickertape.cli.check.settings import check_settings
from tickertape.cli.check.shipper import check_format_file, check_host, check_paths
from tickertape.cli.check.tokens import check_origin, check_tokens, validate_origin
from tickertape.config.model import Positional
from tickertape.contracts import subjects
from tickertape.process.console import print_json
from tickertape.process.files import state_folder
from tickertape.relay.settings import ProcessSettings
from tickertape.validation import checked_by

with warnings.catch_warnings():
    # The option must be called `json`; the method of BaseModel that the field hides is deprecated.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class CheckSettings(ProcessSettings):
        """Settings of ``tickertape check``, in addition to those of the relay."""

        section: ClassVar[str] = "check"
        only_options: ClassVar[frozenset[str]] = frozenset(
            {"shipper_paths", "shipper_root", "shipper_host", "shipper_state_dir", "shipper_format_file"}
        )

        file: Positional[Path | None] = Field(
            None,
            description="configuration file of a monitor; without it, the settings of the relay are checked",
        )
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

        shipper_paths: list[str] = Field(
            [], description="path or glob of a shipper, which is then checked instead of a relay; repeatable"
        )
        shipper_root: list[str] = Field(
            [], description="folder to which symbolic links of the shipper's files may lead; repeatable"
        )
        shipper_format_file: Path | None = Field(
            None, description="format file of a shipper; may be checked without its paths"
        )
        shipper_host: Annotated[str, checked_by(subjects.escape)] = Field(
            default_factory=socket.gethostname, description="host name of the shipper"
        )
        shipper_state_dir: Path = Field(
            default_factory=state_folder, description="state folder of the shipper"
        )

        @model_validator(mode="after")
        def _check_mode(self) -> Self:
            modes = [name for name in ("file", "shipper_paths", "live", "ready") if getattr(self, name)]
            if self.shipper_format_file is not None and not self.shipper_paths:
                modes.append("shipper_format_file")
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
    if settings.file is not None:
        found = _check_monitor(settings.file)
    elif settings.shipper_paths:
        found = await _check_shipper(settings, now())
    elif settings.shipper_format_file is not None:
        found = {"Formats": check_format_file(settings.shipper_format_file)}
    else:
        found = await _check_relay(settings, now)
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


async def _check_shipper(settings: CheckSettings, now: float) -> Sections:
    host, paths, formats = settings.shipper_host, settings.shipper_paths, settings.shipper_format_file
    return {
        "Formats": [] if formats is None else check_format_file(formats),
        "Files": await asyncio.to_thread(check_paths, paths, settings.shipper_root),
        "Host": await check_host(settings, settings.names(), host, paths, settings.shipper_state_dir, now),
    }


def _check_monitor(file: Path) -> Sections:
    from tickertape.producers.monitor.config.validate import check, find_warnings

    if problems := [Finding.error("monitor_file", problem.text, problem.hint) for problem in check(file)]:
        return {"Monitor": problems}
    warnings = [Finding.warn("monitor_file", risk.text, risk.hint) for risk in find_warnings(file)]
    return {"Monitor": warnings or [Finding.ok("monitor_file", f"{file}: no errors")]}
