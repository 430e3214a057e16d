"""The model being served: which one it is, and how another takes its place while requests run."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from serving.detector.detector import Detector
from serving.detector.statistics import Reference, read_reference
from serving.platform.errors import AidetectError, BundleError, NotReadyError, one_line
from serving.registry import ResolvedModel, resolve

SETTLE_AFTER_S: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded, verified model; a request holds on to the one it began with."""

    detector: Detector
    reference: Reference
    release: dict[str, dict[str, Any]]
    """What the registry added to the bundle: `release`, `evaluation`, `verdict`, each absent where it is not."""
    version: str
    uri: str
    loaded_at: float = field(default_factory=time.time)

    @classmethod
    def load(cls, model: ResolvedModel, version: str = "") -> "Served":
        """Load every part of a resolved bundle to stay; the engine runs one thread per call.

        Raises:
            BundleError: the bundle was changed, does not reproduce its golden examples, or is no longer the one that
                was resolved; nothing of it is in use then.
        """
        detector = Detector.load(model.folder, threads=1)
        reference = read_reference(model.folder)
        if detector.manifest.digest != model.digest:
            raise BundleError(f"{model.folder}: replaced while it was being loaded; try again")
        # compacting memory may take the kernel most of a second: the start, and what it was started for, come first
        settling = threading.Timer(SETTLE_AFTER_S, detector.settle)
        settling.daemon = True
        settling.start()
        return cls(detector, reference, model.release, version or model.version, model.uri)


class ModelHolder:
    """The current model of one URI. Reading `current` is a plain attribute read: a swap is atomic."""

    def __init__(
        self,
        uri: str,
        cache_dir: Path,
        tracking_uri: str = "",
        version: str = "",
        digest: str = "",
        on_load: Callable[[Served], None] | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self.uri = uri
        self._cache_dir = cache_dir
        self._tracking_uri = tracking_uri
        self._version = version
        self._digest = digest
        self._on_load = on_load
        self._on_failure = on_failure
        self._served: Served | None = None
        self._loading = threading.Lock()

    @property
    def current(self) -> Served:
        """The model to answer with.

        Raises:
            NotReadyError: nothing is loaded.
        """
        if self._served is None:
            raise NotReadyError("no model is loaded yet")
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
                if current is not None and self._is(current, found):
                    return False
                self.take(Served.load(found, self._version))
            except BaseException as error:  # noqa: BLE001 - on this thread: a panic of a Rust library is no Exception
                stays = "the current model stays" if self.loaded else "none is loaded"
                expected = isinstance(error, AidetectError | OSError)
                said = error if expected else f"{type(error).__name__}: {one_line(error)}"
                _log.error("model refresh failed, %s: %s", stays, said, exc_info=not expected)
                if self._on_failure is not None:
                    self._on_failure()
                return False
        _log.info("now serving %s version %s", self.uri, self.current.version)
        return True

    def _is(self, served: Served, found: ResolvedModel) -> bool:
        shown = self._version or found.version
        return (served.version, served.detector.manifest.digest) == (shown, found.digest)

    def _resolve(self) -> ResolvedModel:
        return resolve(self.uri, self._cache_dir, self._tracking_uri, self._digest)
