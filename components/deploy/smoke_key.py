"""The key that smoke requests carry: from the environment, or from Secret Manager where the cloud runs the stage."""

import base64
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from components.deploy.config import DeployConfig, api_key
from components.platform.google_cloud import google_errors
from serving.platform.errors import StageError

if TYPE_CHECKING:
    import requests

_API: Final = "https://secretmanager.googleapis.com"


def smoke_headers(config: DeployConfig) -> dict[str, str]:
    """Headers by which the service knows us; empty where neither the environment nor the configuration has a key.

    Raises:
        StageError: the secret cannot be read, or holds no key.
    """
    key = api_key()
    if not key and config.api_key_secret:
        name = config.api_key_secret
        if not name.startswith("projects/"):
            name = f"projects/{config.project}/secrets/{name}/versions/latest"
        key = _first_key(config.secrets_api_endpoint or _API, name, config.request_timeout_s)
    return {"X-API-Key": key} if key else {}


@lru_cache(maxsize=4)
def _first_key(api: str, name: str, timeout_s: float) -> str:
    """The first of a secret's comma list of keys; read once in a process, never written anywhere."""
    from google.api_core.exceptions import from_http_response

    with google_errors(f"read the API key in {name}"):
        response = _session(api).get(f"{api}/v1/{name}:access", timeout=timeout_s)
        if response.status_code != 200:
            raise from_http_response(response)  # type: ignore[no-untyped-call] # api-core is untyped here
        text = base64.b64decode(response.json()["payload"]["data"]).decode()
    key = text.split(",")[0].strip()
    if not key:
        raise StageError(f"read the API key in {name}: the secret is empty; add a version with a key")
    return key


def _session(api: str) -> "requests.Session":
    """A session with this machine's credentials. An address without TLS gets none: no token is sent in the clear."""
    import google.auth
    import requests
    from google.auth.transport.requests import AuthorizedSession

    if api.startswith("http://"):
        return requests.Session()
    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return AuthorizedSession(credentials)  # type: ignore[no-untyped-call] # google-auth is untyped here
