"""Content Credentials of our own: pictures signed by a certificate authority made for the test."""

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal

import c2pa
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

Format = Literal["jpeg", "png", "webp"]
NEWSCODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@dataclass(frozen=True)
class Authority:
    """Signs with a certificate that its own root issued."""

    root_pem: str
    chain_pem: bytes
    key_pem: bytes

    def signer(self) -> c2pa.Signer:
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", self.chain_pem, self.key_pem, None))


@cache
def authority() -> Authority:
    """A root and a signer with years to go."""
    return _authority(_year(2035))


def short_lived_authority(seconds: int) -> tuple[Authority, datetime]:
    """A signer whose certificate ends in so many seconds, and when: nothing signs with one that has ended."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
    return _authority(end), end


def _year(year: int) -> datetime:
    return datetime(year, 1, 1, tzinfo=UTC)


def _authority(end: datetime) -> Authority:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # two roots of one name could not be told apart in a trust list
    name = f"Root until {end:%Y-%m-%d}"
    root = _certificate(name, name, root_key, root_key, _year(2019), _year(2040), is_root=True)
    leaf = _certificate("Signer", name, key, root_key, _year(2024), end, is_root=False)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = [certificate.public_bytes(serialization.Encoding.PEM) for certificate in (leaf, root)]
    return Authority(pem[1].decode(), b"".join(pem), secret)


@cache
def picture(fmt: Format, side: int = 48) -> bytes:
    """A small coloured picture without metadata."""
    pixels = np.random.default_rng(7).integers(0, 255, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt.upper())
    return buffer.getvalue()


def sign(
    fmt: Format,
    source_type: str = "trainedAlgorithmicMedia",
    *,
    by: Authority | None = None,
    remote: str = "",
    parent: bytes | None = None,
) -> bytes:
    """A picture whose signed statement says `source_type`.

    Args:
        fmt: container.
        source_type: term of the NewsCodes vocabulary; empty: the statement names none.
        by: who signs; `authority()` when not given.
        remote: address at which the manifest is said to be; it is then not in the file.
        parent: a signed picture this one is said to be made from.
    """
    action: dict[str, str] = {"action": "c2pa.edited" if parent else "c2pa.created"}
    if source_type:
        action["digitalSourceType"] = NEWSCODES + source_type
    manifest = {
        "claim_generator_info": [{"name": "tests", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    media_type = f"image/{fmt}"
    with c2pa.Builder(json.dumps(manifest)) as builder:
        if remote:
            builder.set_no_embed()
            builder.set_remote_url(remote)
        if parent is not None:
            builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
            builder.add_ingredient(json.dumps({"relationship": "parentOf"}), media_type, io.BytesIO(parent))
        out = io.BytesIO()
        builder.sign((by or authority()).signer(), media_type, io.BytesIO(picture(fmt)), out)
    return out.getvalue()


def flip(data: bytes, fmt: Format) -> bytes:
    """The file with one bit of its picture changed, behind all metadata."""
    at = len(data) - 200 if fmt == "jpeg" else data.rindex(b"IDAT" if fmt == "png" else b"VP8") + 60
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _certificate(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
    *,
    is_root: bool,
) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_root,
        crl_sign=is_root,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not is_root:
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        builder = builder.add_extension(issuer_id, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )
