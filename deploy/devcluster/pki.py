"""Keys, certificates and tokens of one throw-away cluster: made at its start, never in the repository."""

import datetime as dt
import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

VALIDITY = dt.timedelta(days=365)
SERVICE_IP = "10.96.0.1"  # the first address of the API server's --service-cluster-ip-range
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Paths of a cluster's key material, and the administrator's token."""

    ca_certificate: Path
    server_certificate: Path
    server_key: Path
    account_key: Path
    account_public_key: Path
    tokens: Path
    admin_token: str


def create(directory: Path) -> Credentials:
    """Make the key material of a new cluster; only its owner can read the files.

    Service-account tokens are signed by RSA, as in most clusters, so that what reads them meets the usual case.
    """
    directory.mkdir(mode=0o700)
    credentials = Credentials(
        ca_certificate=directory / "ca.crt",
        server_certificate=directory / "server.crt",
        server_key=directory / "server.key",
        account_key=directory / "accounts.key",
        account_public_key=directory / "accounts.pub",
        tokens=directory / "tokens.csv",
        admin_token=secrets.token_urlsafe(32),
    )
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _authority(ca_key)
    _write(credentials.ca_certificate, _pem(ca))
    _write(credentials.server_certificate, _pem(_server(server_key, ca, ca_key)))
    _write(credentials.server_key, _key_pem(server_key))
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


def _server(
    key: ec.EllipticCurvePrivateKey, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    hosts = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", SERVICE_IP)]
    names = x509.SubjectAlternativeName([*map(x509.DNSName, hosts), *addresses])
    builder = _builder(_name("kube-apiserver"), ca.subject, key).add_extension(names, critical=False)
    return builder.sign(ca_key, hashes.SHA256())


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


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: PrivateKey) -> bytes:
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
