"""Two registered versions, the first of them champion, and servers that a cloud would run."""

import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from components.artifacts.context import RunContext
from components.artifacts.model_version import CHAMPION, ModelVersion
from components.deploy.ledger import Ledger, LedgerEntry
from components.platform.registry import Registry
from tests.bundles import make_bundle
from tests.fakes.loopback import LoopbackServer
from tests.fakes.servers import BundleServers
from tests.releases import make_context, registered


@dataclass
class Shop:
    """A registry with champion version 1 and challenger version 2, and the ledger."""

    folder: Path
    context: RunContext
    champion: ModelVersion
    challenger: ModelVersion
    bundles: dict[str, Path]
    """Version -> bundle folder."""

    @property
    def registry(self) -> Registry:
        """A client of the registry."""
        return Registry(self.context.tracking_uri, self.context.model_name)

    @property
    def crowned(self) -> str | None:
        """The version with the alias `champion`."""
        return self.registry.aliased(CHAMPION)

    @property
    def ledger_path(self) -> str:
        """Where the ledger lies."""
        return str(self.folder / "promotions.jsonl")

    @property
    def ledger(self) -> list[LedgerEntry]:
        """Its lines."""
        return Ledger(self.ledger_path).entries()


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory, toy_bundle: Path) -> Shop:
    """The registry, made once; copied for each test by `shop`."""
    folder = tmp_path_factory.mktemp("shop")
    context = make_context(folder)
    second = make_bundle(folder / "second", seed=7)
    champion = registered(folder / "first-release", toy_bundle, context)
    challenger = registered(folder / "second-release", second, context)
    Registry(context.tracking_uri, context.model_name).point(CHAMPION, champion.version)
    return Shop(folder, context, champion, challenger, {champion.version: toy_bundle, challenger.version: second})


@pytest.fixture
def shop(stocked: Shop, tmp_path: Path) -> Iterator[Shop]:
    """The registry with version 1 as champion and an empty ledger."""
    registry = stocked.registry
    registry.point(CHAMPION, stocked.champion.version)
    ledger = Path(stocked.ledger_path)
    ledger.unlink(missing_ok=True)
    yield stocked
    if ledger.is_file():
        shutil.move(ledger, tmp_path / "ledger-of-this-test.jsonl")


@pytest.fixture(scope="session")
def servers() -> Iterator[BundleServers]:
    """Real servers on loopback, stopped at the session's end."""
    started = BundleServers()
    yield started
    started.close()


class _Answering500(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(500)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering_500() -> Iterator[str]:
    """Address of a server that breaks on every request."""
    server = LoopbackServer(_Answering500)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
