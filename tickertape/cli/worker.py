"""Entry point of a worker process, which ``relay/workers/worker_slot.py`` starts."""

import socket
import sys
from functools import partial
from typing import Any

from tickertape.process.console import escape_tracebacks, escape_unencodable
from tickertape.process.event_loop import run_async
from tickertape.process.startup import prepare
from tickertape.relay.workers.ipc import EXIT_CONFIG, SupervisorChannel, read_worker_config


def main() -> int:
    """Run a relay with the configuration from the supervisor.

    Returns:
        the exit code.
    """
    # Before the relay handles SIGHUP, a reload has no effect: the settings have not been read yet.
    prepare(["serve"])
    escape_tracebacks()
    escape_unencodable()
    sock = socket.socket(fileno=int(sys.argv[1]))
    try:
        config = read_worker_config(sock)
    except EOFError:
        return 1
    return run_async(_serve(sock, config, int(sys.argv[2])))


async def _serve(sock: socket.socket, config: dict[str, Any], memory: int) -> int:
    from tickertape.cli.serve import set_up_log, shipping
    from tickertape.logging_setup import LogLevelError
    from tickertape.relay.server import serve
    from tickertape.relay.settings import ServeSettings
    from tickertape.relay.worker_context import WorkerContext
    from tickertape.relay.workers.shared_counters import SharedCounters, SharedLimitCounters

    channel = await SupervisorChannel.open(sock)
    slot, workers = config["slot"], config["workers"]
    context = WorkerContext(
        relay=config["relay"],
        workers=workers,
        limit_counters=partial(SharedLimitCounters, SharedCounters(memory, workers), slot),
        ops=channel.serve,
        report_error=lambda line: channel.send(startup_error=line),
    )
    try:
        settings = ServeSettings(**config["settings"])
        set_up_log(settings, slot)
        code = await serve(settings, lambda line: channel.send(announced=line), shipping(settings), context)
    except LogLevelError as error:
        context.report_error(str(error))
        code = 1
    finally:
        await channel.close()
    return EXIT_CONFIG if code == 1 else code


if __name__ == "__main__":
    sys.exit(main())
