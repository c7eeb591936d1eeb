"""The shipper of the chart, rendered by the real helm."""

import re
from typing import Any

import pytest
from tickertape.producers.shipper.files.roots import is_within
from tickertape.producers.shipper.settings import ShipSettings

from tests.support.deploy_options import unknown
from tests.support.paths import ROOT
from tests.unit.deploy.test_deploy_chart import CHART, FULL, OPEN, SHIPPER, helm, rendered

NAME = "ticks-tickertape-shipper"
OPEN_SHIPPER = (*OPEN, "--set", "shipper.enabled=true")
VALUES = {"least": SHIPPER, "full": FULL, "open": OPEN_SHIPPER}


def pod(*values: str) -> dict[str, Any]:
    """Return the pod template of the DaemonSet."""
    spec: dict[str, Any] = rendered(*values)["DaemonSet", NAME]["spec"]["template"]["spec"]
    return spec


def arguments(*values: str) -> list[str]:
    """Return the arguments of the shipper on the node ``node-1.example``."""
    (shipper,) = pod(*values)["containers"]
    assert shipper["env"] == [
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    ]
    return [argument.replace("$(NODE_NAME)", "node-1.example") for argument in shipper["args"]]


def option(arguments: list[str], name: str) -> list[str]:
    """Return the values of an option."""
    return [value.removeprefix(f"--{name}=") for value in arguments if value.startswith(f"--{name}=")]


@pytest.mark.parametrize("values", VALUES)
def test_every_argument_is_an_option_of_ship(values: str) -> None:
    """Every option is one of ``tickertape ship``, and the paths and roots are valid."""
    given = arguments(*VALUES[values])
    assert given[0] == "ship"
    assert unknown(given) == []
    paths = [value for value in given[1:] if not value.startswith("--")]
    assert paths[0] == "/var/log/containers/*.log"
    settings = ShipSettings(paths=paths, root=option(given, "root"), host=option(given, "host")[0])
    assert settings.host == ("prod-node-1.example" if values == "full" else "node-1.example")


def test_it_is_the_command_of_the_page() -> None:
    """Path and first root are those of docs/sources/kubernetes.md, and the page has no others."""
    page = (ROOT / "docs" / "sources" / "kubernetes.md").read_text(encoding="utf-8")
    given = arguments(*SHIPPER, "--set", "shipper.roots={/var/log/pods,/var/lib/docker/containers}")
    command = f"tickertape ship '{given[1]}'" + "".join(f" --root {root}" for root in option(given, "root"))
    assert f"\n{command}\n" in page


@pytest.mark.parametrize("values", VALUES)
def test_it_reads_logs_and_writes_its_state(values: str) -> None:
    """Folders of the node are read-only, except that of the state, which is no folder of the pod."""
    given, spec = arguments(*VALUES[values]), pod(*VALUES[values])
    (shipper,) = spec["containers"]
    hosts = {volume["name"]: volume["hostPath"] for volume in spec["volumes"] if "hostPath" in volume}
    mounts = {mount["name"]: mount for mount in shipper["volumeMounts"]}
    assert set(hosts) <= set(mounts)
    writable = [mount["mountPath"] for mount in mounts.values() if not mount.get("readOnly")]
    assert writable == ["/tmp", *option(given, "state-dir")]
    assert hosts.pop("state") == {"path": "/var/lib/tickertape-shipper", "type": "DirectoryOrCreate"}
    for name, host in hosts.items():
        assert host["path"] == mounts[name]["mountPath"]  # links have the paths of the node
    folders = [host["path"] for host in hosts.values()]
    needed = [*option(given, "root"), *(value for value in given[1:] if value.startswith("/"))]
    assert [path for path in needed if not any(is_within(path, folder) for folder in folders)] == []


@pytest.mark.parametrize("values", VALUES)
def test_root_has_no_privileges(values: str) -> None:
    """The user is 0 for the sake of files, without capabilities, host namespaces, or a token."""
    spec = pod(*VALUES[values])
    (shipper,) = spec["containers"]
    assert spec["securityContext"]["runAsUser"] == 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert shipper["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["automountServiceAccountToken"] is False
    assert spec["tolerations"] == [{"operator": "Exists"}]


def test_secrets_are_mounted() -> None:
    """Password and CA come from existing Secrets; a user without a name has a file of credentials."""
    given, spec = arguments(*FULL), pod(*FULL)
    (shipper,) = spec["containers"]
    names = [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
    assert names == ["shipper-nats", "relay-nats-tls"]
    mounted = [mount["mountPath"] for mount in shipper["volumeMounts"]]
    files = option(given, "nats-password-file") + option(given, "nats-ca")
    assert files == ["/run/secrets/nats/password", "/run/secrets/nats-tls/ca.crt"]
    assert all(any(is_within(file, folder) for folder in mounted) for file in files)
    given = arguments(*FULL, "--set", "shipper.nats.user=")
    assert "--nats-creds=/run/secrets/nats/creds" in given
    assert option(given, "nats-user") == []


def test_one_runs_on_each_node() -> None:
    """An update never starts a second shipper on a node, whose state the first one has locked."""
    update = rendered(*SHIPPER)["DaemonSet", NAME]["spec"]["updateStrategy"]
    assert update == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}


def test_selectors_select_only_the_shipper() -> None:
    """The selectors of relay and shipper differ; policy and monitor have that of the shipper."""
    documents = rendered(*FULL)
    relay = documents["Deployment", "ticks-tickertape"]["spec"]
    shipper = documents["DaemonSet", NAME]["spec"]
    labels = shipper["template"]["metadata"]["labels"]
    selector = shipper["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    assert not relay["selector"]["matchLabels"].items() <= labels.items()
    assert not selector.items() <= relay["template"]["metadata"]["labels"].items()
    assert documents["NetworkPolicy", NAME]["spec"]["podSelector"]["matchLabels"] == selector
    assert documents["PodMonitor", NAME]["spec"]["selector"]["matchLabels"] == selector
    services = [document["spec"] for (kind, _), document in documents.items() if kind == "Service"]
    assert not any(service["selector"].items() <= labels.items() for service in services)


def test_prometheus_finds_the_metrics() -> None:
    """The job has the name that the alerts use, and the policy lets Prometheus in, if a source is named."""
    documents = rendered(*FULL)
    (shipper,) = pod(*FULL)["containers"]
    (endpoint,) = documents["PodMonitor", NAME]["spec"]["podMetricsEndpoints"]
    assert {port["name"]: str(port["containerPort"]) for port in shipper["ports"]} == {
        endpoint["port"]: option(arguments(*FULL), "metrics-port")[0]
    }
    (job,) = [rule["replacement"] for rule in endpoint["relabelings"] if rule["targetLabel"] == "job"]
    rules = (CHART / "rules" / "alerts.yml").read_text(encoding="utf-8")
    assert f'up{{job="{job}"}}' in rules
    (ingress,) = documents["NetworkPolicy", NAME]["spec"]["ingress"]
    assert ingress["ports"] == [{"port": endpoint["port"], "protocol": "TCP"}]
    assert "ingress" not in rendered(*SHIPPER)["NetworkPolicy", NAME]["spec"]


def test_it_is_optional() -> None:
    """Without the value nothing of the shipper is rendered."""
    assert not [key for key in rendered(*OPEN) if "shipper" in key[1]]


@pytest.mark.parametrize("values", VALUES)
def test_no_option_overrides_an_argument_of_the_chart(values: str) -> None:
    """An option that the chart sets itself is rejected."""
    chart = "paths|root|host|state-dir|metrics-.+|nats-.+|subject-prefix"
    own = {value.removeprefix("--").partition("=")[0] for value in arguments(*VALUES[values])[1:]}
    for name in sorted({name for name in own if re.fullmatch(chart, name)} | {"once", "dry-run"}):
        done = helm("template", "t", str(CHART), *VALUES[values], "--set-string", f"shipper.options.{name}=x")
        assert f"shipper.options.{name} is set by the chart" in done.stderr


def test_options_are_arguments() -> None:
    """A list repeats its option; a number has no exponent."""
    assert {"--level=INFO", "--level-of=nginx=WARN", "--level-of=kubelet=ERROR"} <= set(arguments(*FULL))
    given = arguments(*SHIPPER, "--set", "shipper.options.spool-size=2000000,shipper.options.from-end=true")
    assert {"--spool-size=2000000", "--from-end"} <= set(given)


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("shipper.paths[0]=logs/*.log", "/shipper/paths/0"),
        ("shipper.paths=null", "missing property 'paths'"),
        ("shipper.roots[0]=/srv/*", "/shipper/roots/0"),
        ("shipper.roots[0]=/", "/shipper/roots/0"),
        ("shipper.host=node", "/shipper/host"),
        ("shipper.stateFolder=state", "/shipper/stateFolder"),
        ("shipper.pathes=x", "pathes"),
        ("shipper.options.journal=true", "is not for a DaemonSet"),
        ("shipper.options.nats-password=x", "must come from a Secret"),
    ],
)
def test_invalid_values_are_rejected(value: str, output: str) -> None:
    """Invalid values are rejected before installation, with the reason."""
    done = helm("template", "ticks", str(CHART), *SHIPPER, "--set", value)
    assert done.returncode != 0
    assert output in done.stderr
