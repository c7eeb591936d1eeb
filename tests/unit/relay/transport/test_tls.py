"""The certificate of the main port: validation, reload, and fallback to the previous one."""

import contextlib
import logging
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_crl
from tickertape.relay.transport.tls import Certificate, CertificateError

from tests.support.patience import PATIENCE
from tests.support.servers.client_authority import ClientAuthority, replace

AUTHORITY = trustme.CA()


class Files:
    """Certificate file and its key file."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "cert.pem"
        self.key = folder / "key.pem"
        self._version = 0

    def issue(self, name: str) -> None:
        """Write a new certificate and key for a name."""
        leaf = AUTHORITY.issue_cert(name)
        self.write(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())

    def write(self, certificate: bytes, key: bytes) -> None:
        """Write both files with a modification time that differs from the previous one."""
        self._version += 1
        for path, data in ((self.certificate, certificate), (self.key, key)):
            path.write_bytes(data)
            os.utime(path, ns=(self._version, self._version))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return a valid certificate and key for one.test."""
    found = Files(tmp_path)
    found.issue("one.test")
    return found


def negotiate(
    context: ssl.SSLContext, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, ciphers: str = ""
) -> tuple[str, str, str | None]:
    """Return the certificate's name, the TLS version and the protocol that a new client negotiates."""
    client_end, server_end = socket.socketpair()

    def serve() -> None:
        try:
            context.wrap_socket(server_end, server_side=True).close()
        except OSError:
            server_end.close()

    thread = threading.Thread(target=serve)
    thread.start()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    AUTHORITY.configure_trust(client)
    client.set_alpn_protocols(["h2", "http/1.1"])
    if maximum < ssl.TLSVersion.TLSv1_2:
        client.set_ciphers("ALL:@SECLEVEL=0")
        client.options &= ~ssl.OP_NO_TLSv1_1
    if ciphers:
        client.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    client.minimum_version = min(maximum, ssl.TLSVersion.TLSv1_2)
    client.maximum_version = maximum
    client_end.settimeout(PATIENCE)
    try:
        with client.wrap_socket(client_end) as link:
            certificate = link.getpeercert()
            assert certificate is not None
            names = [pair[1] for pair in certificate["subjectAltName"]]
            return ",".join(map(str, names)), link.version() or "", link.selected_alpn_protocol()
    finally:
        client_end.close()
        thread.join()


def test_a_certificate_is_served_with_its_key(files: Files) -> None:
    """A client gets TLS 1.3 if it supports it, and only HTTP/1.1, which WebSockets need."""
    certificate = Certificate(files.certificate, files.key)
    assert negotiate(certificate.context) == ("one.test", "TLSv1.3", "http/1.1")
    assert negotiate(certificate.context, ssl.TLSVersion.TLSv1_2)[1] == "TLSv1.2"
    assert repr(certificate) == f"Certificate({files.certificate})"


@pytest.mark.parametrize(
    ("ciphers", "accepted"),
    [
        ("ECDHE+AESGCM", True),
        ("ECDHE+CHACHA20", True),
        ("ECDHE+AES+SHA384", False),
        ("ECDHE+AES+SHA256:ECDHE+AES+SHA1", False),
        ("kRSA+AESGCM", False),
        ("kRSA+AES", False),
        ("ECDHE+AESCCM", False),
    ],
)
def test_suites_are_authenticated_and_forward_secret(files: Files, ciphers: str, *, accepted: bool) -> None:
    """TLS 1.2 is negotiated only with suites that authenticate the ciphertext and have forward secrecy."""
    certificate = Certificate(files.certificate, files.key)
    if accepted:
        assert negotiate(certificate.context, ssl.TLSVersion.TLSv1_2, ciphers)[1] == "TLSv1.2"
    else:
        with pytest.raises(ssl.SSLError):
            negotiate(certificate.context, ssl.TLSVersion.TLSv1_2, ciphers)
    offered = [suite for suite in certificate.context.get_ciphers() if suite["protocol"] == "TLSv1.2"]
    assert offered
    assert all(suite["aead"] for suite in offered)


def test_certificate_and_key_may_share_a_file(files: Files) -> None:
    """The certificate and its key may be in one file, as some programs write them."""
    files.certificate.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    assert negotiate(Certificate(files.certificate, None).context)[0] == "one.test"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:ssl.OP_NO_:DeprecationWarning")
def test_tls_1_1_is_rejected(files: Files) -> None:
    """TLS 1.1 is rejected because it is insecure (RFC 8996)."""
    certificate = Certificate(files.certificate, files.key)
    assert certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        negotiate(certificate.context, ssl.TLSVersion.TLSv1_1)


def test_a_replaced_certificate_is_served(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """A replaced certificate is served to new connections and logged with one line."""
    certificate = Certificate(files.certificate, files.key)
    context = certificate.context
    assert not certificate.refresh()
    files.issue("two.test")
    with caplog.at_level(logging.INFO):
        assert certificate.refresh()
        assert not certificate.refresh()
    assert caplog.messages == [f"loaded a new certificate from {files.certificate}"]
    assert certificate.get_context() is not context, "no session of the former context can be resumed"
    assert negotiate(certificate.get_context())[0] == "two.test"


@pytest.mark.parametrize("broken", ["half", "gone", "nonsense", "other key", "encrypted"])
def test_a_broken_new_pair_leaves_the_old_one_in_use(
    files: Files, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken new pair is logged once, and the previous one stays in use until a valid pair is written."""
    certificate = Certificate(files.certificate, files.key)
    good = files.certificate.read_bytes(), files.key.read_bytes()
    other = AUTHORITY.issue_cert("two.test")
    pair = other.cert_chain_pems[0].bytes(), other.private_key_pem.bytes()
    if broken == "gone":
        files.certificate.unlink()
    else:
        files.write(
            *{
                "half": (pair[0][:200], pair[1]),
                "nonsense": (b"nonsense", b"nonsense"),
                "other key": (pair[0], good[1]),
                "encrypted": (pair[0], encrypted(pair[1])),
            }[broken]
        )
    assert not certificate.refresh()
    assert not certificate.refresh()
    assert len(caplog.messages) == 1
    assert "the previous certificate stays in use" in caplog.messages[0]
    assert str(files.certificate) in caplog.messages[0]
    assert negotiate(certificate.context)[0] == "one.test"
    files.write(*pair)
    assert certificate.refresh()
    assert negotiate(certificate.context)[0] == "two.test"


def encrypted(key: bytes) -> bytes:
    """Return a key encrypted with a password."""
    loaded = load_pem_private_key(key, None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("no file", "[Errno 2] No such file or directory; check --tls-cert and --tls-key"),
        ("nonsense", "cannot use certificate"),
        ("other key", "KEY_VALUES_MISMATCH; set --tls-cert to a PEM chain"),
        ("no key", "cannot use certificate"),
        ("encrypted", "its private key is encrypted; check --tls-cert and --tls-key"),
    ],
)
def test_an_unusable_certificate_is_an_error_at_startup(files: Files, problem: str, message: str) -> None:
    """An unusable certificate is an error with a hint; an encrypted key does not prompt for a password."""
    key: Path | None = files.key
    if problem == "no file":
        files.certificate.unlink()
    elif problem == "nonsense":
        files.certificate.write_bytes(b"nonsense")
    elif problem == "other key":
        files.key.write_bytes(AUTHORITY.issue_cert("x.test").private_key_pem.bytes())
    elif problem == "no key":
        key = None
    else:
        files.key.write_bytes(encrypted(files.key.read_bytes()))
    with pytest.raises(CertificateError) as caught:
        Certificate(files.certificate, key)
    assert message in str(caught.value)
    assert str(files.certificate) in caught.value.message
    assert caught.value.hint


def test_a_revoked_authority_vouches_for_no_client(files: Files, tmp_path: Path) -> None:
    """Lists are checked for the whole chain: with its intermediate authority, a certificate is revoked."""
    root = ClientAuthority(tmp_path / "root", "root")
    child = ClientAuthority(tmp_path / "child", "child", root)
    client, own = child.issue("cn:a"), root.ca.read_bytes()
    for lists, accepted in (
        (b"", True),
        (root.crl() + child.crl(), True),
        (root.crl(child.ca) + child.crl(), False),
        (root.crl() + child.crl(client), False),
        (child.crl(), False),  # a list is missing
    ):
        replace(root.ca, own + lists)
        certificate = Certificate(files.certificate, files.key, root.ca, required=True)
        assert accepts(certificate.get_context(), client) is accepted, lists


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"X509 CRL", b"CRL"),
        (b"X509 CRL", b"x509 crl"),
        (b"X509 CRL", b"X509  CRL"),
        (b"-----BEGIN X509", b"----BEGIN X509"),
        (b"-----BEGIN X509", b"  -----BEGIN X509"),
        (b"-----BEGIN X509 CRL-----", b"-----BEGIN X509 CRL----"),
        (b"-----END X509 CRL-----", b""),
    ],
)
def test_a_list_that_would_be_ignored_is_an_error(
    files: Files, tmp_path: Path, old: bytes, new: bytes
) -> None:
    """A list of revoked certificates that OpenSSL would skip in silence makes the file invalid."""
    authority = ClientAuthority(tmp_path / "clients")
    for data in (
        authority.crl().replace(old, new),
        load_pem_x509_crl(authority.crl()).public_bytes(Encoding.DER),
    ):
        path = tmp_path / "ca.pem"
        path.write_bytes(authority.ca.read_bytes() + data)
        with pytest.raises(CertificateError, match="cannot use client CA"):
            Certificate(files.certificate, files.key, path)


def accepts(context: ssl.SSLContext, client: Path) -> bool:
    """Return whether a TLS handshake with a client certificate succeeds."""
    client_end, server_end = socket.socketpair()
    client_end.settimeout(PATIENCE)
    server_end.settimeout(PATIENCE)
    outcome: list[bool] = []

    def serve() -> None:
        try:
            with context.wrap_socket(server_end, server_side=True) as secured:
                outcome.append(secured.getpeercert() is not None)
        except ssl.SSLError:
            outcome.append(False)

    thread = threading.Thread(target=serve)
    thread.start()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.load_cert_chain(client)
    with contextlib.suppress(OSError), trusting.wrap_socket(client_end) as secured:
        secured.recv(1)
    thread.join(PATIENCE)
    return outcome == [True]
