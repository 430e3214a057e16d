"""Two photos with known verdicts of the toy bundle, and how a test asks the service for one."""

from fastapi.testclient import TestClient
from httpx2 import Response

from tests.bundles import jpeg

BRIGHT = jpeg(205, (90, 70), seed=3)
DARK = jpeg(40, (90, 70), seed=4)


def one(client: TestClient, path: str, data: bytes, field: str = "file") -> Response:
    return client.post(path, files={field: ("photo.jpg", data, "image/jpeg")})
