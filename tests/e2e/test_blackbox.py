"""The probes and those of blackbox_exporter at the same real targets: each verdict, and each difference."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers.blackbox_exporter import Target, find_faults
from tests.support.servers.compared_servers import Certificates, compared_servers

PONG = [{"send": "PING"}, {"expect": r"^\+PONG"}]
SMTP_STEPS = [
    {"expect": "^220 "}, {"send": "EHLO monitor\r\n"}, {"expect": "^250.STARTTLS"},
    {"send": "STARTTLS\r\n"}, {"expect": "^220 "}, {"starttls": True},
]  # fmt: skip
SMTP_MODULE = [
    {"expect": "^220 ", "send": "EHLO monitor\r"}, {"expect": "^250.STARTTLS", "send": "STARTTLS\r"},
    {"expect": "^220 "}, {"starttls": True},
]  # fmt: skip


def tcp_targets(ports: Mapping[str, int], files: Certificates) -> Iterator[Target]:
    """Yield the targets of TCP and TLS."""

    def tcp(name: str, port: str, good: bool, ours: Any = None, theirs: Any = None, **more: Any) -> Target:
        address = f"localhost:{ports[port]}"
        probe = {"kind": "tcp", "address": address, **(ours or {})}
        module = {"prober": "tcp", "tcp": {"preferred_ip_protocol": "ip4", **(theirs or {})}}
        return Target(name, probe, module, address, good, **more)

    def tls(name: str, port: str, good: bool, ours: Any = None, **more: Any) -> Target:
        names = {
            "ca": "ca_file",
            "cert": "cert_file",
            "key": "key_file",
            "skip_verify": "insecure_skip_verify",
        }
        ours = {"ca": files.ca} if ours is None else ours
        config = {names.get(key, key): value for key, value in ours.items()}
        if "cert" in ours:
            config["key_file"] = ours["cert"]
        return tcp(name, port, good, {"kind": "tls", **ours}, {"tls": True, "tls_config": config}, **more)

    ping = {"send": "PING\r\n", "expect": r"^\+PONG"}
    talk = {"query_response": PONG}
    mail = {"steps": SMTP_STEPS, "ca": files.ca}
    yield tcp("open port", "silent", True)
    yield tcp("closed port", "closed", False)
    yield tcp("dropped packets", "black hole", False, slow=True)
    yield tcp("redis", "redis", True, ping, talk)
    yield tcp("redis with a password", "redis locked", False, ping, talk, slow=True)
    yield tcp(
        "redis, authenticated",
        "redis locked",
        True,
        {
            "steps": [
                {"send": "AUTH hunter22\r\n"},
                {"expect": r"^\+OK"},
                {"send": "PING\r\n"},
                {"expect": "PONG"},
            ]
        },
        {"query_response": [{"send": "AUTH hunter22\r"}, {"expect": r"^\+OK"}, *PONG]},
    )
    yield tcp("ssh", "ssh", True, {"expect": "^SSH-2.0-"}, {"query_response": [{"expect": "^SSH-2.0-"}]})
    yield tcp(
        "no ssh", "banner", False, {"expect": "^SSH-"}, {"query_response": [{"expect": "^SSH-"}]}, slow=True
    )
    yield tcp(
        "no banner", "silent", False, {"expect": "^220"}, {"query_response": [{"expect": "^220"}]}, slow=True
    )
    yield tcp(
        "end without a banner", "dismissing", False, {"expect": "."}, {"query_response": [{"expect": "."}]}
    )
    yield tcp("flood without a line", "flood", False, {"expect": "y"}, {"query_response": [{"expect": "y"}]})
    yield tcp(
        "smtp with STARTTLS",
        "smtp",
        True,
        mail,
        {"query_response": SMTP_MODULE, "tls_config": {"ca_file": files.ca}},
    )
    yield tcp(
        "smtp, unknown authority", "smtp", False, {"steps": SMTP_STEPS}, {"query_response": SMTP_MODULE}
    )
    yield tcp(
        "accepts and drops",
        "dismissing",
        False,
        {"hold": "1s"},
        difference="a connection that the peer drops has been established; we hold it",
    )
    yield tcp(
        "prompt",
        "prompt",
        True,
        {"expect": "^login: "},
        {"query_response": [{"expect": "^login: "}]},
        slow=True,
        difference="it waits for a line break, which no prompt has",
    )
    yield tls("tls", "tls", True)
    yield tls("tls, unknown authority", "tls", False, {})
    yield tls("tls, not verified", "tls", True, {"skip_verify": True})
    yield tls("tls, expired", "tls expired", False)
    yield tls("tls, expires soon", "tls expires", True)  # degraded
    yield tls("tls, other name", "tls other name", False)
    yield tls(
        "tls, other name expected", "tls other name", True, {"ca": files.ca, "server_name": "other.test"}
    )
    yield tls("no tls", "banner", False)
    yield tls("silent in place of tls", "silent", False, slow=True)
    line = {"query_response": [{"expect": "^220"}], "tls": True}
    files_of_client = {"ca_file": files.ca, "cert_file": files.client, "key_file": files.client}
    yield tcp(
        "client certificate",
        "tls client",
        True,
        {"expect": "^220", "tls": True, "ca": files.ca, "cert": files.client},
        {**line, "tls_config": files_of_client},
    )
    yield tcp(
        "no client certificate",
        "tls client",
        False,
        {"expect": "^220", "tls": True, "ca": files.ca},
        {**line, "tls_config": {"ca_file": files.ca}},
    )


def http_targets(ports: Mapping[str, int], files: Certificates) -> Iterator[Target]:
    """Yield the targets of HTTP."""

    def http(name: str, path: str, good: bool, ours: Any = None, theirs: Any = None, **more: Any) -> Target:
        port = more.pop("port", "http")
        url = f"{'https' if port.startswith('https') else 'http'}://localhost:{ports[port]}{path}"
        module = {"prober": "http", "http": {"preferred_ip_protocol": "ip4", **(theirs or {})}}
        return Target(name, {"kind": "http", "url": url, **(ours or {})}, module, url, good, **more)

    ca, tls = {"ca": files.ca}, {"tls_config": {"ca_file": files.ca}}
    follow, stay = {"follow_redirects": True}, {"follow_redirects": False}
    body = "fail_if_body_not_matches_regexp"
    yield http("200", "/ok", True)
    yield http("500", "/500", False)
    yield http("404", "/404", False)
    yield http("404 as expected", "/404", True, {"status": 404}, {"valid_status_codes": [404]})
    yield http("204", "/204", True, {"status": "2xx"})
    yield http("redirect", "/redirect", True, follow)
    yield http("redirect not followed", "/redirect", False, None, stay)
    yield http("redirect loop", "/loop", False, follow)
    yield http("body", "/ok", True, {"body_matches": '"up"'}, {body: ['"up"']})
    yield http("wrong body", "/ok", False, {"body_matches": "down"}, {body: ["down"]})
    yield http(
        "bad word", "/ok", False, {"body_not_matches": "lag"}, {"fail_if_body_matches_regexp": ["lag"]}
    )
    yield http(
        "header",
        "/ok",
        True,
        {"header_matches": {"Content-Type": "json"}},
        {"fail_if_header_not_matches": [{"header": "Content-Type", "regexp": "json"}]},
    )
    yield http(
        "no header",
        "/ok",
        False,
        {"header_matches": {"X-None": "."}},
        {"fail_if_header_not_matches": [{"header": "X-None", "regexp": "."}]},
    )
    yield http(
        "post",
        "/echo",
        True,
        {"method": "POST", "send": "order", "body_matches": "^POST order$"},
        {"method": "POST", "body": "order", body: ["^POST order$"]},
    )
    yield http(
        "user",
        "/private",
        True,
        {"headers": {"Authorization": "Basic bWU6aHVudGVyMjI="}},
        {"basic_auth": {"username": "me", "password": "hunter22"}},
    )
    yield http("no user", "/private", False)
    yield http("slow", "/slow", False, slow=True)
    yield http("truncated body", "/short", False, {"body_matches": "up"}, {body: ["up"]})
    yield http("no http", "/", False, port="banner")
    yield http("no server", "/", False, port="closed")
    yield http("https", "/ok", True, ca, tls, port="https")
    yield http("https, unknown authority", "/ok", False, port="https")
    yield http("https, expired", "/ok", False, ca, tls, port="https expired")
    yield http("https, other name", "/ok", False, ca, tls, port="https other name")


def other_targets(ports: Mapping[str, int], files: Certificates) -> Iterator[Target]:
    """Yield the targets of DNS, gRPC and ICMP."""

    def dns(name: str, query: str, good: bool, ours: Any = None, theirs: Any = None, **more: Any) -> Target:
        address = f"127.0.0.1:{ports[more.pop('port', 'dns')]}"
        settings = {"query_name": query, "query_type": "A", "preferred_ip_protocol": "ip4", **(theirs or {})}
        probe = {"kind": "dns", "address": address, "query": query, **(ours or {})}
        return Target(name, probe, {"prober": "dns", "dns": settings}, address, good, **more)

    def grpc(
        name: str, service: str, good: bool, ours: Any = None, theirs: Any = None, **more: Any
    ) -> Target:
        address = f"localhost:{ports[more.pop('port', 'grpc')]}"
        settings = {"service": service, "preferred_ip_protocol": "ip4", **(theirs or {})}
        probe = {"kind": "grpc", "address": address, "service": service, **(ours or {})}
        return Target(name, probe, {"prober": "grpc", "grpc": settings}, address, good, **more)

    def answer(pattern: str) -> dict[str, Any]:
        return {"validate_answer_rrs": {"fail_if_not_matches_regexp": [pattern]}}

    yield dns("name", "gw.test", True)
    yield dns("name over tcp", "gw.test", True, {"transport": "tcp"}, {"transport_protocol": "tcp"})
    yield dns("no name", "none.test", False)
    yield dns("no name as expected", "none.test", True, {"rcode": "NXDOMAIN"}, {"valid_rcodes": ["NXDOMAIN"]})
    yield dns("refused", "refused.test", False)
    yield dns(
        "answer",
        "www.gw.test",
        True,
        {"answer_matches": r"^10\.0\.0\.1$"},
        {"validate_answer_rrs": {"fail_if_none_matches_regexp": [r"\s10\.0\.0\.1$"]}},
    )
    yield dns("wrong answer", "gw.test", False, {"answer_matches": r"^10\.1\."}, answer(r"\s10\.1\."))
    yield dns("no answer", "gw.test", False, port="dns silent", slow=True)
    yield dns("no name server", "gw.test", False, port="closed")
    yield dns(
        "no record",
        "gw.test",
        False,
        {"type": "SRV"},
        {"query_type": "SRV"},
        difference="it accepts an answer without any record of the type",
    )
    tls = {"tls": True, "tls_config": {"ca_file": files.ca}}
    yield grpc("grpc", "", True)
    yield grpc("service", "orders", True)
    yield grpc("service that does not serve", "quotes", False)
    yield grpc("unknown service", "none", False)
    yield grpc("grpc with tls", "", True, {"tls": True, "ca": files.ca}, tls, port="grpcs")
    yield grpc("grpc, unknown authority", "", False, {"tls": True}, {"tls": True}, port="grpcs", slow=True)
    yield grpc("no grpc", "", False, port="banner", slow=True)
    yield grpc("no grpc server", "", False, port="closed", slow=True)
    icmp = {"prober": "icmp", "icmp": {"preferred_ip_protocol": "ip4"}}
    yield Target("loopback", {"kind": "icmp", "address": "127.0.0.1"}, icmp, "127.0.0.1", True)


def test_each_verdict_is_right_and_each_difference_is_explained(tmp_path: Path) -> None:
    """Our verdict is right at every target; where blackbox_exporter's is another one, the table says why."""

    async def main() -> list[str]:
        files = Certificates(tmp_path)
        async with compared_servers(tmp_path, files) as ports:
            targets = [*tcp_targets(ports, files), *http_targets(ports, files), *other_targets(ports, files)]
            assert len(targets) >= 40
            return await find_faults(tmp_path, targets)

    assert asyncio.run(main()) == []


@pytest.mark.parametrize("name", ["prometheus-blackbox-exporter", "redis-tools"])
def test_ci_installs_the_programs(name: str) -> None:
    """CI has what the comparison needs, so that it is not skipped there."""
    assert name in (Path(__file__).parents[2] / ".ci" / "run").read_text()
