"""The stand-in's certificate authority, as that of RDS for a region: who verifies an instance has its certificate (``ca.crt``)."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .backing import Certificate

LIFETIME = datetime.timedelta(days=825)


class Authority:
    """Made once, kept in a folder that only its owner reads.

    :param folder: where ``ca.crt`` and ``ca.key`` are, or come to be
    """

    def __init__(self, folder: Path) -> None:
        self._certificate_file, self._key_file = folder / "ca.crt", folder / "ca.key"
        if not self._key_file.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make()
        self._key = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        self._certificate = x509.load_pem_x509_certificate(self._certificate_file.read_bytes())

    def sign(self, name: str) -> Certificate:
        """A key and a certificate for a host's name. The name stands among the alternative ones, for a common name is too short for an endpoint's."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begin(x509.Name([]), self._certificate.subject, key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        return Certificate(_pem(builder.sign(self._key, hashes.SHA256())), _pem_of_key(key))  # type: ignore[arg-type]

    def _make(self) -> None:
        key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stand-in for Amazon RDS")])
        usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
        builder = _begin(subject, subject, key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        signs = x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False)
        certificate = builder.add_extension(signs, critical=True).sign(key, hashes.SHA256())
        self._key_file.touch(mode=0o600)
        self._key_file.write_text(_pem_of_key(key), encoding="ascii")
        self._certificate_file.write_text(_pem(certificate), encoding="ascii")


def _begin(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    named = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key).serial_number(x509.random_serial_number())
    return named.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + LIFETIME)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode("ascii")
