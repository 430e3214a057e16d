"""The HTTP API as Python calls: answers as plain values, every failure as one `ApiError` with words for people."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

import httpx

MAX_BATCH_FILES: Final = 10
MAX_BATCH_BYTES: Final = 45 * 1024 * 1024
"""Of file content in one request; the API takes 50 MB with the form around it."""

TIMEOUT: Final = httpx.Timeout(60.0, connect=3.0)
"""The first explanation after a start waits for torch to load."""

Kind = Literal["unreachable", "unauthorized", "rate_limited", "refused", "unavailable", "failed"]


class ApiError(Exception):
    """No answer to use. `str(error)` is for people; `kind` says what they can do about it."""

    def __init__(self, kind: Kind, message: str, *, retry_after_s: int | None = None, request_id: str = "") -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.retry_after_s = retry_after_s
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Photo:
    """A file as the user gave it."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the API says of one photo."""

    answer: dict[str, Any] = field(repr=False)
    """Its fields as plain values, those of its batch included."""
    item: int
    """Position in the request, for feedback."""

    def __getattr__(self, name: str) -> Any:
        """The fields that every verdict has."""
        if name in _EVERY_VERDICT:
            return self.answer[name]
        raise AttributeError(name)


_EVERY_VERDICT: Final = frozenset(
    (
        "prediction", "probability", "confidence", "threshold", "decision", "reasons", "domain", "provenance",
        "image_sha256", "record", "model_version", "request_id",
    )
)  # fmt: skip
_OF_A_BATCH: Final = ("threshold", "record", "model_version", "request_id")


@dataclass(frozen=True, slots=True)
class About:
    """What the API says of itself."""

    version: str
    """Of the model that answers now."""
    caveat: str
    """What a reader of its verdicts has to know first; empty: nothing is noted."""
    takes_feedback: bool
    max_file_bytes: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a photo has no verdict; final for this file."""

    detail: str
    model_version: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict and where it came from."""

    verdict: Verdict
    explained_class: str
    grid: list[list[float]]
    """Signed Grad-CAM, rows of columns over the whole picture; positive cells spoke for `explained_class`."""


@dataclass(frozen=True, slots=True)
class Client:
    """Calls the API at `url`, with `key` where there is one."""

    url: str
    key: str = field(default="", repr=False)

    def about(self) -> About:
        """Which model answers now, its caveat, and what the API takes; open to callers without a key.

        Raises:
            ApiError: of kind `unavailable` while no model is loaded.
        """
        body = self._complete("/", "model_version", "caveat", "takes_feedback", "limits")
        if body["model_version"] is None:
            raise ApiError("unavailable", "The API runs, but no model is loaded yet. Try again in a moment.")
        limit = int(body["limits"]["max_file_bytes"])
        return About(str(body["model_version"]), str(body["caveat"] or ""), bool(body["takes_feedback"]), limit)

    def privacy(self) -> str:
        """The server's own words on what becomes of an image."""
        return str(self._json("GET", "/privacy").get("images", ""))

    def model(self) -> dict[str, Any]:
        """`GET /model`: figures, verdict of the quality gate, manifest."""
        return self._complete("/model", "version", "threshold", "digest", "verdict", "metrics", "release", "manifest")

    def drift(self) -> dict[str, Any]:
        """`GET /drift`."""
        return self._complete("/drift", "state", "window_size", "signals", "alerts", "windows_closed", "reference_size")

    def explain(self, photo: Photo) -> Explanation:
        """Judge one photo and say where the score came from.

        Raises:
            ApiError: of kind `refused` where the file is no picture the API takes.
        """
        # the page has the photo and draws on it itself
        body = self._json("POST", "/predict/explain?overlay=false", [("file", (photo.name, photo.data))])
        try:
            return Explanation(_verdict(body, body), body["explained_class"], body["heatmap"])
        except (KeyError, TypeError, ValueError) as error:
            raise _not_our_api(self.url) from error

    def predict(self, photo: Photo) -> Verdict:
        """Judge one photo without a heatmap; raises as `explain`."""
        body = self._json("POST", "/predict", [("file", (photo.name, photo.data))])
        try:
            return _verdict(body, body)
        except (KeyError, TypeError, ValueError) as error:
            raise _not_our_api(self.url) from error

    def label(self, verdict: Verdict, label: str) -> str:
        """Tell the true label of a judged photo; `recorded`, `unchanged` or `corrected`."""
        told = {"request_id": verdict.request_id, "item": verdict.item, "label": label, "by": "page"}
        return str(self._json("POST", "/feedback", document=told).get("status", ""))

    def batch(self, photos: Sequence[Photo]) -> list[Verdict | Refusal]:
        """Judge up to `MAX_BATCH_FILES` photos in one request; the answers stand in their order."""
        body = self._json("POST", "/predict/batch", [("files", (p.name, p.data)) for p in photos])
        try:
            found = [_item(item, body) for item in body["results"]]
        except (KeyError, TypeError, ValueError) as error:
            raise _not_our_api(self.url) from error
        if len(found) != len(photos):
            raise ApiError("failed", f"The API answered for {len(found)} of {len(photos)} photos.")
        return found

    def _complete(self, path: str, *members: str) -> dict[str, Any]:
        body = self._json("GET", path)
        if any(name not in body for name in members):
            raise _not_our_api(self.url)
        return body

    def _json(
        self,
        method: str,
        path: str,
        files: list[tuple[str, tuple[str, bytes]]] | None = None,
        document: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        if not self.key.isascii() or not self.key.isprintable():
            raise ApiError("unauthorized", "The API key has characters that no key has. Paste it again.")
        headers = {"X-API-Key": self.key} if self.key else {}
        try:
            answer = _http().request(method, self.url + path, files=files, json=document, headers=headers)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ApiError("unreachable", f"API_URL is no http address: {self.url}") from error
        except httpx.ConnectError as error:
            message = f"The API at {self.url} does not answer. Start it (make serve) or set API_URL, then try again."
            raise ApiError("unreachable", message) from error
        except httpx.TimeoutException as error:
            raise ApiError("unreachable", f"The API at {self.url} took too long to answer. Try again.") from error
        except httpx.HTTPError as error:
            message = f"The connection to the API at {self.url} broke ({type(error).__name__}). Try again."
            raise ApiError("unreachable", message) from error
        body = _document(answer)
        if not answer.is_success:
            raise _problem(answer, body, self.url, has_key=bool(self.key))
        if body is None:
            raise _not_our_api(self.url)
        return body


def chunks(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Cut photos into batches the API takes: at most `MAX_BATCH_FILES` and `MAX_BATCH_BYTES` each, in order."""
    found: list[list[Photo]] = []
    size = 0
    for photo in photos:
        if not found or len(found[-1]) == MAX_BATCH_FILES or size + len(photo.data) > MAX_BATCH_BYTES:
            found.append([])
            size = 0
        found[-1].append(photo)
        size += len(photo.data)
    return found


@functools.cache
def _http() -> httpx.Client:
    # one for all sessions: connections are kept, and keys travel with each request
    return httpx.Client(timeout=TIMEOUT)


def _verdict(fields: Mapping[str, Any], answer: Mapping[str, Any]) -> Verdict:
    found = {**fields, **{name: answer[name] for name in _OF_A_BATCH}}
    if not found.keys() >= _EVERY_VERDICT or not isinstance(found["probability"], float):
        raise KeyError("no verdict")
    return Verdict(found, int(fields.get("index") or 0))


def _item(item: Mapping[str, Any], answer: Mapping[str, Any]) -> Verdict | Refusal:
    error = item.get("error")
    if error:
        return Refusal(str(error.get("advice") or error["detail"]), str(answer["model_version"]))
    return _verdict(item, answer)


def _document(answer: httpx.Response) -> dict[str, Any] | None:
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _not_our_api(url: str) -> ApiError:
    return ApiError("failed", f"What answers at {url} is not this detector's API. Check API_URL.")


def _problem(answer: httpx.Response, body: dict[str, Any] | None, url: str, *, has_key: bool) -> ApiError:
    status = answer.status_code
    if body is None or "detail" not in body:
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return _not_our_api(url)
        return ApiError("unreachable", f"What stands before the API answers with status {status}. Try again later.")
    detail, request_id = str(body["detail"]), str(body.get("request_id", ""))
    given = answer.headers.get("Retry-After", "")
    retry_after_s = int(given) if given.isdigit() else None
    if status == HTTPStatus.UNAUTHORIZED:
        message = "The API refused this key." if has_key else "The API wants a key."
        return ApiError("unauthorized", f"{message} Enter yours in the sidebar. ({detail})", request_id=request_id)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return ApiError("rate_limited", detail, retry_after_s=retry_after_s or 1, request_id=request_id)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return ApiError("unavailable", detail, retry_after_s=retry_after_s, request_id=request_id)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return ApiError("refused", str(body.get("advice") or detail), request_id=request_id)
    return ApiError("failed", f"The API failed: {detail}", request_id=request_id)
