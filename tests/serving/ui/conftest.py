"""A real API of the toy bundle, shared by the tests that only read from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.processes import Server, serve

KEY = "key-of-the-tests"


@pytest.fixture(scope="session")
def api(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants `KEY`, without limits on the rate."""
    log = tmp_path_factory.mktemp("api") / "log"
    with serve(toy_bundle, log, API_KEYS=KEY, REQUIRE_AUTH="true") as server:
        yield server
