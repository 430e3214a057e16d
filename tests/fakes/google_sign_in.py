"""Google's token services and Cloud Run's front on loopback, with real signatures.

The issuer answers a service account's file, a user's login, a federated identity and the metadata server; the front
lets through whom it invites, and takes the signature off the token it checked, as Cloud Run does.
"""

import base64
import datetime
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

from tests.fakes.loopback import LoopbackServer

HOUR_S = 3600
KEY_ID = "k1"
USER_CLIENT = "764086051850-6qr4p6gpi6hn506pt8ejuq83di341hur.apps.googleusercontent.com"
REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


class Issuer:
    """Signs tokens; `moved_s` is how far its clock is from ours."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.signer = crypt.RSASigner.from_string(pem(self.key), KEY_ID)
        self.moved_s = 0.0
        self.minted: list[tuple[str, str]] = []
        self.metadata_account = "pipeline@p.iam.gserviceaccount.com"
        self.user = "owner@example.test"
        self.url = ""

    @property
    def certificate(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
        now = datetime.datetime.now(datetime.UTC)
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
        built = built.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        signed = built.not_valid_after(now + datetime.timedelta(days=1)).sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def token(self, email: str, audience: str, **claims: Any) -> str:
        now = int(time.time() + self.moved_s)
        self.minted.append((email, audience))
        payload = {"iss": "https://accounts.google.com", "aud": audience, "email": email, "email_verified": True}
        whole = {**payload, "iat": now, "exp": now + HOUR_S, **claims}
        return str(jwt.encode(self.signer, whole).decode())

    @staticmethod
    def access(email: str) -> str:
        """The access token that a service account gets."""
        return f"access-of-{email}"

    def service_account(self, folder: Path, email: str) -> Path:
        """A service account's key file; its private key is the issuer's own, which nobody minds here."""
        document = {"type": "service_account", "client_email": email, "private_key": pem(self.key), "project_id": "p"}
        return self._file(folder, email, {**document, "private_key_id": KEY_ID, "token_uri": f"{self.url}/token"})

    def login(self, folder: Path) -> Path:
        """A user's application default credentials."""
        document = {"type": "authorized_user", "client_id": USER_CLIENT, "client_secret": "none"}
        return self._file(folder, "login", {**document, "refresh_token": "r", "token_uri": f"{self.url}/token"})

    def federated(self, folder: Path, email: str) -> Path:
        """What google-github-actions/auth writes."""
        subject = folder / "subject.txt"
        subject.write_text("a token of GitHub")
        document = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/gh/providers/gh",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url}/sts",
            "credential_source": {"file": str(subject)},
            "service_account_impersonation_url": f"{self.url}/accounts/{email}:generateAccessToken",
        }
        return self._file(folder, "federated", document)

    def _file(self, folder: Path, name: str, document: dict[str, Any]) -> Path:
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document))
        return path

    def answer(self, path: str, body: bytes, headers: Any) -> Any:
        """The document that a request gets; a text is an answer of the metadata server; None: nothing like it."""
        url = urllib.parse.urlsplit(path)
        if url.path == "/certs":
            return {KEY_ID: self.certificate}
        if url.path == "/sts":
            return {"access_token": "federated", "issued_token_type": "x", "token_type": "Bearer", "expires_in": HOUR_S}
        if url.path.endswith(":generateIdToken"):
            if headers.get("Authorization") != "Bearer federated":
                return None
            email = url.path.rpartition("/")[2].removesuffix(":generateIdToken")
            return {"token": self.token(email, json.loads(body)["audience"])}
        if url.path == "/token":
            form = dict(urllib.parse.parse_qsl(body.decode()))
            if form["grant_type"] == "refresh_token":
                return {"access_token": "a", "expires_in": HOUR_S, "id_token": self.token(self.user, USER_CLIENT)}
            claims = jwt.decode(form["assertion"], certs={KEY_ID: self.certificate})
            if "target_audience" not in claims:
                return {"access_token": self.access(claims["iss"]), "expires_in": HOUR_S, "token_type": "Bearer"}
            return {"id_token": self.token(claims["iss"], claims["target_audience"])}
        if url.path.endswith("/identity"):
            return self.token(self.metadata_account, urllib.parse.parse_qs(url.query)["audience"][0])
        if url.path.startswith("/computeMetadata/v1"):
            return {"email": self.metadata_account, "scopes": [], "aliases": ["default"]} if url.query else "p"
        return "" if url.path == "/" else None


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], **attributes: Any) -> Iterator[str]:
    """The address of a server that answers with `handler`."""
    handler = type("Handler", (handler,), attributes)
    server = LoopbackServer(handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


class Quiet(BaseHTTPRequestHandler):
    """A handler that logs nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))


class _Issuing(Quiet):
    issuer: Issuer

    def do_GET(self) -> None:
        found = self.issuer.answer(self.path, self.read(), self.headers)
        body = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        kind = "application/text" if isinstance(found, str) else "application/json"
        self.reply(403 if found is None else 200, body, {"Content-Type": kind, "Metadata-Flavor": "Google"})

    do_POST = do_GET


class Front(Quiet):
    """Cloud Run's IAM check in front of a container."""

    issuer: Issuer
    invokers: set[str]
    behind: str
    refused: list[str]

    def _all(self) -> None:
        body = self.read()
        name = "X-Serverless-Authorization" if "X-Serverless-Authorization" in self.headers else "Authorization"
        token = self.headers.get(name, "").removeprefix("Bearer ")
        try:
            claims = jwt.decode(token, certs={KEY_ID: self.issuer.certificate})
            audience = urllib.parse.urlsplit(claims["aud"]).netloc
            invited = claims["email"] in self.invokers and (
                audience == self.headers["Host"] or claims["aud"] == USER_CLIENT
            )
        except ValueError:
            invited = False
        if not invited:
            self.refused.append(self.path)
            self.reply(403, b"<html>Forbidden</html>", {"Content-Type": "text/html"})
            return
        headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
        headers[name] = "Bearer " + ".".join([*token.split(".")[:2], REMOVED])
        with httpx.Client(trust_env=False, timeout=60) as client:
            answer = client.request(self.command, self.behind + self.path, content=body, headers=headers)
        kept = {"content-type", "location"}
        self.reply(answer.status_code, answer.content, {k: v for k, v in answer.headers.items() if k.lower() in kept})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _all


@contextmanager
def issuing() -> Iterator[Issuer]:
    """A running issuer."""
    issuer = Issuer()
    with serving(_Issuing, issuer=issuer) as url:
        issuer.url = url
        yield issuer


def unsigned(token: str) -> str:
    """The same claims with another signature."""
    head, body, _ = token.split(".")
    return f"{head}.{body}.{base64.urlsafe_b64encode(b'x' * 256).decode().rstrip('=')}"
