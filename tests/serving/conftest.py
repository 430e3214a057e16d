"""The application in this process, and the real server in one of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.http.service import Service
from serving.registry import resolve
from serving.served import Served
from serving.settings import Settings


def service_of(client: TestClient) -> Service:
    """The working parts of the application that `client` asks."""
    service: Service = cast("Any", client.app).state.service
    return service


@pytest.fixture(scope="session")
def served(toy_bundle: Path) -> Served:
    """The toy bundle, loaded; applications share it."""
    return Served.load(resolve(str(toy_bundle), toy_bundle.parent))


@pytest.fixture(scope="session")
def client(toy_bundle: Path) -> Iterator[TestClient]:
    """The application on the toy bundle, without rate limits."""
    settings = Settings(model_uri=str(toy_bundle), rate_limit_enabled=False, slots=2)
    with TestClient(create_app(settings)) as made:
        yield made
