"""What SIGHUP reads again: keys, certificate, revocations and log level, from the files that name them.

Invariants:

1. Each of them is taken whole or not at all; what cannot be used leaves what was in force as it is.
2. One line for each signal says what was read again, and what not and why.

What stands in the environment or on the command line needs a restart.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tickertape.relay.relay import Components
from tickertape.relay.settings import ServeSettings
from tickertape.relay.transport.tls import Certificate

from tickertape import logging_setup as logs
from tickertape.errors import OperatorError
from tickertape.process.signals import add_signal_handlers

log = logging.getLogger("tickertape")

NOTHING: Final = (
    "nothing is read from files here; settings of the environment and command line need a restart"
)


class Reload:
    """Reads files again whenever SIGHUP asks for it; from its making on, no SIGHUP ends the process.

    Args:
        settings: that name the files.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._asked = asyncio.Event()
        add_signal_handlers(lambda _: self._asked.set(), signal.SIGHUP)

    async def run(self, components: Components, certificate: Certificate | None) -> None:
        """Heed the signals until cancelled; those that come during a reading are heeded after it.

        Args:
            parts: whose keys and revocations are read.
            certificate: of the main port; None without TLS.
        """
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self._read(components, certificate)

    async def _read(self, components: Components, certificate: Certificate | None) -> None:
        done: list[str] = []
        failed: list[str] = []

        async def one(read: Callable[[], Awaitable[str]]) -> None:
            try:
                done.append(await read())
            except (OperatorError, OSError) as error:
                failed.append(str(error))
            except Exception as error:
                # Whatever a file holds, the relay goes on with what it has.
                log.exception("a file could not be read again")
                failed.append(repr(error))

        for read in [] if components.authority is None else components.authority.reloaders():
            await one(read)
        components.end_revoked()
        if certificate is not None:
            await one(certificate.reload)
        if (path := self._settings.log_level_file) is not None:
            await one(lambda: _level(path))
        fields = {"read": done, "failed": failed}
        if failed:
            log.error(
                "reload: %s; what was in force before stays. Read again: %s",
                "; ".join(failed), ", ".join(done) or "nothing", extra=fields,
            )  # fmt: skip
        else:
            log.info("reload: %s", ", ".join(done) or NOTHING, extra=fields)


async def _level(path: Path) -> str:
    level = await asyncio.to_thread(logs.read_level, path)
    logs.set_level(level)
    return f"log level {level}"
