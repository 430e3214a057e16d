"""What the routes of one application share: models, predictor, limits and observers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from fastapi import Request

from serving.detector.detector import Judgement
from serving.detector.statistics import InputQuality
from serving.drift.monitor import DriftMonitor
from serving.feedback.store import FeedbackStore
from serving.http.codecs import ImageBounds
from serving.http.predictor import Predictor
from serving.http.problems import ProblemError, request_id
from serving.http.remote import ADDRESS_BYTES, NO_FETCH, RemotePhotos, read_address
from serving.http.uploads import BodyAccount, BodyBudget, Pace, Upload, UploadLimits, read_body, read_files
from serving.lifecycle import LifecycleMetrics
from serving.served import ModelHolder, Served
from serving.settings import ENVELOPE_BYTES, Settings, as_base64
from serving.shadow import Shadow
from serving.telemetry import Telemetry

T = TypeVar("T")

SMALL_BODY_BYTES: Final = 256 * 1024
"""To decode so much costs less than to hand it to another thread."""


@dataclass(slots=True)
class Service:
    """One application's working parts; routes find it in `app.state.service`."""

    settings: Settings
    telemetry: Telemetry
    champion: ModelHolder
    predictor: Predictor
    budget: BodyBudget
    remote: RemotePhotos | None = None
    """Fetches photos by their address, where that is allowed."""
    challenger: ModelHolder | None = None
    shadow: Shadow | None = None
    drift: DriftMonitor | None = None
    feedback: FeedbackStore | None = None
    lifecycle: LifecycleMetrics | None = None
    started_at: float = field(default_factory=time.monotonic)

    @property
    def uptime_s(self) -> float:
        """Seconds since the application was made."""
        return time.monotonic() - self.started_at

    @property
    def recorders(self) -> list[DriftMonitor | FeedbackStore]:
        """What keeps records on a thread of its own, to be started with the server and closed after it."""
        return [recorder for recorder in (self.drift, self.feedback) if recorder is not None]

    @property
    def pace(self) -> Pace:
        """How slowly a body may come."""
        window_s = self.settings.body_timeout_s
        return Pace(window_s, max(1, int(window_s * self.settings.body_min_rate)))

    @property
    def image_bounds(self) -> ImageBounds:
        """What one request may hold in images."""
        return ImageBounds(self.settings.max_batch_files, self.settings.max_file_bytes)

    @contextmanager
    def admitted(self, request: Request) -> Iterator[BodyAccount]:
        """An account for a body that is worth reading, in the name of the request's caller.

        Raises:
            NotReadyError: no model is loaded.
            ProblemError: `overloaded`.
        """
        _ = self.champion.current
        client: str = request.scope["state"].get("caller", "")
        self.predictor.refuse_if_full(client)
        with self.budget.account(client) as account:
            yield account

    async def upload(self, request: Request, account: BodyAccount) -> bytes:
        """The one image of a multipart body, from the field `file`.

        Raises:
            ProblemError: see `uploads.read_files`; also `file_too_large`.
        """
        limit = self.settings.max_file_bytes
        limits = UploadLimits("file", 1, limit, limit, self.pace)
        (upload,) = await read_files(request, account, limits)
        if upload.too_large:
            raise ProblemError("file_too_large", self.too_large_detail())
        return upload.data

    async def photo(self, request: Request, account: BodyAccount) -> bytes:
        """The one image of a multipart body, or what lies behind the address in a JSON body.

        Raises:
            ProblemError: see `upload` and `RemotePhotos.get`; `url_fetch_disabled` where no address is fetched.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return await self.upload(request, account)
        if self.remote is None:
            raise ProblemError("url_fetch_disabled", NO_FETCH)
        asked = read_address(await read_body(request, account, ADDRESS_BYTES, self.pace))
        # before a byte of it comes: what is being fetched fills the memory as bodies do, and is shared as they are
        account.take(self.settings.max_file_bytes)
        return await self.remote.get(asked.url)

    async def uploads(self, request: Request, account: BodyAccount) -> list[Upload]:
        """The images of a multipart body, from the field `files`; those over the file limit are marked."""
        settings = self.settings
        limits = UploadLimits(
            "files",
            settings.max_batch_files,
            settings.max_file_bytes,
            settings.max_batch_bytes,
            self.pace,
        )
        return await read_files(request, account, limits)

    async def decoded(self, request: Request, account: BodyAccount, decode: Callable[[bytearray, ImageBounds], T]) -> T:
        """What `decode` makes of a whole JSON (or JSON and binary) body; a large one is decoded off the event loop."""
        most = as_base64(self.settings.max_batch_bytes) + ENVELOPE_BYTES
        body = await read_body(request, account, most, self.pace)
        work = partial(decode, body, self.image_bounds)
        if len(body) <= SMALL_BODY_BYTES:
            return work()
        # the images are copies; the body goes with the work
        del body
        return await self.predictor.aside(work, account.client)

    def too_large_detail(self) -> str:
        """Says the file limit."""
        return f"the file has more than {self.settings.max_file_bytes:,} bytes, the limit"

    def observe(
        self, request: Request, served: Served, judgement: Judgement, data: bytes, seconds: float, item: int = 0
    ) -> None:
        """Tell every observer of a verdict that is about to be answered.

        Args:
            request: whose id a true label may come back with.
            served: the model that judged.
            judgement: what it said.
            data: the image's bytes; only a challenger of another input size looks at them.
            seconds: from the complete body to the verdict.
            item: position in the request.
        """
        self.telemetry.prediction(judgement.verdict, seconds)
        self.telemetry.decision(judgement.conclusion, judgement.verdict.prediction)
        if self.drift is not None:
            quality = InputQuality.of(judgement.info)
            self.drift.observe(judgement.verdict, judgement.logit, quality, served.version)
        if self.feedback is not None:
            self.feedback.remember(
                request_id(request.scope),
                item,
                served.version,
                judgement.verdict,
                judgement.conclusion.image_sha256,
                key_id(request),
            )
            self.feedback.keep(judgement.conclusion.image_sha256, data)
        if self.shadow is not None:
            self.shadow.offer(judgement, data)


def key_id(request: Request) -> str:
    """Id of the API key that the request came with (a prefix of its digest); empty without one."""
    kind, _, holder = request.scope["state"].get("caller", "").partition(":")
    return holder if kind == "key" else ""


def service_of(request: Request) -> Service:
    """The service of the application that handles `request`."""
    service: Service = request.app.state.service
    return service
