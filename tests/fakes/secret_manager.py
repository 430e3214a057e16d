"""Secret Manager's `versions.access` on loopback."""

import base64
from typing import Any

from tests.fakes.google_rest import ApiError, GoogleRest, Request
from tests.fakes.policy import Policy


class FakeSecretManager(GoogleRest):
    """Holds the latest version of each secret: `projects/P/secrets/S` -> its payload."""

    def __init__(self, secrets: dict[str, str]) -> None:
        super().__init__()
        self.secrets = secrets
        self.state = "ENABLED"
        """Of the latest versions: what is destroyed stays the latest."""

    def ask(self, request: Request, policy: Policy) -> None:
        """Reading a version; one must be there."""
        secret = request.path.split("/")[5]
        policy.require("secretmanager.versions.access", f"secret {secret}")
        policy.version_of(secret)

    def route(self, request: Request) -> dict[str, Any]:
        """Answer of the API proper."""
        secret = request.path.removeprefix("/v1/").removesuffix("/versions/latest:access")
        if request.method != "GET" or secret not in self.secrets:
            raise ApiError(404, f"Secret [{secret}] not found")
        if self.state != "ENABLED":
            raise ApiError(400, f"Secret Version [{secret}/versions/3] is in {self.state} state.")
        data = base64.b64encode(self.secrets[secret].encode()).decode()
        return {"name": f"{secret}/versions/3", "payload": {"data": data}}
