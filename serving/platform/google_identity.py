"""ID tokens of whoever this process is to Google: who calls a service on Cloud Run that is not open to everybody."""

import base64
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from serving.platform.errors import SignInError, one_line

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_MARGIN_S: Final = 300.0
_MARGIN_SHARE: Final = 0.1
"""A token is renewed so long before its end: five minutes, or a tenth of what was left of it when it came."""
_TIMEOUT_S: Final = 30.0
_TOKEN_BYTES: Final = 16_384

LOGIN: Final = "gcloud auth application-default login"


class IdTokens:
    """Tokens by audience, each kept until shortly before its end; safe from several threads."""

    def __init__(self, mint: Callable[[str], str] | None = None, clock: Callable[[], float] = time.time) -> None:
        """Ask `mint` for new tokens (default: Google, as this process's credentials) and `clock` for Unix time."""
        self._mint = mint or mint_id_token
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str, float]] = {}

    def token(self, audience: str) -> str:
        """A token for the service at `audience` (`https://HOST`) that still holds for some time.

        Raises:
            SignInError: there are no credentials, or Google gave no token for them.
        """
        with self._lock:
            kept = self._kept.get(audience)
            if kept is not None and self._clock() < kept[1]:
                return kept[0]
            token = self._mint(audience)
            left = max(expiry(token) - self._clock(), 0.0)
            self._kept[audience] = token, self._clock() + left - min(_MARGIN_S, _MARGIN_SHARE * left)
            return token


def expiry(token: str) -> float:
    """Unix time at which a token ends, read without a check of its signature.

    Raises:
        SignInError: this is no JSON web token.
    """
    try:
        if len(token) > _TOKEN_BYTES:
            raise ValueError("too long")
        body = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"])
    except (IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SignInError(f"Google's token service answered with something that is no ID token; {LOGIN}") from error


def mint_id_token(audience: str) -> str:
    """A new ID token for `audience`, as the application default credentials.

    The metadata server of Google Cloud, a service account's file, an impersonated account, a federated one (GitHub
    Actions) and a user's login are served. Google gives a user a token whose audience is the login's own client, which
    Cloud Run takes as well.

    Raises:
        SignInError: there are no credentials, or Google gave no token for them.
    """
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    try:
        credentials, _ = google.auth.default(scopes=[SCOPE])
        return _minted(credentials, audience)
    except DefaultCredentialsError as error:
        raise SignInError(f"{audience}: no Google credentials to sign in with; run: {LOGIN}") from error
    except (GoogleAuthError, OSError) as error:
        raise SignInError(f"{audience}: Google gave no ID token: {one_line(error)}; if it ended: {LOGIN}") from error


def _minted(credentials: Any, audience: str) -> str:
    from google.auth import compute_engine, external_account, impersonated_credentials
    from google.auth.transport.requests import Request
    from google.oauth2 import credentials as user
    from google.oauth2 import service_account

    request: Any = Request()
    if isinstance(credentials, external_account.Credentials):
        return _federated(credentials, audience)
    if isinstance(credentials, user.Credentials):
        credentials.refresh(request)  # type: ignore[no-untyped-call] # google-auth is untyped here
        token = credentials.id_token
        if not token:
            raise SignInError(f"{audience}: this login came without an ID token; run: {LOGIN}")
        return str(token)
    found: Any
    if isinstance(credentials, service_account.Credentials):
        found = service_account.IDTokenCredentials(  # type: ignore[no-untyped-call] # google-auth is untyped here
            credentials.signer, credentials.service_account_email, credentials._token_uri, target_audience=audience
        )
    elif isinstance(credentials, impersonated_credentials.Credentials):
        found = impersonated_credentials.IDTokenCredentials(  # type: ignore[no-untyped-call] # google-auth is untyped here
            credentials, target_audience=audience, include_email=True
        )
    elif isinstance(credentials, compute_engine.Credentials):
        found = compute_engine.IDTokenCredentials(  # type: ignore[no-untyped-call] # google-auth is untyped here
            request, target_audience=audience, use_metadata_identity_endpoint=True
        )
    else:
        raise SignInError(f"{audience}: credentials of kind {type(credentials).__name__} give no ID token; {LOGIN}")
    found.refresh(request)
    return str(found.token)


def _federated(credentials: Any, audience: str) -> str:
    """The token of the service account that a federated identity stands for."""
    from google.auth.transport.requests import AuthorizedSession

    info = dict(credentials.info)
    address = str(info.pop("service_account_impersonation_url", "") or "")
    if not address.endswith(":generateAccessToken"):
        raise SignInError(
            f"{audience}: a federated identity alone gets no ID token; let it stand for a service account"
        )
    # the federated identity itself asks: its grant on the account covers ID tokens, the account's own does not
    asking = type(credentials).from_info(info, scopes=[SCOPE])
    session: Any = AuthorizedSession(asking)  # type: ignore[no-untyped-call] # google-auth is untyped here
    with session:
        answer = session.post(
            address.removesuffix("generateAccessToken") + "generateIdToken",
            json={"audience": audience, "includeEmail": True},
            timeout=_TIMEOUT_S,
        )
    try:
        return str(answer.json()["token"])
    except (KeyError, TypeError, ValueError) as error:
        raise SignInError(
            f"{audience}: Google gave no ID token (HTTP {answer.status_code}); grant roles/iam.workloadIdentityUser"
        ) from error
