"""The application in this process, and the real server in one of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings


@pytest.fixture(scope="session")
def client(toy_bundle: Path) -> Iterator[TestClient]:
    """The application on the toy bundle, without rate limits."""
    settings = Settings(model_uri=str(toy_bundle), rate_limit_enabled=False, slots=2)
    with TestClient(create_app(settings)) as made:
        yield made
