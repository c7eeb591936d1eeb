"""A certificate authority for clients, with every kind of name, any lifetime, and a list of revocations."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_KINDS: dict[str, Callable[[str], x509.GeneralName]] = {
    "dns": x509.DNSName,
    "uri": x509.UniformResourceIdentifier,
    "email": x509.RFC822Name,
}


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


class ClientAuthority:
    """A certificate authority with its files in a folder.

    Args:
        folder: folder of its files.
        name: common name.
        parent: authority that issues the certificate of this one; None for a self-signed certificate.

    Attributes:
        ca: PEM file of the authority's own certificate.
    """

    def __init__(self, folder: Path, name: str = "clients", parent: "ClientAuthority | None" = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name, self._key = folder, _name(name), generate_private_key(SECP256R1())
        self._issued = 0
        self.ca = folder / "ca.pem"
        issuer = parent or self
        certificate = (
            issuer._builder(self._name, self._key.public_key(), 3600)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer._key, SHA256())
        )
        self.ca.write_bytes(certificate.public_bytes(Encoding.PEM))
        # Clients send the intermediate authority, which relays do not have.
        self._chain = b"" if parent is None else self.ca.read_bytes()

    def issue(
        self,
        *names: str,
        seconds: float = 3600,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Path:
        """Issue a certificate for names such as ``uri:spiffe://desk/viewer``; return a file with its key."""
        common, alternative = "", []
        for name in names:
            kind, _, value = name.partition(":")
            if kind == "cn":
                common = value
            else:
                alternative.append(_KINDS[kind](value))
        key = generate_private_key(SECP256R1())
        builder = self._builder(_name(common), key.public_key(), seconds).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        self._issued += 1
        path = self._folder / f"client{self._issued}.pem"
        path.write_bytes(
            builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
            + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + self._chain
        )
        return path

    def revoke(self, *files: Path) -> None:
        """Append a list of revoked certificates to the file of the authority."""
        replace(self.ca, self.ca.read_bytes() + self.crl(*files))

    def crl(self, *files: Path) -> bytes:
        """Return a list of revoked certificates in PEM."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - timedelta(hours=1))
            .next_update(now + timedelta(hours=1))
        )
        for file in files:
            serial = load(file).serial_number
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            )
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: EllipticCurvePublicKey, seconds: float
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(seconds=seconds))
        )


def load(path: Path) -> x509.Certificate:
    """Return the certificate of a file."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def der(path: Path) -> bytes:
    """Return the certificate of a file in DER."""
    return load(path).public_bytes(Encoding.DER)


def fingerprint(path: Path) -> str:
    """Return the fingerprint of a certificate as openssl prints it."""
    return load(path).fingerprint(SHA256()).hex(":").upper()


def replace(path: Path, data: bytes) -> None:
    """Replace a file atomically, as operators are told to."""
    draft = path.with_suffix(".new")
    draft.write_bytes(data)
    draft.replace(path)
