"""The smoke test: golden images replayed against a running version, its verdicts and its version checked."""

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from serving.detector.bundle import GOLDEN_BYTES, Manifest
from serving.detector.labels import LABELS, Label
from serving.platform.answers import LONGEST_ANSWER_S, PLAIN, read_answer
from serving.platform.errors import NotAnsweringError, OtherVersionError, SmokeError
from serving.platform.records import read_record

if TYPE_CHECKING:
    import ssl

_PROBLEM: Final = "application/problem+json"
_RETRY_PAUSE_S: Final = 0.25
_SETTLE_PAUSE_S: Final = 1.0
_BUSY: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version said of one image."""

    prediction: str
    probability: float
    """Of `ai_generated`."""
    version: str


class Prober(Protocol):
    """A way to ask one running version."""

    def ask(self, name: str, image: bytes) -> Answer:
        """Its verdict of one encoded image.

        Raises:
            NotAnsweringError: it is starting, busy or cannot be reached.
            SmokeError: it answered, and not with a verdict.
        """


@dataclass(frozen=True, slots=True)
class Example:
    """A golden image and what must be said of it."""

    name: str
    image: bytes
    prediction: Label
    probability: float


@dataclass(frozen=True, slots=True)
class SmokeReport:
    """A passed smoke test."""

    examples: int
    largest_gap: float
    """Largest difference of a probability from the recorded one."""

    @property
    def sentence(self) -> str:
        """One line for people."""
        return f"{self.examples} golden images replayed, probabilities within {self.largest_gap:.1e}"


def golden_examples(bundle: Path, manifest: Manifest) -> list[Example]:
    """The bundle's golden images.

    Raises:
        SmokeError: they do not show both verdicts, so inverted labels could pass unseen.
    """
    examples = [
        Example(golden.file, read_record(bundle / golden.file, GOLDEN_BYTES), golden.prediction, golden.probability)
        for golden in manifest.golden
    ]
    missing = set(LABELS) - {example.prediction for example in examples}
    if missing:
        raise SmokeError(f"no golden image of this bundle is called {missing.pop()}; a smoke test needs both verdicts")
    return examples


def smoke(
    prober: Prober, examples: list[Example], version: str, tolerance: float, timeout_s: float, settle_s: float = 0.0
) -> SmokeReport:
    """Replay `examples` and check every answer.

    Args:
        prober: asks the running version.
        examples: golden images with the answers they must get.
        version: the version that must answer.
        tolerance: largest accepted difference of a probability.
        timeout_s: for the whole replay, waiting for a busy server included.
        settle_s: how long another version may answer before that is an error, where traffic was moved a moment ago.

    Raises:
        SmokeError: a wrong version, verdict or probability, an error, or no answer in time.
    """
    end = time.monotonic() + settle_s
    while True:
        try:
            return _replay(prober, examples, version, tolerance, timeout_s)
        except OtherVersionError:
            if time.monotonic() + _SETTLE_PAUSE_S > end:
                raise
            time.sleep(_SETTLE_PAUSE_S)


def _replay(prober: Prober, examples: list[Example], version: str, tolerance: float, timeout_s: float) -> SmokeReport:
    deadline = time.monotonic() + timeout_s
    answers = [answer_within(prober, example, deadline - time.monotonic()) for example in examples]
    for example, answer in zip(examples, answers, strict=True):
        if answer.version != version:
            raise OtherVersionError(f"smoke test: version {answer.version} answers, expected {version}")
        if answer.prediction not in LABELS:
            raise SmokeError(f"smoke test: {example.name} is called {answer.prediction!r}, not one of {LABELS}")
    if all(answer.prediction != example.prediction for example, answer in zip(examples, answers, strict=True)):
        raise SmokeError("smoke test: labels are inverted: every golden image got the opposite of its verdict")
    gaps = [abs(answer.probability - example.probability) for example, answer in zip(examples, answers, strict=True)]
    for example, answer, gap in zip(examples, answers, gaps, strict=True):
        if answer.prediction != example.prediction or not gap <= tolerance:
            raise SmokeError(
                f"smoke test: {example.name} got {answer.prediction} {answer.probability:.6f}, "
                f"expected {example.prediction} {example.probability:.6f}"
            )
    return SmokeReport(len(examples), max(gaps))


def answer_within(prober: Prober, example: Example, timeout_s: float) -> Answer:
    """Ask about one image, again and again while the version is starting or busy.

    Raises:
        SmokeError: no answer within `timeout_s`, or one that is no verdict.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return prober.ask(example.name, example.image)
        except NotAnsweringError as error:
            if time.monotonic() + _RETRY_PAUSE_S > deadline:
                raise SmokeError(f"smoke test: no answer to {example.name} in time: {error}") from error
            time.sleep(_RETRY_PAUSE_S)


@cache
def _authorities() -> "ssl.SSLContext":
    """Whom an https address is believed to be by, for a whole process: reading the list costs more than an answer."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


class HttpProber:
    """Asks a server of this project over HTTP."""

    def __init__(self, url: str, timeout_s: float, headers: dict[str, str] | None = None) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = headers or {}

    def ask(self, name: str, image: bytes) -> Answer:
        """POST the image to `/predict`."""
        import httpx

        try:
            with httpx.stream(
                "POST",
                f"{self.url}/predict",
                files={"file": (Path(name).name, image)},
                headers=self._headers | PLAIN,
                timeout=self._timeout_s,
                trust_env=False,
                verify=_authorities(),
            ) as response:
                said = read_answer(response, longest_s=max(self._timeout_s, LONGEST_ANSWER_S))
        except httpx.HTTPError as error:
            raise NotAnsweringError(f"{self.url}/predict: {type(error).__name__} {error}".rstrip()) from error
        except ValueError as error:
            raise SmokeError(
                f"smoke test: {self.url}/predict gave {name} {error}; is it this project's server?"
            ) from error
        if response.status_code in _BUSY:
            raise NotAnsweringError(f"{self.url}/predict answered {response.status_code}")
        if response.status_code == httpx.codes.NOT_FOUND and _PROBLEM not in response.headers.get("content-type", ""):
            # not our server's words: the cloud's front end does not know a new address for some seconds
            raise NotAnsweringError(f"{self.url}/predict is not known yet (404)")
        if response.status_code != httpx.codes.OK:
            detail = " ".join(said.decode(errors="replace").split())[:200]
            raise SmokeError(f"smoke test: {self.url}/predict answered {response.status_code} to {name}: {detail}")
        try:
            body = json.loads(said)
            return Answer(str(body["prediction"]), float(body["probability"]), str(body["model_version"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SmokeError(f"smoke test: {self.url}/predict answered 200 without a verdict to {name}") from error

    def ready(self) -> bool:
        """Whether `/readyz` answers 200: the model is loaded and verified."""
        import httpx

        try:
            with httpx.stream(
                "GET",
                f"{self.url}/readyz",
                headers=self._headers,
                timeout=self._timeout_s,
                trust_env=False,
                verify=_authorities(),
            ) as response:
                return response.status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False
