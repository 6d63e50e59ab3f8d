"""Keys, certificates and tokens of one throw-away cluster: made at its start, never in the repository."""

import datetime as dt
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = dt.timedelta(days=365)
SERVICE_IP = "10.96.0.1"  # the first address of the API server's --service-cluster-ip-range
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Paths of a cluster's key material, the administrator's token, and the authority that can certify more.

    The authority's own key is nowhere but in memory: what it certified at the start is all there will be.
    """

    directory: Path
    ca_certificate: Path
    server_certificate: Path
    server_key: Path
    account_key: Path
    account_public_key: Path
    tokens: Path
    admin_token: str
    ca: x509.Certificate = field(repr=False)
    ca_key: ec.EllipticCurvePrivateKey = field(repr=False)

    def client(self, file: str, user: str, group: str = "") -> tuple[Path, Path]:
        """Certify a client.

        Args:
            file: What to call the files, without a suffix.
            user: The Kubernetes user that it is.
            group: The group that it belongs to, if any.

        Returns:
            Paths of its certificate and key.
        """
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        return self._certify(file, _name(user, group), usage)

    def server(self, file: str, user: str, *, hosts: Sequence[str], addresses: Sequence[str]) -> tuple[Path, Path]:
        """Certify a server that is reached by these names and addresses; paths of its certificate and key."""
        parsed = [x509.IPAddress(ipaddress.ip_address(text)) for text in addresses]
        names = x509.SubjectAlternativeName([*map(x509.DNSName, hosts), *parsed])
        return self._certify(file, _name(user), names)

    def _certify(self, file: str, subject: x509.Name, extension: x509.ExtensionType) -> tuple[Path, Path]:
        paths = self.directory / f"{file}.crt", self.directory / f"{file}.key"
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self.ca.subject, key).add_extension(extension, critical=False)
        _write(paths[0], _pem(builder.sign(self.ca_key, hashes.SHA256())))
        _write(paths[1], _key_pem(key))
        return paths


def create(directory: Path, *, address: str = "127.0.0.1") -> Credentials:
    """Make the key material of a new cluster; only its owner can read the files.

    Service-account tokens are signed by RSA, as in most clusters, so that what reads them meets the usual case.

    Args:
        directory: The folder to create for it.
        address: Where the API server is reached, besides its service's address.
    """
    directory.mkdir(mode=0o700)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    credentials = Credentials(
        directory=directory,
        ca_certificate=directory / "ca.crt",
        server_certificate=directory / "server.crt",
        server_key=directory / "server.key",
        account_key=directory / "accounts.key",
        account_public_key=directory / "accounts.pub",
        tokens=directory / "tokens.csv",
        admin_token=secrets.token_urlsafe(32),
        ca=_authority(ca_key),
        ca_key=ca_key,
    )
    _write(credentials.ca_certificate, _pem(credentials.ca))
    hosts = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    credentials.server("server", "kube-apiserver", hosts=hosts, addresses=[address, SERVICE_IP])
    account_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(credentials.account_key, _key_pem(account_key))
    public = account_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(credentials.account_public_key, public)
    _write(credentials.tokens, f'{credentials.admin_token},admin,admin,"system:masters"\n'.encode())
    return credentials


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("tuneyard-devcluster-ca")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    return _builder(name, name, key).add_extension(constraints, critical=True).sign(key, hashes.SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(minutes=5),  # clocks differ
        not_valid_after=now + VALIDITY,
    )


def _name(common: str, organisation: str = "") -> x509.Name:
    named = {NameOID.ORGANIZATION_NAME: organisation, NameOID.COMMON_NAME: common}
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in named.items() if text])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: PrivateKey) -> bytes:
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
