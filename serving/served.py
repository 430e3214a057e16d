"""The model being served: which one it is, and how another takes its place while requests run."""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from serving.detector.bundle import RELEASE
from serving.detector.detector import Detector
from serving.http.problems import ProblemError
from serving.platform.errors import BundleError, ModelNotFoundError
from serving.registry import ResolvedModel, resolve

RELEASE_FILES: Final = ("release", "evaluation", "verdict")
SETTLE_AFTER_S: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded, verified model; a request holds on to the one it began with."""

    detector: Detector
    version: str
    uri: str
    loaded_at: float = field(default_factory=time.time)

    @classmethod
    def load(cls, model: ResolvedModel, version: str = "") -> "Served":
        """Load a resolved bundle to stay; the engine runs one thread per call.

        Raises:
            BundleError: the bundle was changed or does not reproduce its golden examples.
        """
        detector = Detector.load(model.folder, threads=1)
        # compacting memory may take the kernel most of a second: the start, and what it was started for, come first
        settling = threading.Timer(SETTLE_AFTER_S, detector.settle)
        settling.daemon = True
        settling.start()
        return cls(detector, version or model.version, model.uri)

    def release(self) -> dict[str, Any]:
        """What the registry added to the bundle: `release`, `evaluation`, `verdict`, each absent where it is not."""
        folder = self.detector.folder / RELEASE
        return {name: found for name in RELEASE_FILES if (found := _read_json(folder / f"{name}.json")) is not None}


class ModelHolder:
    """The current model of one URI. Reading `current` is a plain attribute read: a swap is atomic."""

    def __init__(
        self,
        uri: str,
        cache_dir: Path,
        tracking_uri: str = "",
        version: str = "",
        on_load: Callable[[Served], None] | None = None,
    ) -> None:
        self.uri = uri
        self._cache_dir = cache_dir
        self._tracking_uri = tracking_uri
        self._version = version
        self._on_load = on_load
        self._served: Served | None = None
        self._loading = threading.Lock()

    @property
    def current(self) -> Served:
        """The model to answer with.

        Raises:
            ProblemError: `not_ready`, nothing is loaded.
        """
        if self._served is None:
            raise ProblemError("not_ready", "no model is loaded yet")
        return self._served

    @property
    def loaded(self) -> bool:
        """Whether a verified model stands."""
        return self._served is not None

    def take(self, served: Served) -> None:
        """Answer with `served` from now on."""
        self._served = served
        if self._on_load is not None:
            self._on_load(served)

    def load(self) -> Served:
        """Resolve, verify, load and take the model; blocks.

        Raises:
            ModelNotFoundError, BundleError: the message names what is wrong.
        """
        served = Served.load(self._resolve(), self._version)
        self.take(served)
        return served

    def refresh(self) -> bool:
        """Swap the model if its URI now names another one; a failure is logged and the old one stays. Blocks."""
        with self._loading:
            try:
                found = self._resolve()
                current = self._served
                if current is not None and _identity(found) == _identity_of(current):
                    return False
                self.take(Served.load(found, self._version))
            except (ModelNotFoundError, BundleError, OSError) as error:
                _log.error(
                    "model refresh failed, %s: %s",
                    "the current model stays" if self.loaded else "none is loaded",
                    error,
                )
                return False
        _log.info("now serving %s version %s", self.uri, self.current.version)
        return True

    def _resolve(self) -> ResolvedModel:
        return resolve(self.uri, self._cache_dir, self._tracking_uri)


def _identity(model: ResolvedModel) -> tuple[str, str]:
    from serving.detector.bundle import read_manifest

    return model.version, read_manifest(model.folder).digest


def _identity_of(served: Served) -> tuple[str, str]:
    return served.version, served.detector.manifest.digest


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("%s: unreadable: %s", path, error)
        return None
