"""What the environment says of the server's callers."""

import os
from collections.abc import Mapping
from typing import Final

from components.mlflow_server.policy import ROLES, Role
from serving.platform.errors import StartError

GOOGLE_CERTIFICATES: Final = "https://www.googleapis.com/oauth2/v1/certs"
PREFIX: Final = "MLFLOW_ACCESS_"
"""`MLFLOW_ACCESS_WRITE=a@x,b@x`: accounts of a role, comma separated."""


def certificates_url() -> str:
    """Where the certificates of ID tokens are; Google's, or MLFLOW_ACCESS_CERTIFICATES."""
    return os.environ.get(f"{PREFIX}CERTIFICATES", "") or GOOGLE_CERTIFICATES


def roles(environ: Mapping[str, str] | None = None) -> dict[str, Role]:
    """Account -> its role, the strongest where several name it.

    Raises:
        StartError: nobody may deploy: no release could ever be promoted.
    """
    found: dict[str, Role] = {}
    for role in ROLES:
        listed = (os.environ if environ is None else environ).get(f"{PREFIX}{role.upper()}", "")
        found.update({name.strip().lower(): role for name in listed.split(",") if name.strip()})
    if "deploy" not in found.values():
        raise StartError(f"set {PREFIX}DEPLOY to the accounts that promote models (comma list of e-mail addresses)")
    return found
