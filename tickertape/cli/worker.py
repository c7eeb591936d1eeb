"""A worker process: a relay in a slot of its supervisor's; ``relay/workers/worker_slot.py`` starts it."""

import signal
import socket
import sys
from functools import partial
from typing import Any

from tickertape.process.event_loop import run_async
from tickertape.relay.workers.ipc import EXIT_CONFIG, SupervisorChannel, read_worker_config


def main() -> int:
    """Run the relay that the supervisor wants.

    Returns:
        the exit code.
    """
    # Until the relay listens for it, a SIGHUP is for settings that are not read yet.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    try:
        config = read_worker_config(link)
    except EOFError:
        return 1
    try:
        return run_async(_serve(link, config, int(sys.argv[2])))
    except KeyboardInterrupt:
        return 130


async def _serve(link: socket.socket, config: dict[str, Any], memory: int) -> int:
    from tickertape.cli.serve import set_up_log, shipping
    from tickertape.logging_setup import LogLevelError
    from tickertape.relay.server import serve
    from tickertape.relay.settings import ServeSettings
    from tickertape.relay.worker_context import WorkerContext
    from tickertape.relay.workers.shared_counters import SharedCounters, SharedLimitCounters

    channel = await SupervisorChannel.open(link)
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
