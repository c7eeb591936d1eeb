"""What runs each command of the documents, by its program; a command without a handler fails the tests.

``COVERED`` and ``STAND_INS`` are the complete lists of commands that do not run as they are written, with the
reason.
"""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

from tickertape.relay.auth.client_certificates import ClientCertificates
from tickertape.relay.core.grants import parse_grant
from websockets.sync.client import connect

from tests.support.browser.browser_desk import missing
from tests.support.deploy_options import program
from tests.support.documents.markdown import Block, Command
from tests.support.documents.operator_desk import Desk
from tests.support.helm_binary import find_helm
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import eventually
from tests.support.servers.nats_server import find_binary, free_port

COVERED: Final = {
    "pip install .": "tests/integration/packaging/test_install.py",
    "systemctl --user": "tests/unit/deploy/test_deploy_units.py",
    "systemctl reload": "tests/unit/deploy/test_deploy_units.py",
    "systemd-analyze verify": "tests/unit/deploy/test_deploy_units.py",
    "tickertape demo": "tests/integration/cli/test_demo.py",
    "tickertape streams apply --replicas 3 --nats-url "
    "nats://nats-1:4222,nats://nats-2:4222,nats://nats-3:4222 ...":
        "tests/integration/deploy/test_deploy_cluster.py",
    "tickertape tail --cert FILE --key FILE": "tests/integration/cli/test_tail_token.py",
}  # fmt: skip
"""Commands that another test runs, since they need another environment or an outcome of their own."""

COVERED_SECTIONS: Final = {
    ("README.md", "Control access"): "tests/integration/cli/test_readme_tokens.py",
}
"""Sections of which another test runs all commands, in their order."""

STAND_INS: Final = {
    "docker": "needs an engine: `docker compose config` resolves the file, the image's files are linted, and "
    "the command within a container runs outside of it",
    "kubectl": "needs a cluster",
    "haproxy": "tests of the proxies run it between two relays; here it only reads its configuration (`-c`)",
    "helm": "needs a cluster: `helm template` renders what `helm install` and `helm upgrade` would send",
    "make": "would repeat all tests: `make --dry-run` finds the target and its prerequisites",
    "nats": "not packaged by any distribution: the Python client publishes what `nats pub` publishes",
    "nats-server": "tests of the permissions run it; here it only reads its configuration (`-t`)",
    "websocat": "not packaged by Debian: the same address is opened with another client",
}
"""Programs that are replaced, with the reason."""


def run(desk: Desk, command: Command) -> None:
    """Run a command of a document.

    Raises:
        AssertionError: it fails, or nothing runs it.
    """
    if is_covered(command):
        return
    handler = HANDLERS.get(command.program)
    assert handler is not None, f"{command}: no test runs this program; add a handler"
    handler(desk, command)


def is_covered(command: Command) -> bool:
    """Return whether another test runs a command."""
    section = (command.document, command.section) in COVERED_SECTIONS
    return section or command.text in COVERED


def _shell(desk: Desk, command: Command) -> None:
    if shutil.which(command.program) is None:
        missing(f"needs {command.program}; install the package that brings it")
    desk.shell(desk.adapted(command.text))


def _curl(desk: Desk, command: Command) -> None:
    """Run curl until it ends; with `-N`, until the first line of the stream, which the next program reads."""
    if "-N" not in command.words:
        _shell(desk, command)
        return
    follow, _, reader = desk.adapted(command.text).partition(" | ")
    process = subprocess.Popen(
        ["sh", "-c", f"exec {follow}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        process.kill()
    process.wait()
    assert line, f"{command}: the stream sent nothing"
    if reader:
        desk.shell(f"printf %s {shlex.quote(line)} | {reader}")


def _script(desk: Desk, command: Command) -> None:
    """Run a script of the project; the secrets are those of NATS, which are kept."""
    assert desk.nats.url
    desk.shell(command.text)


def _builtin(desk: Desk, command: Command) -> None:
    desk.shell(command.text.replace("nats-server ", f"{find_binary()} -t "))


def _haproxy(desk: Desk, command: Command) -> None:
    if shutil.which("haproxy", path="/usr/sbin:/usr/bin") is None:
        missing("needs haproxy; 'apt-get install haproxy' brings it")
    desk.shell(command.text.replace("haproxy ", "haproxy -c ", 1))


def _export(desk: Desk, command: Command) -> None:
    """Set the variables for the commands that follow; a program has to accept them."""
    for word in command.words[1:]:
        name, _, value = word.partition("=")
        desk.variables[name] = desk.adapted(value)
    desk.tickertape("tickertape streams show")


def _tickertape(desk: Desk, command: Command) -> None:
    desk.tickertape(command.text)


def _nats(desk: Desk, command: Command) -> None:
    """Publish what `nats pub` would publish."""
    assert command.words[1] == "pub", f"{command}: replace it with a command of tickertape"
    subject, payload = command.words[2:]

    async def publish() -> None:
        async with desk.nats.client("publisher") as (client, errors):
            ack = await client.request(subject, payload.encode(), timeout=PATIENCE)
            assert json.loads(ack.data)["stream"] == "EVENTS", (ack.data, errors)

    asyncio.run(publish())


def _nats_server(desk: Desk, command: Command) -> None:
    config = next(path for path in command.words if path.endswith(".conf"))
    done = subprocess.run(
        ["sh", "-c", command.text.replace("nats-server ", f"{find_binary()} -t ", 1)],
        cwd=next((desk.folder / "deploy").rglob(config)).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def _websocat(desk: Desk, command: Command) -> None:
    url = shlex.split(desk.adapted(command.text))[-1]
    with connect(url, proxy=None) as link:
        assert json.loads(link.recv(PATIENCE))["type"] == "welcome", command


def _prometheus(desk: Desk, command: Command) -> None:
    if shutil.which("prometheus") is None:
        missing("needs prometheus; 'apt-get install prometheus' brings it")
    port = free_port()
    log = desk.folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command.text} --web.listen-address=127.0.0.1:{port}"],
            cwd=desk.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip

    def ready() -> bool:
        assert process.poll() is None, f"{command}: {log.read_text()}"
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/v1/rules", timeout=PATIENCE) as answer:
                return bool(json.load(answer)["data"]["groups"])
        except OSError:
            return False

    try:
        eventually(ready, f"{command} evaluates its rules")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, f"{command}: {log.read_text()}"
    finally:
        process.kill()
        process.wait()


def _alertmanager(desk: Desk, command: Command) -> None:
    """Check its configuration; `tests/e2e/test_alerts.py` runs it."""
    path = command.words[command.words.index("--config.file") + 1]
    if shutil.which("amtool") is None:
        missing("needs amtool; 'apt-get install prometheus-alertmanager' brings it")
    desk.shell(f"amtool check-config {path}")


def _make(desk: Desk, command: Command) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *command.words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _docker(desk: Desk, command: Command) -> None:
    words = command.words
    if words[1] == "build":
        assert (desk.folder / words[words.index("-f") + 1]).is_file(), command
        return
    if words[1] == "run":
        # The image's entry point is tickertape, and its tag is the name.
        desk.tickertape(shlex.join(words[words.index("tickertape") :]))
        return
    assert words[1] == "compose", command
    file = words[words.index("-f") + 1]
    services = _compose(desk, file)
    action = words[words.index(file) + 1]
    assert action in ("up", "exec", "ps", "logs", "down", "restart", "stop", "start", "run"), command
    if action in ("exec", "run"):
        service, *inner = words[words.index(action) + 1 :]
        assert service in services, command
        line = shlex.join(inner).replace("/run/secrets/", f"{desk.folder}/deploy/secrets/")
        desk.tickertape(line)


def _compose(desk: Desk, file: str) -> dict[str, Any]:
    done = subprocess.run(
        [program("docker-compose"), "-f", file, "config", "--format", "json"],
        cwd=desk.folder, env={"PATH": os.environ["PATH"], "HOME": str(desk.folder)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


def _helm(desk: Desk, command: Command) -> None:
    """Validate what would be installed."""
    words = [word for word in command.words[1:] if word not in ("--install", "--wait", "--create-namespace")]
    assert words[0] in ("install", "upgrade", "template"), command
    _render(desk, words[1:])


def _render(desk: Desk, words: list[str]) -> None:
    helm = find_helm()
    if helm is None:
        missing("needs helm; 'python -m tests.support.helm_binary' brings it")
    done = subprocess.run(
        [helm, "template", *words], cwd=desk.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"


HANDLERS: Final[Mapping[str, Callable[[Desk, Command], None]]] = {
    **dict.fromkeys(("amtool", "cp", "mkdir", "promtool", "sed"), _shell),
    "curl": _curl,
    "sh": _script,
    **dict.fromkeys((".", "set", "ulimit", "umask"), _builtin),
    "docker": _docker,
    "export": _export,
    "haproxy": _haproxy,
    "helm": _helm,
    "make": _make,
    "nats": _nats,
    "nats-server": _nats_server,
    "prometheus": _prometheus,
    "prometheus-alertmanager": _alertmanager,
    "tickertape": _tickertape,
    "websocat": _websocat,
}


def check_block(desk: Desk, block: Block) -> None:
    """Check a block of configuration with the program that reads it.

    Raises:
        AssertionError: it is invalid, or no program reads it.
    """
    reader = next((check for key, check in READERS.items() if re.search(key, block.text, re.MULTILINE)), None)
    assert reader is not None, f"{block.document}:{block.line}: no test reads this block; add a reader"
    path = desk.folder / f"block-{block.line}.{block.language}"
    path.write_text(block.text)
    reader(desk, path)


def _scraped(desk: Desk, path: Path) -> None:
    if shutil.which("promtool") is None:
        missing("needs promtool; 'apt-get install prometheus' brings it")
    desk.shell(f"promtool check config {path}")


def _chart_values(desk: Desk, path: Path) -> None:
    key = ["--set", "auth.existingSecret=jwt"]
    _render(desk, ["ticks", "deploy/helm/tickertape", "--values", str(path), *key])


def _gateways(desk: Desk, path: Path) -> None:
    desk.tickertape(f"tickertape check {path}")


def _formats(desk: Desk, path: Path) -> None:
    desk.tickertape(f"tickertape check --shipper-format-file {path}")


def _grant(desk: Desk, path: Path) -> None:
    parse_grant(json.loads(path.read_text()), path.name)


def _config_file(desk: Desk, path: Path) -> None:
    desk.tickertape(f"tickertape config show serve --config {path}")


def _certificate_grants(desk: Desk, path: Path) -> None:
    assert len(ClientCertificates(path)) > 1


READERS: Final[Mapping[str, Callable[[Desk, Path], None]]] = {
    r"^gateways:": _gateways,
    r"\A\[\n  {\"name\"": _certificate_grants,
    r"\A{\"subjects\"": _grant,
    r"^nats_url = ": _config_file,
    r"^\[formats\.": _formats,
    r"^networkPolicy:": _chart_values,
    r"^scrape_configs:": _scraped,
}
"""Checks of blocks of configuration, by what they contain."""

__all__ = [
    "COVERED",
    "COVERED_SECTIONS",
    "HANDLERS",
    "READERS",
    "STAND_INS",
    "check_block",
    "is_covered",
    "run",
]
