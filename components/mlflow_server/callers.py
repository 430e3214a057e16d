"""Who calls: the e-mail address in an ID token that Google signed for this very host."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from serving.platform.errors import SignInError, one_line

ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")
PEOPLE: Final = frozenset(
    {
        "32555940559.apps.googleusercontent.com",
        "764086051850-6qr4p6gpi6hn506pt8ejuq83di341hur.apps.googleusercontent.com",
    }
)
"""Audiences of people's logins: gcloud's own client and that of application default credentials."""
_KEEP_S: Final = 3600.0
_AGAIN_S: Final = 30.0
"""An unknown key makes the server look for new certificates at most this often."""
_TOKEN_BYTES: Final = 16_384
_SKEW_S: Final = 10
_TIMEOUT_S: Final = 10.0


class Certificates:
    """Google's signing certificates by key id, fetched when first needed and renewed hourly."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock = url, clock
        self._lock = threading.Lock()
        self._found: Mapping[str, str] = {}
        self._fetched: float | None = None

    def holding(self, key: str) -> Mapping[str, str]:
        """The certificates, fetched again when `key` is not among them or they are old.

        Raises:
            SignInError: Google does not answer and none are at hand.
        """
        with self._lock:
            age = float("inf") if self._fetched is None else self._clock() - self._fetched
            if age > _KEEP_S or (key not in self._found and age > _AGAIN_S):
                self._fetch()
            return self._found

    def _fetch(self) -> None:
        import requests

        self._fetched = self._clock()
        try:
            answer = requests.get(self._url, timeout=_TIMEOUT_S)
            answer.raise_for_status()
            self._found = {str(name): str(text) for name, text in answer.json().items()}
        except (requests.RequestException, ValueError, AttributeError) as error:
            if not self._found:
                self._fetched = None
                raise SignInError(f"{self._url}: no certificates to check callers with: {one_line(error)}") from error


def caller(authorization: str, host: str, certificates: Certificates) -> str:
    """The verified e-mail address of whoever sent a request.

    Args:
        authorization: value of the Authorization header.
        host: value of the Host header, by which Cloud Run finds the service: a token is good for it alone.
        certificates: Google's.

    Raises:
        SignInError: there is no token, or one that was not signed by Google for this host and time.
    """
    from google.auth import jwt
    from google.auth.exceptions import GoogleAuthError

    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise SignInError("no ID token; set MLFLOW_TRACKING_AUTH=aidetect-google")
    if len(token) > _TOKEN_BYTES:
        raise SignInError("the ID token is longer than any of Google's")
    try:
        read: Any = jwt  # google-auth is untyped here
        key = str(read.decode_header(token).get("kid", ""))
        claims: dict[str, Any] = read.decode(token, certs=certificates.holding(key), clock_skew_in_seconds=_SKEW_S)
    except (GoogleAuthError, ValueError) as error:
        raise SignInError(f"the ID token does not hold: {one_line(error)}") from error
    audience = str(claims.get("aud", ""))
    if claims.get("iss") not in ISSUERS or claims.get("email_verified") is not True or not claims.get("email"):
        raise SignInError("the ID token names no verified e-mail address of Google's")
    if audience not in PEOPLE and urlsplit(audience).netloc != host:
        raise SignInError("the ID token is for another service")
    return str(claims["email"]).lower()
