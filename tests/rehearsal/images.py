"""The project's images on this machine's engine, named by digest as a registry would name them."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fakes.google_rest import ApiError

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "europe-west1-docker.pkg.dev/proj/ai-product-photo-detector"
BUILT = "ai-product-photo-detector"


class Images:
    """What was built here, pinned: the digest is the one the engine itself gives an image's content.

    No registry is asked. A reference whose digest belongs to no image of this engine is refused as one would refuse it.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._names: dict[str, str] = {}

    def pinned(self, name: str, tag: str = "dev") -> str:
        """`…/NAME@sha256:…` of the image that was built as NAME."""
        image = self._client.images.get(f"{BUILT}/{name}:{tag}")
        self._names[image.id] = name
        return f"{REPOSITORY}/{name}@{image.id}"

    def resolve(self, reference: str) -> str:
        """Id of the image that a pinned reference names; what runs is that content and nothing else."""
        repository, _, digest = reference.partition("@")
        if self._names.get(digest) != repository.removeprefix(f"{REPOSITORY}/"):
            raise ApiError(404, f"image {reference} not found")
        return digest

    def name(self, digest: str) -> str:
        """Name of an image by id."""
        return self._names[digest]

    def derive(self, name: str, tag: str, lines: Sequence[str]) -> str:
        """Build NAME:TAG from NAME:dev with more Dockerfile lines, and pin it."""
        dockerfile = "\n".join([f"FROM {BUILT}/{name}:dev", *lines, ""])
        command = ["docker", "build", "--quiet", "--tag", f"{BUILT}/{name}:{tag}", "-"]
        subprocess.run(command, input=dockerfile, text=True, check=True, capture_output=True, timeout=120)
        return self.pinned(name, tag)
