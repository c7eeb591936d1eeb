"""The chart, rendered by the real helm, against Kubernetes' schemas and our own requirements."""

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tickertape.relay.drain import END_GRACE
from tickertape.relay.settings import ServeSettings

from tests.support.browser.browser_desk import missing
from tests.support.deploy_options import DEPLOY, unknown
from tests.support.helm_binary import find_helm
from tickertape.net.host_names import HostNames

CHART = DEPLOY / "helm" / "tickertape"
KEY = ("--set", "auth.existingSecret=jwt")
ISSUER = ("--set", "auth.oidcIssuer=https://issuer.example.com,auth.audience=ticks")
FULL = ("--values", str(CHART / "ci" / "full-values.yaml"))
OPEN = ("--set", "auth.mode=none", "--set", "networkPolicy.enabled=false", "--set", "preStopSeconds=0")
SHIPPER = (*KEY, "--set", "shipper.enabled=true")
VALUES = {"least": KEY, "full": FULL, "open": OPEN, "shipper": SHIPPER}
VERSIONS = ("1.27", "1.37")
"""Kubernetes versions: the oldest that the chart supports, and the newest with a schema."""

OPERATORS = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, for which there is no schema here."""


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    program = find_helm()
    if program is None:
        missing("needs helm; 'python -m tests.support.helm_binary' brings it")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def rendered(*values: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rendered documents by kind and name."""
    done = helm("template", "ticks", str(CHART), "--namespace", "desk", *values)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(found) == len(documents)
    return found


def pod(documents: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """Return the pod template of the deployment."""
    (deployment,) = (document for (kind, _), document in documents.items() if kind == "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("values", VALUES)
def test_helm_lints_it(values: str) -> None:
    """helm lint reports nothing in strict mode."""
    done = helm("lint", "--strict", str(CHART), *VALUES[values])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES)
def test_kubernetes_knows_every_field(values: str) -> None:
    """Every field is valid in the oldest and the newest version."""
    for (kind, _), document in rendered(*VALUES[values]).items():
        if kind in OPERATORS:
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_what_there_is() -> None:
    """The default values render few documents, and the full values all of them."""
    least = {kind for kind, _ in rendered(*KEY)}
    assert least == {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"}
    assert {kind for kind, _ in rendered(*FULL)} - least == {
        *OPERATORS,
        "DaemonSet",
        "HorizontalPodAutoscaler",
        "Ingress",
    }


@pytest.mark.parametrize("values", VALUES)
def test_every_argument_is_an_option_of_serve(values: str) -> None:
    """Every option on the rendered command line is one of ``tickertape serve``."""
    (relay,) = pod(rendered(*VALUES[values]))["containers"]
    assert relay["args"][0] == "serve"
    assert unknown(relay["args"]) == []


@pytest.mark.parametrize("values", VALUES)
def test_pods_are_restricted(values: str) -> None:
    """Pods satisfy the standard `restricted`, and their root is read-only."""
    spec = pod(rendered(*VALUES[values]))
    (relay,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert relay["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("values", VALUES)
def test_there_is_time_to_leave(values: str) -> None:
    """The grace period covers the pre-stop delay, the drain, and a margin."""
    spec = pod(rendered(*VALUES[values]))
    (relay,) = spec["containers"]
    (drain,) = (int(part.partition("=")[2]) for part in relay["args"] if part.startswith("--drain="))
    before = 0 if values == "open" else 5
    assert ("lifecycle" in relay) == (before > 0)
    delay = ServeSettings.model_fields["drain_delay"].default
    assert spec["terminationGracePeriodSeconds"] > before + delay + drain + END_GRACE


def test_probes_ask_the_ops_port() -> None:
    """Liveness never depends on NATS; readiness does."""
    (relay,) = pod(rendered(*KEY))["containers"]
    requested = {kind: relay[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: get["path"] for kind, get in requested.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {get["port"] for get in requested.values()} == {"ops"}
    assert {port["name"]: port["containerPort"] for port in relay["ports"]} == {"feed": 8080, "ops": 9464}


def test_prometheus_may_use_the_names_of_the_service() -> None:
    """The ops port accepts every DNS name of the metrics Service and of its pods, and listed ones."""
    (relay,) = pod(rendered(*KEY, "--set", "ops.allowedHosts={relay.example.com}"))["containers"]
    (option,) = [value for value in relay["args"] if value.startswith("--ops-allowed-hosts=")]
    names = HostNames(option.partition("=")[2])
    service = "ticks-tickertape-metrics.desk"
    for name in (service, f"{service}.svc", f"{service}.svc.cluster.local", "relay.example.com", "10.1.2.3"):
        assert names.allows(f"{name}:9464"), name
    assert names.allows(f"10-1-2-3.{service}.svc.cluster.local:9464")
    assert not names.allows("evil.example:9464")


def test_it_scales_by_connections() -> None:
    """With autoscaling only the autoscaler sets the number of replicas."""
    documents = rendered(*FULL)
    assert "replicas" not in documents["Deployment", "ticks-tickertape"]["spec"]
    scaler = documents["HorizontalPodAutoscaler", "ticks-tickertape"]["spec"]
    assert scaler["metrics"][0]["pods"] == {
        "metric": {"name": "tickertape_connections"},
        "target": {"type": "AverageValue", "averageValue": "10000"},
    }
    assert scaler["scaleTargetRef"]["name"] == "ticks-tickertape"


def test_secrets_are_mounted_and_never_written_out() -> None:
    """The chart creates no Secret; it mounts existing ones."""
    spec = pod(rendered(*KEY, "--set", "nats.existingSecret=relay-nats"))
    names = {volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
    assert names == {"jwt", "relay-nats"}
    (relay,) = spec["containers"]
    assert "env" not in relay
    mounted = [mount["mountPath"] for mount in relay["volumeMounts"]]
    files = [part.partition("=")[2] for part in relay["args"] if "-file=" in part]
    assert sorted(files) == [
        "/run/secrets/jwt/key",
        "/run/secrets/nats/password",
        "/run/secrets/revoked/revoked",
    ]
    assert all(any(file.startswith(f"{mount_path}/") for mount_path in mounted) for file in files)


@pytest.mark.parametrize(
    ("values", "secret"),
    [
        (KEY, "jwt"),
        ((*KEY, "--set", "auth.revokedSecret=left"), "left"),
        (("--set", "auth.jwksUrl=https://a.example/keys", "--set", "auth.revokedSecret=left"), "left"),
        ((*KEY, "--set", "auth.revoked=false"), None),
        (("--set", "auth.jwksUrl=https://a.example/keys"), None),
        (OPEN, None),
    ],
)
def test_revocations_come_from_a_secret(values: tuple[str, ...], secret: str | None) -> None:
    """The key `revoked` of the Secret is required and read, so that no misspelt key revokes nothing."""
    spec = pod(rendered(*values))
    found = {
        volume["secret"]["secretName"]: volume for volume in spec["volumes"] if volume["name"] == "revoked"
    }
    assert list(found) == ([secret] if secret else [])
    assert all("optional" not in volume["secret"] for volume in found.values())
    (relay,) = spec["containers"]
    assert ("--jwt-revoked-file=/run/secrets/revoked/revoked" in relay["args"]) == bool(secret)
    assert ("/run/secrets/revoked" in {mount["mountPath"] for mount in relay["volumeMounts"]}) == bool(secret)


@pytest.mark.parametrize("values", VALUES)
def test_no_option_overrides_an_argument_of_the_chart(values: str) -> None:
    """An option that the chart sets itself is rejected, since it could lift a restriction."""
    (relay,) = pod(rendered(*VALUES[values]))["containers"]
    own = [argument.removeprefix("--").partition("=")[0] for argument in relay["args"][1:]]
    own = own[: own.index("client-rate")] if "client-rate" in own else own
    for name in (*own, "insecure", "jwt-audience", "jwt-issuer"):
        done = helm("template", "ticks", str(CHART), *VALUES[values], "--set-string", f"options.{name}=x")
        assert f"options.{name} is set by the chart" in done.stderr


def test_values_are_arguments_as_they_are() -> None:
    """A value with characters that YAML interprets is still one argument."""
    for text in ("ticks #1", "a: b", "'a", "- a", "&a", "100%s"):
        (relay,) = pod(rendered(*KEY, "--set-string", f"auth.audience={text}"))["containers"]
        assert f"--jwt-audience={text}" in relay["args"]
    (relay,) = pod(rendered(*KEY, "--set", "options.client-rate=200,options.complete-rate=0.5"))["containers"]
    assert {"--client-rate=200", "--complete-rate=0.5"} <= set(relay["args"])


def test_pods_listen_with_ipv6_where_the_cluster_has_it() -> None:
    """Both ports listen on the address of the value ``host``."""
    for values, address in (((), "0.0.0.0"), (("--set", "host=::"), "::")):
        (container,) = pod(rendered(*KEY, *values))["containers"]
        assert {f"--host={address}", f"--ops-host={address}"} <= set(container["args"])


def test_an_issuer_replaces_the_key() -> None:
    """With an issuer, the relay finds the keys itself and requires the audience."""
    (relay,) = pod(rendered(*ISSUER))["containers"]
    assert {"--oidc-issuer=https://issuer.example.com", "--jwt-audience=ticks"} <= set(relay["args"])
    assert not [argument for argument in relay["args"] if "jwt-key" in argument or "jwks" in argument]


def test_the_ops_port_is_closed_by_default() -> None:
    """Only the feed is open; the ops port is open to named sources; no service has an external address."""
    least, full = rendered(*KEY), rendered(*FULL)
    services = {name: document["spec"] for (kind, name), document in least.items() if kind == "Service"}
    assert {name: spec["type"] for name, spec in services.items()} == {"ticks-tickertape": "ClusterIP"}
    assert [port["targetPort"] for port in services["ticks-tickertape"]["ports"]] == ["feed"]
    ingress = least["NetworkPolicy", "ticks-tickertape"]["spec"]["ingress"]
    assert [port["port"] for rule in ingress for port in rule["ports"]] == ["feed"]
    (_, ops) = full["NetworkPolicy", "ticks-tickertape"]["spec"]["ingress"]
    assert ops["ports"] == [{"port": "ops", "protocol": "TCP"}]
    assert ops["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]


def test_selectors_select_the_pods() -> None:
    """Services, policy and budget select the pods; the monitor selects only the metrics service."""
    documents = rendered(*FULL)
    labels = documents["Deployment", "ticks-tickertape"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        documents["Service", "ticks-tickertape"]["spec"]["selector"],
        documents["Service", "ticks-tickertape-metrics"]["spec"]["selector"],
        documents["NetworkPolicy", "ticks-tickertape"]["spec"]["podSelector"]["matchLabels"],
        documents["PodDisruptionBudget", "ticks-tickertape"]["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    expected = documents["ServiceMonitor", "ticks-tickertape"]["spec"]["selector"]["matchLabels"].items()
    matched = [
        name
        for (kind, name), document in documents.items()
        if kind == "Service" and expected <= document["metadata"]["labels"].items()
    ]
    assert matched == ["ticks-tickertape-metrics"]


@pytest.mark.parametrize(
    ("values", "output"),
    [
        ((), "without a key"),
        ((*KEY, "--set", "auth.jwksUrl=https://a.example/keys"), "both set"),
        ((*ISSUER, "--set", "auth.jwksUrl=https://a.example/keys"), "both set"),
        ((*ISSUER, "--set", "auth.audience="), "without auth.audience"),
        ((*KEY, "--set", "auht.mode=none"), "auht"),
        ((*KEY, "--set", "auth.revokd=true"), "revokd"),
        ((*KEY, "--set", "auth.revoked=false", "--set", "auth.revokedSecret=x"), "remove one"),
        *(
            ((*OPEN, "--set", f"auth.{name}"), "auth.mode is none")
            for name in (
                *("revokedSecret=x", "existingSecret=x", "audience=x", "issuer=x"),
                *("jwksUrl=https://a.example/keys", "oidcIssuer=https://a.example"),
            )
        ),
        ((*ISSUER, "--set", "auth.existingSecret=x"), "both set"),
        ((*ISSUER, "--set", "auth.algorithm=HS256"), "keys of an issuer are public"),
        ((*ISSUER, "--set", "auth.issuer=https://b.example"), "auth.issuer differs"),
        ((*ISSUER, "--set", "auth.oidcIssuer=http://a.example"), "/auth/oidcIssuer"),
        *(
            ((*KEY, "--set", f"{name}=null"), f"missing property '{name.rpartition('.')[2]}'")
            for name in ("auth.mode", "auth.algorithm", "auth.revoked", "networkPolicy.enabled", "workers")
        ),
        ((*KEY, "--set-json", "networkPolicy.natsPorts=[]"), "/networkPolicy/natsPorts"),
        ((*KEY, "--set", "ops.clusterDomain=a\\,b.example"), "/ops/clusterDomain"),
        ((*KEY, "--set", "trustedProxies[0]=proxy"), "/trustedProxies/0"),
        ((*KEY, "--set", "allowedOrigins[0]=*"), "/allowedOrigins/0"),
        ((*KEY, "--set", "auth.audience=ticks\n- --insecure"), "/auth/audience"),
        ((*KEY, "--set", "options.jwt-revoked-file=/x"), "is set by the chart"),
        ((*KEY, "--set", "networkPolicy.feedFrom[0].podSelecter.matchLabels.a=b"), "podSelecter"),
        ((*KEY, "--set", "networkPolicy.feedFrom[0].podSelector.matchLables.a=b"), "matchLables"),
        ((*KEY, "--set", "networkPolicy.natsTo[0].ipBlock.cdir=10.0.0.0/8"), "cidr"),
        ((*KEY, "--set", "networkPolicy.extraEgress[0].too[0].ipBlock.cidr=10.0.0.0/8"), "too"),
        ((*KEY, "--set", "nats.url=http://nats:4222"), "/nats/url"),
        ((*KEY, "--set", "nats.url=nats://relay:secret@nats:4222"), "/nats/url"),
        ((*KEY, "--set", "replicas=-1"), "/replicas"),
        ((*KEY, "--set", "serviceMonitor.enabled=true"), "networkPolicy.metricsFrom"),
        ((*KEY, "--set", "options.port=9"), "is set by the chart"),
        ((*KEY, "--set", "options.jwt-key=x"), "must come from a Secret"),
        (
            (*KEY, "--set", "autoscaling.enabled=true", "--set", "autoscaling.targetConnections=0"),
            "set one of them",
        ),
    ],
)
def test_invalid_values_are_rejected(values: tuple[str, ...], output: str) -> None:
    """Invalid values are rejected before installation, with the reason."""
    done = helm("template", "ticks", str(CHART), *values)
    assert done.returncode != 0
    assert output in done.stderr


def rules(*values: str) -> dict[str, dict[str, Any]]:
    """Return the alerts of the chart by name."""
    found = rendered(*KEY, "--set", "prometheusRule.enabled=true", *values)[
        "PrometheusRule", "ticks-tickertape"
    ]
    every = [rule for group in found["spec"]["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule for rule in every if "alert" in rule}


def test_alerts_are_those_of_prometheus() -> None:
    """The chart has all alerts; with a target of its own it also notices that there is none."""
    path = DEPLOY / "prometheus" / "rules" / "alerts.yml"
    shipped = {
        rule["alert"]: rule
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    }
    assert rules() == shipped
    scraped = rules("--set", "serviceMonitor.enabled=true", "--set", "networkPolicy.enabled=false")
    up = scraped["TickertapeRelayDown"].pop("expr")
    assert up == 'up{job="tickertape-relay"} == 0 or absent(up{job="tickertape-relay"})'
    del shipped["TickertapeRelayDown"]["expr"]
    assert scraped == shipped


def test_alerts_link_to_the_page_of_the_operator() -> None:
    """The page that a value names replaces that of Prometheus, and has to be absolute."""
    page = "https://wiki.example.com/tickertape/alerts?v=1"
    for name, rule in rules("--set", f"prometheusRule.runbookBaseUrl={page}").items():
        assert rule["annotations"]["runbook_url"] == f"{page}#{name.lower()}"
    for url in (
        "deploy/README.md",
        "ftp://wiki.example.com",
        "https://wiki.example.com/a#b",
        "https://{{ a }}",
    ):
        done = helm("template", "t", str(CHART), *KEY, "--set", f"prometheusRule.runbookBaseUrl={url}")
        assert "/prometheusRule/runbookBaseUrl" in done.stderr


def test_every_value_is_read() -> None:
    """A template uses every value; an unused value would be misleading."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    templates = "".join(
        path.read_text(encoding="utf-8") for path in sorted(Path(CHART, "templates").iterdir())
    )
    unused = [name for name in values if f".Values.{name}" not in templates]
    assert unused == []
