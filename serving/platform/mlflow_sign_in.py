"""MLflow's request-auth plug-in `aidetect-google`: signs in to an MLflow server on Cloud Run by ID token.

`MLFLOW_TRACKING_AUTH=aidetect-google` switches it on; `sign_in` does so by itself for addresses under run.app, so that
no credential and no switch stands in a compiled spec.
"""

from typing import Any, Final
from urllib.parse import urlsplit

from serving.platform.errors import SignInError
from serving.platform.google_identity import IdTokens

NAME: Final = "aidetect-google"
CLOUD_RUN: Final = ".run.app"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
FRONT_HEADER: Final = "X-Serverless-Authorization"
"""What Cloud Run's front asks when it is there; it takes that token's signature away and leaves Authorization whole,
so that the server can check for itself who calls."""

_TOKENS: Final = IdTokens()


def sign_in(tracking_uri: str) -> None:
    """Let this process's MLflow client sign in, where the address is one of Cloud Run and nothing else was chosen."""
    address, switch = urlsplit(tracking_uri), _switch()
    if address.scheme == "https" and (address.hostname or "").endswith(CLOUD_RUN) and not switch.get():
        switch.set(NAME)


def credentials(tracking_uri: str) -> "SignedIn | None":
    """What signs a request of ours in as MLflow's client would; None for a server that wants none of it."""
    sign_in(tracking_uri)
    return SignedIn(_TOKENS) if _switch().get() == NAME else None


def _switch() -> Any:
    """MLflow's own setting, which is untyped."""
    from mlflow.environment_variables import MLFLOW_TRACKING_AUTH

    return MLFLOW_TRACKING_AUTH


class SignedIn:
    """What `requests` calls with each prepared request."""

    def __init__(self, tokens: IdTokens) -> None:
        self._tokens = tokens

    def __call__(self, request: Any) -> Any:
        """Put the token of the address's own audience on the request.

        Raises:
            SignInError: no token is to be had, or it would travel in the clear.
        """
        address = urlsplit(str(request.url))
        if address.scheme != "https" and address.hostname not in LOOPBACK:
            raise SignInError(f"{address.scheme}://{address.netloc}: no sign-in without TLS; write https://")
        bearer = f"Bearer {self._tokens.token(f'{address.scheme}://{address.netloc}')}"
        request.headers["Authorization"] = bearer
        request.headers[FRONT_HEADER] = bearer
        request.register_hook("response", _stay)
        return request


def _stay(response: Any, *_: Any, **__: Any) -> Any:
    """A redirect is not followed with the second header on it: `requests` knows only the first one for a secret."""
    if response.is_redirect:
        response.request.headers.pop(FRONT_HEADER, None)
    return response


class GoogleSignIn:
    """The plug-in: MLflow asks for its name and, per request, for what signs in."""

    def get_name(self) -> str:
        """Value of MLFLOW_TRACKING_AUTH that names this plug-in."""
        return NAME

    def get_auth(self) -> SignedIn:
        """What signs a request in."""
        return SignedIn(_TOKENS)
