"""The detector: a verified bundle ready to judge and explain images.

`judge`, `judge_all` and `explain` take encoded bytes: the one path of the server, the command line and the reports.
"""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from serving.detector import bundle, gradcam, heatmap
from serving.detector.bundle import Manifest
from serving.detector.conclusion import Conclusion, DecisionBands, Policy, conclude
from serving.detector.decision import Verdict
from serving.detector.domain import Domain, measure
from serving.detector.engine import Engine, Floats
from serving.detector.framing import Box
from serving.detector.image import DecodedImage, ImageInfo, ImageLimits, decode
from serving.detector.labels import Label
from serving.detector.preprocess import Pixels, Preparation, as_batch
from serving.detector.tolerance import GOLDEN_TOLERANCE
from serving.detector.views import over_picture
from serving.platform.errors import BundleError, ImageRefusedError
from serving.platform.records import read_record
from serving.provenance.inspect import inspect
from serving.provenance.record import Provenance


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image as the model takes it."""

    info: ImageInfo
    pixels: Pixels
    """uint8 (views, input_px, input_px, 3)."""
    domain: Domain
    provenance: Provenance
    image_sha256: str
    seconds: float
    """Spent on decoding and on the file's evidence."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the model said of one image, and what is needed to watch it."""

    verdict: Verdict
    """The pixels' alone, except that its confidence is low outside the trained domain."""
    conclusion: Conclusion
    logit: float
    info: ImageInfo
    pixels: Pixels
    """The model's inputs, uint8 (views, input_px, input_px, 3)."""
    preparation: Preparation
    """How they were made."""
    seconds: float
    """Decoding and engine time; a batch's engine time is shared equally among its images."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A judgement with its Grad-CAM."""

    judgement: Judgement
    explained_class: Label
    grid: Floats
    """Signed, float32 (rows, columns) over the whole picture: positive cells spoke for `explained_class`."""
    drawing: heatmap.Drawing | None
    """The photo with its heat on it; None where nobody wants to see it."""

    @property
    def drawn(self) -> heatmap.Drawing:
        """The drawing, for who asked for one."""
        assert self.drawing is not None, "explain(encoding=None) draws nothing"
        return self.drawing


Outcome = Judgement | ImageRefusedError
BY_THE_BUNDLE: Final = Policy()
"""Decides by the bundle's own thresholds, and trusts no signer."""


class Detector:
    """One loaded bundle. Every method may be called from many threads."""

    def __init__(self, folder: Path, manifest: Manifest, engine: Engine) -> None:
        self.folder = folder
        self.manifest = manifest
        self.rule = manifest.decision
        self.preparation = manifest.preparation
        self._engine = engine
        self._head: gradcam.PoolingHead | None = None
        self._head_lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> "Detector":
        """Verify every sha256, open the graph, read the head and replay the golden examples.

        Raises:
            BundleError: the bundle was changed, or does not reproduce its own golden examples; nothing else is raised,
                whatever the files hold.
        """
        manifest = bundle.verify(folder)
        try:
            return cls._open(folder, manifest, threads)
        except BundleError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise BundleError(f"{folder}: no model that can be served: {reason}") from error

    @classmethod
    def _open(cls, folder: Path, manifest: Manifest, threads: int) -> "Detector":
        try:
            engine = Engine(folder / bundle.MODEL, threads)
        except Exception as error:
            raise BundleError(f"{folder / bundle.MODEL}: ONNX Runtime cannot load it: {error}") from error
        if engine.input_px != manifest.input_px:
            raise BundleError(f"{folder}: the graph takes {engine.input_px} px, the manifest says {manifest.input_px}")
        detector = cls(folder, manifest, engine)
        detector.replay_golden()
        # with everything in memory, a folder replaced under a running server changes nothing
        head = detector.head()
        image = detector.pixels(read_record(folder / manifest.golden[0].file, bundle.GOLDEN_BYTES))
        channels = detector.logits_and_features(image[None])[1].shape[2]
        if head.weight.shape != (1, channels) or head.bias.shape != (1,):
            raise BundleError(
                f"{folder / bundle.HEAD}: a head of shape {head.weight.shape} cannot explain {channels} channels"
            )
        return detector

    @property
    def input_px(self) -> int:
        """Side of the square input in pixels."""
        return self.manifest.input_px

    def pixels(self, data: bytes, limits: ImageLimits | None = None) -> Pixels:
        """Decode one encoded image to the model's inputs, uint8 (views, input_px, input_px, 3).

        Raises:
            ImageRefusedError: the bytes are no acceptable image.
        """
        return self.preparation.inputs(self._decoded(data, limits).rgb)

    def logits(self, batch: Pixels) -> Floats:
        """Raw logits (n,), the mean of each image's views, of a uint8 batch (n, views, input_px, input_px, 3)."""
        if batch.shape[1] == 1:
            return self._engine.logits(batch[:, 0])
        # image by image: what many views of many images leave on their way through the graph would fill the memory
        return np.array([self._engine.logits(views).mean() for views in batch], dtype=np.float32)

    def logits_and_features(self, batch: Pixels) -> tuple[Floats, Floats]:
        """The same logits, and the feature maps (n, views, channels, rows, columns)."""
        scored = [self._engine.logits_and_features(views) for views in batch]
        return np.array([logits.mean() for logits, _ in scored], dtype=np.float32), np.stack([f for _, f in scored])

    def judge(self, data: bytes, limits: ImageLimits | None = None, policy: Policy = BY_THE_BUNDLE) -> Judgement:
        """Decode and score one encoded image, and decide.

        Raises:
            ImageRefusedError: the bytes are no acceptable image.
        """
        (outcome,) = self.judge_all([data], limits, policy)
        if isinstance(outcome, ImageRefusedError):
            raise outcome
        return outcome

    def judge_all(
        self, images: Sequence[bytes], limits: ImageLimits | None = None, policy: Policy = BY_THE_BUNDLE
    ) -> list[Outcome]:
        """Decode each image and score those that are accepted in one engine call; order is kept.

        Of each picture only the model's input is kept while the others are decoded.
        """
        prepared: list[Prepared | ImageRefusedError] = []
        for data in images:
            try:
                prepared.append(self.prepare(data, limits, policy))
            except ImageRefusedError as error:
                prepared.append(error)
        judged = iter(self.score([one for one in prepared if isinstance(one, Prepared)], policy))
        return [next(judged) if isinstance(one, Prepared) else one for one in prepared]

    def prepare(self, data: bytes, limits: ImageLimits | None = None, policy: Policy = BY_THE_BUNDLE) -> "Prepared":
        """Decode one encoded image and gather its evidence; of the picture only the model's input is kept.

        Raises:
            ImageRefusedError: the bytes are no acceptable image.
        """
        started = time.perf_counter()
        decoded = self._decoded(data, limits)
        return self._prepared(data, decoded, self.preparation.boxes(decoded.rgb), policy, started)

    def score(self, prepared: Sequence["Prepared"], policy: Policy = BY_THE_BUNDLE) -> list[Judgement]:
        """Judge prepared images in one engine call; order is kept."""
        if not prepared:
            return []
        started = time.perf_counter()
        logits = self.logits(as_batch([one.pixels for one in prepared])).tolist()
        share = (time.perf_counter() - started) / len(prepared)
        return [
            self._judged(one, logit, one.seconds + share, policy) for one, logit in zip(prepared, logits, strict=True)
        ]

    def explain(
        self,
        data: bytes,
        limits: ImageLimits | None = None,
        side_px: int | None = None,
        policy: Policy = BY_THE_BUNDLE,
        encoding: heatmap.Encoding | None = "png",
    ) -> Explanation:
        """Judge one encoded image and say where the score of its predicted class came from.

        Args:
            data: the file's bytes.
            limits: what the image may cost; None: the defaults.
            side_px: longer side of the overlay; None keeps the photo's own within bounds.
            policy: how to decide.
            encoding: of the overlay; None: none is drawn.

        Raises:
            ImageRefusedError: the bytes are no acceptable image.
        """
        started = time.perf_counter()
        decoded = self._decoded(data, limits)
        boxes = self.preparation.boxes(decoded.rgb)
        one = self._prepared(data, decoded, boxes, policy, started)
        logits, features = self.logits_and_features(one.pixels[None])
        logit = float(logits[0])
        explained = self.rule.decide(logit).prediction
        grids = [self.head().explain(of_view, explained) for of_view in features[0]]
        grid = over_picture(grids, boxes, decoded.rgb.size)
        drawing = heatmap.draw(decoded.rgb, grid, encoding, side_px) if encoding else None
        judgement = self._judged(one, logit, time.perf_counter() - started, policy)
        return Explanation(judgement, explained, grid, drawing)

    def bands(self, policy: Policy = BY_THE_BUNDLE) -> DecisionBands:
        """The thresholds by which this model decides under a deployment's policy."""
        return policy.bands(self.rule, self.manifest.bands)

    def _decoded(self, data: bytes, limits: ImageLimits | None) -> DecodedImage:
        return decode(data, limits, target_px=self.preparation.decode_px)

    def _prepared(
        self, data: bytes, decoded: DecodedImage, boxes: Sequence[Box | None], policy: Policy, started: float
    ) -> "Prepared":
        pixels = self.preparation.cut(decoded.rgb, boxes)
        return Prepared(
            decoded.info,
            pixels,
            measure(self.manifest.domain, decoded.info, pixels),
            inspect(data, policy.verifier),
            hashlib.sha256(data).hexdigest(),
            time.perf_counter() - started,
        )

    def _judged(self, one: "Prepared", logit: float, seconds: float, policy: Policy) -> Judgement:
        verdict = self.rule.decide(logit)
        if not one.domain.inside:
            verdict = replace(verdict, confidence="low")
        found = conclude(verdict, self.bands(policy), one.domain, one.provenance, one.image_sha256)
        return Judgement(verdict, found, logit, one.info, one.pixels, self.preparation, seconds)

    def head(self) -> gradcam.PoolingHead:
        """The pooling head for Grad-CAM, read on first use."""
        with self._head_lock:
            if self._head is None:
                self._head = gradcam.PoolingHead(self.folder / bundle.HEAD)
            return self._head

    def settle(self) -> None:
        """Prepare for a long life: some tenths of a second, once, for 4 % of every image's time; blocks."""
        self._engine.settle()

    def warm_up_explanations(self) -> None:
        """Explain one golden image, so that torch and Captum are loaded before a user waits for them."""
        self.explain(read_record(self.folder / self.manifest.golden[0].file, bundle.GOLDEN_BYTES))

    def replay_golden(self) -> None:
        """Score the golden images and compare with what training recorded.

        Raises:
            BundleError: an image's probability or verdict differs; the message has both numbers.
        """
        for example in self.manifest.golden:
            path = self.folder / example.file
            try:
                verdict = self.judge(read_record(path, bundle.GOLDEN_BYTES)).verdict
            except ImageRefusedError as error:
                raise BundleError(f"{path}: the golden example is no image: {error}") from error
            gap = abs(verdict.probability - example.probability)
            # a comparison with a figure that is not a number is false either way
            if not gap <= GOLDEN_TOLERANCE or verdict.prediction != example.prediction:
                raise BundleError(
                    f"{path}: golden example not reproduced: expected {example.prediction} "
                    f"{example.probability:.6f}, got {verdict.prediction} {verdict.probability:.6f}"
                )
