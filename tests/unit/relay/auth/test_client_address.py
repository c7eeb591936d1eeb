"""Client addresses behind proxies."""

import pytest
from tickertape.relay.auth.client_address import MAX_HOPS, Networks, client_address, is_https
from tickertape.relay.core.connection_limits import Admission, ClientSlot, Limits

PROXY = "10.0.0.1"
TRUSTED = Networks("10.0.0.0/8, 2001:db8:1::5, ::1")


def client(*headers: str, peer: str = PROXY) -> str:
    """Return the client address for headers given as ``name: value``."""
    return client_address(peer, pairs(*headers), TRUSTED)


def pairs(*headers: str) -> list[tuple[str, str]]:
    """Return header pairs with names in lower case."""
    split = [header.partition(":") for header in headers]
    return [(name.lower(), value.strip()) for name, _, value in split]


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("Forwarded: for=192.0.2.60", "192.0.2.60"),
        ("Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("Forwarded: by=203.0.113.43; For = 192.0.2.60 ", "192.0.2.60"),
        ('Forwarded: for="192.0.2.60:4711"', "192.0.2.60"),
        ('Forwarded: for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ('Forwarded: For="[2001:db8:cafe::17]"', "2001:db8:cafe::17"),
        ("Forwarded: for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
        ("Forwarded: for=192.0.2.43,for=10.0.0.9", "192.0.2.43"),
        ("X-Forwarded-For: 192.0.2.60", "192.0.2.60"),
        ("X-Forwarded-For: 192.0.2.60:80", "192.0.2.60"),
        ("X-Forwarded-For: 2001:db8:cafe::17", "2001:db8:cafe::17"),
        ("X-Forwarded-For: [2001:db8:cafe::17]:80", "2001:db8:cafe::17"),
        ("X-Forwarded-For: ::ffff:192.0.2.60", "::ffff:192.0.2.60"),
        ("X-Forwarded-For: 192.0.2.60, 10.0.0.9, 10.0.0.8", "192.0.2.60"),
    ],
)
def test_a_trusted_proxy_states_the_client_address(header: str, address: str) -> None:
    """The client address is read from every form that RFC 7239 and common practice allow."""
    assert client(header) == address


@pytest.mark.parametrize("peer", ["192.0.2.1", "11.0.0.1", "2001:db8:1::6", "", "nonsense"])
def test_headers_of_untrusted_peers_are_ignored(peer: str) -> None:
    """Forwarding headers from a peer that is not a trusted proxy are ignored."""
    headers = ("Forwarded: for=198.51.100.1", "X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https")
    assert client(*headers, peer=peer) == peer
    assert not is_https("http", peer, pairs(*headers), TRUSTED)


@pytest.mark.parametrize(
    "headers",
    [
        ("X-Forwarded-For: 127.0.0.1, 10.0.0.2, 192.0.2.7",),
        ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 192.0.2.7"),
        ("X-Forwarded-For: 127.0.0.1, 192.0.2.7, 10.0.0.2",),
        ('Forwarded: for=127.0.0.1, for="_x", for=192.0.2.7',),
        ("Forwarded: for=127.0.0.1", "Forwarded: for=192.0.2.7;by=10.0.0.1"),
        ('Forwarded: for="x, for="192.0.2.7:80"',),
        ('Forwarded: for="127.0.0.1, for=192.0.2.7',),
        ('Forwarded: by="for=127.0.0.1", for=192.0.2.7',),
    ],
    ids=[
        "left",
        "header",
        "middle",
        "forwarded",
        "forwarded header",
        "open quote",
        "open quote, bare",
        "quoted",
    ],
)
def test_values_written_by_the_client_are_ignored(headers: tuple[str, ...]) -> None:
    """Values that the client wrote are ignored, since they stand to the left of those added by the proxy."""
    assert client(*headers) == "192.0.2.7"


def test_x_forwarded_for_takes_precedence() -> None:
    """``X-Forwarded-For`` takes precedence, since most proxies pass ``Forwarded`` on unchanged."""
    assert client("Forwarded: for=127.0.0.1", "X-Forwarded-For: 192.0.2.7") == "192.0.2.7"
    assert client("X-Forwarded-For: 192.0.2.7", "Forwarded: for=127.0.0.1") == "192.0.2.7"


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("Forwarded: for=unknown", PROXY),
        ("Forwarded: for=_hidden", PROXY),
        ("Forwarded: for=192.0.2.1, for=unknown", PROXY),
        ("Forwarded: for=192.0.2.1, for=unknown, for=10.0.0.7", "10.0.0.7"),
        ("Forwarded: proto=https", PROXY),
        ("Forwarded: for=", PROXY),
        ("X-Forwarded-For:", PROXY),
        ("X-Forwarded-For: 192.0.2.1,", PROXY),
        ("X-Forwarded-For: 999.0.0.1", PROXY),
        ("X-Forwarded-For: [2001:db8::1", "2001:db8::1"),
        ("X-Forwarded-For: 10.0.0.5, 10.0.0.6", "10.0.0.5"),
        ("Accept: x", PROXY),
    ],
)
def test_the_nearest_known_address_is_used(header: str, address: str) -> None:
    """Hops behind one without an address are ignored, and the nearest known address is used."""
    assert client(header) == address


def test_only_the_last_hops_are_read() -> None:
    """Only the last `MAX_HOPS` hops, written by proxies, are read, so a long header does not cost more."""
    hops = ["192.0.2.1"] + ["10.0.0.2"] * MAX_HOPS
    assert client("X-Forwarded-For: " + ", ".join(hops)) == "10.0.0.2"
    assert client("X-Forwarded-For: " + ", ".join(hops[:-1])) == "192.0.2.1"


@pytest.mark.parametrize(
    ("headers", "https"),
    [
        (("X-Forwarded-Proto: https",), True),
        (("X-Forwarded-Proto: wss",), True),
        (("X-Forwarded-Proto: https, http",), False),
        (("X-Forwarded-Proto: http",), False),
        (("Forwarded: for=192.0.2.1;proto=https",), True),
        (('Forwarded: for=192.0.2.1;proto="https"',), True),
        (("Forwarded: proto=https, for=192.0.2.1;proto=http",), False),
        (("Forwarded: for=192.0.2.1",), False),
        ((), False),
    ],
)
def test_a_trusted_proxy_states_the_client_protocol(headers: tuple[str, ...], *, https: bool) -> None:
    """The last hop's protocol, which the trusted proxy wrote, decides whether the request is HTTPS."""
    assert is_https("http", PROXY, pairs(*headers), TRUSTED) is https
    assert is_https("https", PROXY, pairs(*headers), TRUSTED)


def test_networks_contain_addresses_in_any_form() -> None:
    """An IPv4 address mapped into IPv6 and an address with a zone are found in their networks."""
    networks = Networks(" 192.0.2.0/24,fe80::/10 ,, 198.51.100.7/32")
    assert networks
    for inside in ("192.0.2.9", "::ffff:192.0.2.9", "fe80::1%eth0", "198.51.100.7"):
        assert inside in networks
    for outside in ("192.0.3.9", "::ffff:192.0.3.9", "::192.0.2.9", "198.51.100.8", "", "x", None, 5):
        assert outside not in networks
    assert not Networks("")
    assert "127.0.0.1" not in Networks("")


@pytest.mark.parametrize(
    "text", ["x", "10.0.0.0/33", "10.0.0.1/3", "2001:db8::1/3", "10.0.0.0/8;::1", "example.com"]
)
def test_an_invalid_network_is_an_error(text: str) -> None:
    """Text that is neither an address nor a network is an error."""
    with pytest.raises(ValueError, match="neither an address nor a network"):
        Networks(text)


def test_an_exempt_ipv6_address_is_exempt() -> None:
    """An exempt IPv6 address is exempt although others are counted by their network, which is not exempt."""
    admission = Admission(Limits(address_connections=1, address_rate=0.1), lambda address: address in TRUSTED)

    class FakeConnection:
        def abort(self) -> None:
            """Do nothing, since no test calls this."""

    for _ in range(5):
        for address in ("::1", "2001:db8:1::5"):
            client_slot = admission.accept(address, FakeConnection(), 0.0)
            assert isinstance(client_slot, ClientSlot)
            admission.penalize(client_slot.address, 0.0)
    assert isinstance(admission.accept("2001:db8:1::6", FakeConnection(), 0.0), ClientSlot)
    assert not isinstance(admission.accept("2001:db8:1::7", FakeConnection(), 0.0), ClientSlot)
