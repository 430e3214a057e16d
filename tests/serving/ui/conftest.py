"""A real API of the toy bundle, shared by the tests that only read from it, and a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.processes import Server, serve
from tests.serving.ui.chromium import CHROMIUM, FLAGS

KEY = "key-of-the-tests"


@pytest.fixture(scope="session")
def api(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants `KEY`, without limits on the rate."""
    log = tmp_path_factory.mktemp("api") / "log"
    with serve(toy_bundle, log, API_KEYS=KEY, REQUIRE_AUTH="true") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; each test opens pages of its own. A module long: its event loop must not meet other tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()
