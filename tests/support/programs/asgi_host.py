"""A host application with mounted feeds, as a child process of a test, under a real uvicorn.

Run as ``python -m tests.support.programs.asgi_host '{...}'``; the argument says what is mounted where.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import prometheus_client
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from tests.support.paths import ROOT
from tests.support.programs import warm_start
from tests.support.programs.program_output import ProgramOutput
from tests.support.programs.relay_process import PATIENCE, environment, eventually
from tests.support.servers.nats_server import free_port
from tickertape import tickertape_app


class Host:
    """A host application; also a context manager that starts and stops it.

    Args:
        mounts: options of ``tickertape_app`` by mount path.
        kind: ``fastapi`` or ``starlette``.
        lifespan: whether the host starts the feeds.
        metrics: mount whose metrics are exported at ``/metrics``, beside those of the host's process.
        address: address to listen on.
        env: additional environment variables.

    Attributes:
        program: module and first arguments to run in a new interpreter instead of this module.
    """

    def __init__(
        self,
        mounts: dict[str, dict[str, Any]],
        *,
        kind: str = "fastapi",
        lifespan: bool = True,
        metrics: str | None = None,
        address: str = "127.0.0.1",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.address = address
        self.program: list[str] | None = None
        self._spec = {
            "mounts": mounts, "kind": kind, "lifespan": lifespan, "metrics": metrics, "address": address,
        }  # fmt: skip
        self._env = env or {}
        self._process: subprocess.Popen[str] | warm_start.Process | None = None
        self._output: ProgramOutput | None = None

    def __repr__(self) -> str:
        return f"<Host {self.port}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def url(self, path: str = "", scheme: str = "http") -> str:
        """Return the URL of a page or feed."""
        return f"{scheme}://{self.address}:{self.port}{path}"

    def ws(self, path: str = "/feed/ws") -> str:
        """Return the URL of a feed."""
        return self.url(path, "ws")

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """Nothing: ``log`` has all of the output."""
        return []

    @property
    def log(self) -> list[str]:
        """Lines printed since its start, on standard output and standard error."""
        return self._output.lines if self._output else []

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the process in bytes."""
        assert self._process is not None
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def start(self) -> None:
        """Start the application; return when its own page responds."""
        self._process = self._launch(json.dumps({**self._spec, "port": self.port}))
        self._output = ProgramOutput(self._process.stdout, self._process.stderr)

        def up() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"the host ended: {''.join(self.log)[-3000:]}")
            with contextlib.suppress(URLError, OSError):
                return self.get("/health")[0] == 200
            return False

        eventually(up, "the host answers")

    def _launch(self, spec: str) -> "subprocess.Popen[str] | warm_start.Process":
        env = environment(**self._env)
        if self.program is None:
            return warm_start.start([spec], env, ROOT, warm_start.HOST)
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", *self.program, spec],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of a page."""
        try:
            with urlopen(Request(self.url(path), headers=headers), timeout=PATIENCE) as page:
                return int(page.status), json.load(page)
        except HTTPError as error:
            with error:
                body = error.read()
                return error.code, json.loads(body) if body.startswith(b"{") else body

    def until_ready(self, path: str = "/feed") -> None:
        """Wait until a feed accepts clients."""
        eventually(lambda: self.get(f"{path}/health")[0] == 200, "the feed is ready")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop the process with a signal, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(PATIENCE)
        finally:
            self.close()

    def kill(self) -> None:
        """Kill the process (SIGKILL)."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """Stop the process in whatever state it is; idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.kill()
            process.wait()
        if self._output is not None:
            self._output.close()


def host(spec: dict[str, Any]) -> Starlette:
    """Build the application that a test requests."""
    feeds = {path: tickertape_app(**options) for path, options in spec["mounts"].items()}

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for feed in feeds.values() if spec["lifespan"] else ():
                await stack.enter_async_context(feed.lifespan())
            yield
        names = sorted(task.get_name() for task in asyncio.all_tasks())
        print("left:", json.dumps([name for name in names if not name.startswith("Task-")]), flush=True)
        print("handler of:", getattr(signal.getsignal(signal.SIGTERM), "__module__", None), flush=True)

    def own() -> dict[str, Any]:
        return {"feeds": {path: {**feed.health(), "ready": feed.ready} for path, feed in feeds.items()}}

    if spec["kind"] == "fastapi":
        app = FastAPI(lifespan=lifespan)
        app.get("/health")(own)
        # Before the feeds, because a feed at the root would receive all requests.
        if spec["metrics"] is not None:
            prometheus_client.REGISTRY.register(feeds[spec["metrics"]].collector)
            app.mount("/metrics", prometheus_client.make_asgi_app())
        for path, feed in feeds.items():
            app.mount(path, feed)
        return app

    async def page(request: Asked) -> JSONResponse:
        return JSONResponse(own())

    mounts = [Mount(path, feed) for path, feed in feeds.items()]
    return Starlette(routes=[Route("/health", page), *mounts], lifespan=lifespan)


def main() -> None:
    """Serve the application that the command line describes."""
    spec = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    uvicorn.run(
        host(spec),
        host=spec["address"],
        port=spec["port"],
        log_config=None,
        access_log=False,
        # Some tests need a client that does not read for as long as a busy machine takes.
        ws_ping_timeout=10 * PATIENCE,
    )


if __name__ == "__main__":
    main()
