"""Certificates of an authority that the server under test trusts, and some that are wrong."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY: Final = datetime.timedelta(days=1)


class Certificates:
    """One for each name that is asked for: right, for another name, out of date, or of no authority."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issuer = _named("The authority of these tests")
        self.authority = folder / "authority.pem"
        """The authority's own certificate."""
        self.authority.write_bytes(self._issue("", self._issuer).public_bytes(serialization.Encoding.PEM))

    def context(self) -> ssl.SSLContext:
        """For a host that shows the certificate that its name calls for."""
        shown = {
            "good.test": self._context("good", "good.test"),
            "elsewhere.test": self._context("elsewhere", "good.test"),
            "expired.test": self._context("expired", "expired.test", until=-1),
            "self-signed.test": self._context("self-signed", "self-signed.test", signed=False),
        }
        context = self._context("default", "default.test")

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = shown.get(name or "", context)

        context.sni_callback = choose  # type: ignore[assignment]
        return context

    def _context(self, file: str, name: str, until: int = 30, signed: bool = True) -> ssl.SSLContext:
        subject = _named(name)
        certificate = self._issue(name, self._issuer if signed else subject, subject, until)
        path = self._folder / f"{file}.pem"
        secret = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _issue(
        self, name: str, issuer: x509.Name, subject: x509.Name | None = None, until: int = 30
    ) -> x509.Certificate:
        """A certificate for the one key of these tests; without a name the authority's own."""
        now = datetime.datetime.now(datetime.UTC)
        public = self._key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or issuer)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 60 * DAY)
            .not_valid_after(now + until * DAY)
            .add_extension(x509.BasicConstraints(ca=not name, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        )
        if name:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        else:
            usage = dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
            )
            usage |= {"digital_signature": True, "key_cert_sign": True, "crl_sign": True, "decipher_only": False}
            builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
