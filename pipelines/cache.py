"""What an earlier run may answer for: Vertex AI's cache, and what its key has to hold.

Google's key of a task holds the values of its input parameters, the ids of its input artifacts, the names of its
outputs, and image, command, arguments and environment; never where the outputs go, and nothing of what a stage reads
by an address. So the run's identity is taken from the outputs' address, and the state of the data is a parameter.
"""

import hashlib
import re
from itertools import islice
from typing import Final

from components.platform.google_cloud import google_errors
from pipelines.settings.names import TargetName
from pipelines.settings.pipeline import PipelineConfig
from serving.platform.cloud_storage import objects
from serving.platform.errors import StageError

CACHED_SENTENCE: Final = (
    "where both runs have vertex.caching=true, what finished of verify_data and train is answered from the cache"
)
_MOST_OBJECTS: Final = 1_000_000
"""A thousand pages of a listing."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def settled(config: PipelineConfig, on: TargetName) -> tuple[PipelineConfig, str, str]:
    """Whether an earlier run may answer for stages of one that starts now.

    Returns:
        The configuration, with `vertex.caching` off where it may not; the state of the data; why not, one line.
    """
    if on != "vertex" or not config.vertex.caching:
        return config, "", ""
    try:
        return config, _state_of(config.data.uri), ""
    except StageError as error:
        return without_cache(config), "", f"nothing is answered from the cache: {error}"


def without_cache(config: PipelineConfig) -> PipelineConfig:
    """The same, with `vertex.caching` off."""
    return config.model_copy(update={"vertex": config.vertex.model_copy(update={"caching": False})})


def _state_of(uri: str) -> str:
    """What lies at an address of data now: another text whenever an object was added, replaced or removed.

    Raises:
        StageError: it cannot be told.
    """
    if uri.startswith("hf://"):
        revision = uri.rpartition("@")[2]
        if _COMMIT.fullmatch(revision):
            return revision
        raise StageError(f"{uri} may change; name the commit (hf://NAME@<40 hex>)")
    seen, content = 0, hashlib.sha256()
    with google_errors(f"list {uri}"):
        for blob in islice(objects(uri), _MOST_OBJECTS + 1):
            seen += 1
            content.update(f"{len(blob.name)} {blob.name} {blob.generation}\n".encode())
    if not 0 < seen <= _MOST_OBJECTS:
        raise StageError(f"{uri} holds no object" if not seen else f"{uri} holds more than {_MOST_OBJECTS:,} objects")
    return content.hexdigest()
