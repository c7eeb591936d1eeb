"""``deploy/compose.yaml`` as docker compose parses it; its NATS, streams and relay run without containers."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
import pytest
from tickertape.producers.sdk.publisher import Publisher
from tickertape.relay.drain import END_GRACE
from tickertape.relay.settings import ServeSettings

from tests.support.clients.feed_client import follow, line, run
from tests.support.deploy_options import DEPLOY, program, unknown
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import find_binary, free_port
from tickertape.nats.connection import Access

OURS = {"relay-1", "relay-2", "streams", "monitor", "shipper"}
OTHERS = {"nats", "proxy", "prometheus", "grafana"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the deployment, and generate its secrets as its first lines say."""
    copied = tmp_path_factory.mktemp("compose") / "deploy"
    shutil.copytree(DEPLOY, copied, ignore=shutil.ignore_patterns("secrets", "gateways.yaml"))
    shutil.copy(copied / "gateways.example.yaml", copied / "gateways.yaml")
    subprocess.run(["sh", str(copied / "compose" / "secrets.sh")], check=True)
    return copied


@pytest.fixture(scope="module")
def services(folder: Path) -> dict[str, Any]:
    """Return the services as compose parses them."""
    done = subprocess.run(
        [program("docker-compose"), "-f", str(folder / "compose.yaml"), "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def passwords(folder: Path) -> dict[str, str]:
    """Return the secrets by name."""
    return {path.name: path.read_text() for path in (folder / "secrets").iterdir() if path.suffix != ".env"}


def seconds(text: str) -> float:
    """Convert a duration such as 1m30s to seconds."""
    minutes, _, rest = text.rpartition("m")
    return 60 * float(minutes or 0) + float(rest.removesuffix("s") or 0)


def test_what_runs(services: dict[str, Any]) -> None:
    """Two relays run with their dependencies and monitoring."""
    assert services.keys() == OURS | OTHERS


def test_every_option_in_a_command_exists(services: dict[str, Any]) -> None:
    """Every option in a command exists."""
    for name in OURS:
        assert unknown(services[name]["command"]) == [], name


def test_each_service_is_bounded_restarted_and_watched(services: dict[str, Any]) -> None:
    """Each service has limits, a restart policy, a health check and minimal privileges; one-off services say
    so.
    """
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert service["logging"]["options"]["max-size"], name
        once = name == "streams"
        assert service["restart"] == ("on-failure:5" if once else "unless-stopped"), name
        # The relays use the health check of the image.
        watched = "test" in service.get("healthcheck", {}) or name.startswith("relay-")
        assert watched is not once, name


def test_relays_wait_for_the_streams_and_have_time_to_leave(services: dict[str, Any]) -> None:
    """Relays start after NATS is healthy and the streams exist; the stop timeout is longer than the drain."""
    for name in ("relay-1", "relay-2"):
        needs = {other: need["condition"] for other, need in services[name]["depends_on"].items()}
        assert needs == {"nats": "service_healthy", "streams": "service_completed_successfully"}
        (drain,) = (part for part in services[name]["command"] if part.startswith("--drain="))
        grace = seconds(services[name]["stop_grace_period"])
        delay = ServeSettings.model_fields["drain_delay"].default
        assert grace > delay + float(drain.partition("=")[2]) + END_GRACE


def test_the_relays_believe_the_proxy_alone(services: dict[str, Any]) -> None:
    """The relays trust only the proxy, by the address in the file."""
    address = services["proxy"]["networks"]["inner"]["ipv4_address"]
    for name in ("relay-1", "relay-2"):
        assert f"--trusted-proxies={address}" in services[name]["command"]


def test_only_the_proxy_and_grafana_are_published_and_on_loopback(services: dict[str, Any]) -> None:
    """Only the proxy and Grafana are published, and only on loopback."""
    published = {
        name: [port["host_ip"] for port in service["ports"]]
        for name, service in services.items()
        if "ports" in service
    }
    assert published == {"proxy": ["127.0.0.1"], "grafana": ["127.0.0.1"]}


def test_ports_of_operation_are_closed_to_the_outside(services: dict[str, Any], folder: Path) -> None:
    """The ports of NATS, its monitoring, ops and metrics are open on the internal network alone."""
    outside = {name for name, service in services.items() if "outer" in service["networks"]}
    assert outside == {"proxy", "grafana", "monitor"}
    address = services["monitor"]["networks"]["inner"]["ipv4_address"]
    (host,) = (part for part in services["monitor"]["command"] if part.startswith("--metrics-host="))
    assert host == f"--metrics-host={address}"
    config = (folder / "nats" / "compose.conf").read_text(encoding="utf-8")
    assert re.findall(r"^(listen|http): (.*)$", config, re.MULTILINE) == [
        ("listen", '"0.0.0.0:4222"'),
        ("http", '"0.0.0.0:8222"'),
    ]


def test_each_program_has_its_own_user(services: dict[str, Any]) -> None:
    """Every program that connects to NATS has a user, a password and an inbox that no other uses."""
    found = []
    for name in sorted(OURS - {"relay-2"}):
        options = dict(part.split("=", 1) for part in services[name]["command"] if part.startswith("--nats-"))
        assert options["--nats-password-file"].startswith("/run/secrets/"), name
        found.append(tuple(options[f"--nats-{key}"] for key in ("user", "password-file", "inbox-prefix")))
    for column in zip(*found, strict=True):
        assert len(set(column)) == len(found)


def test_nats_does_not_start_without_passwords(folder: Path) -> None:
    """There is no default password: without the generated ones, the configuration is an error."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NATS_")}
    line = [str(find_binary()), "-t", "-c", str(folder / "nats" / "compose.conf")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "NATS_OPERATOR_PASSWORD" in done.stdout + done.stderr


def test_what_is_mounted_is_there(services: dict[str, Any], folder: Path) -> None:
    """Every mounted file is in this folder, except for the operator's logs."""
    for name, service in services.items():
        for mount in service.get("volumes", []):
            if mount["type"] != "bind":
                continue
            assert mount.get("read_only") is True, (name, mount)
            source = Path(mount["source"]).relative_to(folder)
            if source != Path("logs") and source.parts[0] not in ("prometheus", "grafana"):
                assert (folder / source).exists(), source


def test_no_secret_is_in_the_file_or_in_a_command(services: dict[str, Any], folder: Path) -> None:
    """Programs read secrets from files; only nats-server has its passwords in the environment."""
    secrets = passwords(folder)
    assert len(set(secrets.values())) == len(secrets) >= 7
    for name, service in services.items():
        text = orjson.dumps({**service, "environment": {} if name == "nats" else service.get("environment")})
        assert not [secret for secret, value in secrets.items() if value.encode() in text], name
    assert (folder / "secrets").stat().st_mode & 0o077 == 0


def test_secrets_are_kept(folder: Path) -> None:
    """Generating secrets again changes nothing."""
    before = passwords(folder), (folder / "secrets" / "nats.env").read_text()
    subprocess.run(["sh", str(folder / "compose" / "secrets.sh")], check=True)
    assert (passwords(folder), (folder / "secrets" / "nats.env").read_text()) == before


@pytest.mark.parametrize("script", ["exit 1", "echo ' aa bb'; exit 1"])
def test_no_secret_is_empty_or_short(tmp_path: Path, script: str) -> None:
    """Without enough random bytes no secret is written, since NATS would accept an empty password."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "od").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "od").chmod(0o755)
    copied = tmp_path / "deploy" / "compose" / "secrets.sh"
    copied.parent.mkdir(parents=True)
    shutil.copy(DEPLOY / "compose" / "secrets.sh", copied)
    done = subprocess.run(
        ["sh", str(copied)],
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "cannot generate secrets/nats_operator" in done.stderr
    assert all(not path.stat().st_size for path in (tmp_path / "deploy" / "secrets").iterdir())


def here(command: list[str], folder: Path, nats: str) -> list[str]:
    """Return a command of the file with paths and addresses outside of containers, without the NATS URL."""
    positions = {
        "/run/secrets": str(folder / "secrets"),
        "/etc/nats": str(folder / "nats"),
        "0.0.0.0": "127.0.0.1",
    }
    line = []
    for part in command:
        if part.startswith("--nats-url="):
            assert part == "--nats-url=nats://nats:4222"
            part = f"--nats-url={nats}"
        for old, new in positions.items():
            part = part.replace(old, new)
        line.append(part)
    return line


@pytest.fixture
def nats_of_the_file(services: dict[str, Any], folder: Path, tmp_path: Path) -> Iterator[str]:
    """Run the file's nats-server until it is healthy; yield its URL."""
    port, monitoring = free_port(), free_port()
    command = here(services["nats"]["command"], folder, "")
    config = folder / "nats" / "nats-server.conf"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"/var/lib/nats"', f'"{tmp_path / "store"}"'), encoding="utf-8")
    options = [*command, "-a", "127.0.0.1", "-m", str(monitoring), "-p", str(port)]
    process = subprocess.Popen(
        [str(find_binary()), *options],
        env={**os.environ, **services["nats"]["environment"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        *_, health = services["nats"]["healthcheck"]["test"]
        address = health.replace(":8222", f":{monitoring}")
        eventually(lambda: _answers(address), "NATS is healthy")
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=PATIENCE) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_it_works(services: dict[str, Any], folder: Path, nats_of_the_file: str) -> None:
    """With the file's users, passwords and options an event reaches a client with a token."""
    url = nats_of_the_file
    applied = run_command(*here(services["streams"]["command"], folder, url))
    assert applied.returncode == 0, applied.stdout + applied.stderr
    key = str(folder / "secrets" / "jwt_key")
    token = ("token", "mint", "--jwt-algorithm", "HS256", "--key-file", key)
    minted = run_command(*token, "--subject", "alice", "--subjects", ">", "--expires", "1h")
    assert minted.returncode == 0, minted.stderr
    command = here(services["relay-1"]["command"], folder, url)
    assert command[0] == "serve"

    async def visit(relay: Relay) -> None:
        user = Access(
            user="publisher",
            password_file=folder / "secrets" / "nats_publisher",
            inbox_prefix="_INBOX_publisher",
        )
        async with follow(relay.ws_url, token=minted.stdout.strip()) as client:
            async with Publisher(url, name="test", access=user) as publisher:
                await publisher.publish(line("all of it"))
            assert await client.texts(1) == ["all of it"]

    with Relay(None, *command[1:]) as relay:
        run(visit(relay))
