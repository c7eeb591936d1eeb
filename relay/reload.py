"""Reload on SIGHUP: keys, certificate, revocations and log level are reread from their files.

Invariants:

1. Each file takes effect completely or not at all; after a failure the previous content stays in force.
2. The relay logs one line for each signal: what it reloaded, what failed, and why.

Other settings, including those in the configuration file, need a restart.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tickertape.contracts.audit import Reloaded
from tickertape.relay.relay import Components
from tickertape.relay.settings import ServeSettings
from tickertape.relay.transport.tls import Certificate

from tickertape import logging_setup as logs
from tickertape.errors import OperatorError
from tickertape.process.signals import add_signal_handlers

log = logging.getLogger("tickertape")

NOTHING: Final = (
    "no keys, certificates or lists come from files; settings, also those of --config, need a restart"
)


class Reload:
    """Handler of SIGHUP that reloads files; once it exists, SIGHUP no longer ends the process.

    Args:
        settings: settings that name the files.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._requested = asyncio.Event()
        add_signal_handlers(lambda _: self._requested.set(), signal.SIGHUP)

    async def run(self, components: Components, certificate: Certificate | None) -> None:
        """Reload on each signal until cancelled; a signal during a reload causes another one after it.

        Args:
            components: components of the relay, whose keys and revocations are reloaded.
            certificate: certificate of the main port; None without TLS.
        """
        while True:
            await self._requested.wait()
            self._requested.clear()
            await self._reload(components, certificate)

    async def _reload(self, components: Components, certificate: Certificate | None) -> None:
        reloaded: list[str] = []
        failed: list[str] = []

        async def attempt(reload: Callable[[], Awaitable[str]]) -> None:
            try:
                reloaded.append(await reload())
            except (OperatorError, OSError) as error:
                failed.append(str(error))
            except Exception as error:
                # Whatever a file contains, the relay keeps running with the previous content.
                log.exception("failed to reload a file")
                failed.append(repr(error))

        for reload in [] if components.authority is None else components.authority.reloaders():
            await attempt(reload)
        # ``reload`` has read the list, so the poll does not see a change and would not end these sessions.
        components.end_revoked()
        if certificate is not None:
            await attempt(certificate.reload)
        if (path := self._settings.log_level_file) is not None:
            await attempt(lambda: _reload_level(path))
        fields = {"read": reloaded, "failed": failed}
        if components.audit is not None:
            components.audit.write(Reloaded(**components.audit.fields(), read=reloaded, failed=failed))
        if failed:
            log.error(
                "reload: %s; the previous content stays in force. Reloaded: %s",
                "; ".join(failed), ", ".join(reloaded) or "nothing", extra=fields,
            )  # fmt: skip
        else:
            log.info("reload: %s", ", ".join(reloaded) or NOTHING, extra=fields)


async def _reload_level(path: Path) -> str:
    level = await asyncio.to_thread(logs.read_level, path)
    logs.set_level(level)
    return f"log level {level}"
