"""Tests of the main port's certificate: what is refused, what is read again, what stays."""

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
from tickertape.relay.transport.tls import Certificate, CertificateError

from tests.support.patience import PATIENCE

AUTHORITY = trustme.CA()


class Files:
    """A certificate and its key on the disk."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "cert.pem"
        self.key = folder / "key.pem"
        self._turn = 0

    def issue(self, name: str) -> None:
        """Write a new pair."""
        leaf = AUTHORITY.issue_cert(name)
        self.write(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())

    def write(self, certificate: bytes, key: bytes) -> None:
        """Write these, at another time than before, however coarse the clock of the disk is."""
        self._turn += 1
        for path, data in ((self.certificate, certificate), (self.key, key)):
            path.write_bytes(data)
            os.utime(path, ns=(self._turn, self._turn))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A good pair for one.test."""
    found = Files(tmp_path)
    found.issue("one.test")
    return found


def greeted(
    context: ssl.SSLContext, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> tuple[str, str, str | None]:
    """Name in the certificate, TLS version and protocol that a new client gets."""
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            context.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    AUTHORITY.configure_trust(client)
    client.set_alpn_protocols(["h2", "http/1.1"])
    if most < ssl.TLSVersion.TLSv1_2:
        client.set_ciphers("ALL:@SECLEVEL=0")
        client.options &= ~ssl.OP_NO_TLSv1_1
    client.minimum_version = min(most, ssl.TLSVersion.TLSv1_2)
    client.maximum_version = most
    near.settimeout(PATIENCE)
    try:
        with client.wrap_socket(near) as link:
            certificate = link.getpeercert()
            assert certificate is not None
            names = [pair[1] for pair in certificate["subjectAltName"]]
            return ",".join(map(str, names)), link.version() or "", link.selected_alpn_protocol()
    finally:
        near.close()
        thread.join()


def test_a_certificate_is_served_with_its_key(files: Files) -> None:
    """TLS 1.3 where the client knows it, and HTTP/1.1 alone, since WebSockets need it."""
    certificate = Certificate(files.certificate, files.key)
    assert greeted(certificate.context) == ("one.test", "TLSv1.3", "http/1.1")
    assert greeted(certificate.context, ssl.TLSVersion.TLSv1_2)[1] == "TLSv1.2"
    assert repr(certificate) == f"Certificate({files.certificate})"


def test_certificate_and_key_may_stand_in_one_file(files: Files) -> None:
    """As some programs write them."""
    files.certificate.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    assert greeted(Certificate(files.certificate, None).context)[0] == "one.test"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:ssl.OP_NO_:DeprecationWarning")
def test_tls_1_1_is_refused(files: Files) -> None:
    """It is broken (RFC 8996)."""
    certificate = Certificate(files.certificate, files.key)
    assert certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        greeted(certificate.context, ssl.TLSVersion.TLSv1_1)


def test_a_certificate_that_was_replaced_is_served_from_then_on(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """To new connections, with one line."""
    certificate = Certificate(files.certificate, files.key)
    context = certificate.context
    assert not certificate.refresh()
    files.issue("two.test")
    with caplog.at_level(logging.INFO):
        assert certificate.refresh()
        assert not certificate.refresh()
    assert caplog.messages == [f"loaded a new certificate from {files.certificate}"]
    assert certificate.context is context, "the door has it"
    assert greeted(context)[0] == "two.test"


@pytest.mark.parametrize("broken", ["half", "gone", "nonsense", "other key", "encrypted"])
def test_a_broken_new_pair_leaves_the_old_one_in_use(
    files: Files, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line, until it is mended."""
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
    assert greeted(certificate.context)[0] == "one.test"
    files.write(*pair)
    assert certificate.refresh()
    assert greeted(certificate.context)[0] == "two.test"


def encrypted(key: bytes) -> bytes:
    """A key with a password."""
    loaded = load_pem_private_key(key, None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no file", "[Errno 2] No such file or directory; check --tls-cert and --tls-key"),
        ("nonsense", "cannot use certificate"),
        ("other key", "KEY_VALUES_MISMATCH; set --tls-cert to a PEM chain"),
        ("no key", "cannot use certificate"),
        ("encrypted", "its private key is encrypted; check --tls-cert and --tls-key"),
    ],
)
def test_what_cannot_be_used_is_told_at_the_start(files: Files, what: str, words: str) -> None:
    """In one line, with what to do; an encrypted key does not ask on the terminal."""
    key: Path | None = files.key
    if what == "no file":
        files.certificate.unlink()
    elif what == "nonsense":
        files.certificate.write_bytes(b"nonsense")
    elif what == "other key":
        files.key.write_bytes(AUTHORITY.issue_cert("x.test").private_key_pem.bytes())
    elif what == "no key":
        key = None
    else:
        files.key.write_bytes(encrypted(files.key.read_bytes()))
    with pytest.raises(CertificateError) as caught:
        Certificate(files.certificate, key)
    assert words in str(caught.value)
    assert str(files.certificate) in caught.value.message
    assert caught.value.hint
