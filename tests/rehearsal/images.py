"""The project's images on this machine's engine, named by digest as a registry would name them."""

import io
import re
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.fakes.google_rest import ApiError

ROOT = Path(__file__).resolve().parents[2]
BUILT = "ai-product-photo-detector"


class Images:
    """What was built here, pinned: the digest is the one the engine itself gives an image's content.

    A registry that says which digests there are answers on loopback; layers are not pushed to it and back. A reference
    whose digest belongs to no image of this engine is refused there and here.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._names: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                found = re.fullmatch(rf"/v2/{BUILT}/([\w-]+)/manifests/(sha256:[0-9a-f]{{64}})", self.path)
                self.send_response(200 if found and outer._names.get(found[2]) == found[1] else 404)
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.repository = f"127.0.0.1:{self._server.server_address[1]}/{BUILT}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the registry."""
        self._server.shutdown()
        self._server.server_close()

    def pinned(self, name: str, tag: str = "dev") -> str:
        """`…/NAME@sha256:…` of the image that was built as NAME."""
        image = self._client.images.get(f"{BUILT}/{name}:{tag}")
        self._names[image.id] = name
        return f"{self.repository}/{name}@{image.id}"

    def resolve(self, reference: str) -> str:
        """Id of the image that a pinned reference names; what runs is that content and nothing else."""
        repository, _, digest = reference.partition("@")
        if self._names.get(digest) != repository.removeprefix(f"{self.repository}/"):
            raise ApiError(404, f"image {reference} not found")
        return digest

    def name(self, digest: str) -> str:
        """Name of an image by id."""
        return self._names[digest]

    def derive(self, name: str, tag: str, lines: Sequence[str]) -> str:
        """Build NAME:TAG from NAME:dev with more Dockerfile lines, and pin it."""
        dockerfile = "\n".join([f"FROM {BUILT}/{name}:dev", *lines, ""])
        self._client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=f"{BUILT}/{name}:{tag}", rm=True)
        return self.pinned(name, tag)
