"""Host names by which a server may be addressed."""

import pytest

from tickertape.net.host_names import HostNames, rebindable_name

NAMES = HostNames("relay.example.com, *.ticks.svc.cluster.local, Ticks.Desk")


@pytest.mark.parametrize(
    "host",
    [
        "", "127.0.0.1", "127.0.0.1:9464", "10.1.2.3:9464", "[::1]", "[::1]:9464", "[fe80::1]:80",
        "localhost", "localhost:9464", "LOCALHOST", "localhost.", "a.localhost", "relay-1:9464", "relay_1",
        "relay.example.com",
        "Relay.Example.Com.:9464", "10-1-2-3.ticks.svc.cluster.local", "a.b.ticks.svc.cluster.local:9464",
        "ticks.desk",
    ],
)  # fmt: skip
def test_own_names_are_allowed(host: str) -> None:
    """Addresses, local names and listed names are allowed, with any port."""
    assert NAMES.allows(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:9464", "127.0.0.1.evil.example", "localhost.evil.example",
        "relay.example.com.evil.example", "xrelay.example.com", "x.relay.example.com",
        "ticks.svc.cluster.local", "xticks.svc.cluster.local", "a$b.example", "evil.example:port",
        "1.2.3.4.5", "user@127.0.0.1", "[::1].evil.example", "127.0.0.1 evil.example",
        "127.0.0.1,evil.example",
    ],
)  # fmt: skip
def test_names_that_others_own_are_not(host: str) -> None:
    """A name whose owner could point it here is not allowed, however similar it is."""
    assert not NAMES.allows(host)
    assert rebindable_name(host)


@pytest.mark.parametrize(
    "text", ["*", "*.", "a..b", "http://a.example", "a.example:80", "*.*.example", "a b", "[::1]"]
)
def test_a_misspelled_name_is_an_error(text: str) -> None:
    """An entry that is not a host name is an error, since it would match nothing."""
    with pytest.raises(ValueError, match="is not a host name"):
        HostNames(f"ok.example,{text}")
