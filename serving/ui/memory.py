"""What one browser session remembers: answers by content and model version, and a history without pictures."""

import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import streamlit as st

from serving.ui import heatmap
from serving.ui.client import About, ApiError, Client, Explanation, Photo, Refusal, Verdict, chunks

MAX_EXPLANATIONS: Final = 200
MAX_THUMBNAILS: Final = 1000
"""Some 3 kB each."""
MAX_HISTORY: Final = 5000
MAX_ROUNDS: Final = 3
"""How often a model may be exchanged while one set of photos is judged."""

NOTHING_SAID: Final = About("", "", takes_feedback=False, max_file_bytes=10 << 20)

Outcome = Verdict | Refusal


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One judged photo: no picture, no part of one."""

    at: datetime
    file: str
    sha256: str
    outcome: Outcome


@dataclass
class Memory:
    """Answers of one connection (API and key). Another connection, another memory: nothing stale is shown."""

    client: Client
    about: About = NOTHING_SAID
    """What the API said of itself last."""
    version: str = ""
    """Of the model that answers now, as the API said last."""
    labels: dict[str, str] = field(default_factory=dict)
    """sha256 of the file -> what this session's person said it is, once the API kept it."""
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    """(sha256 of the file, model version) -> answer."""
    explanations: dict[tuple[str, str], Explanation] = field(default_factory=dict)
    history: list[HistoryEntry] = field(default_factory=list)
    _thumbnails: dict[str, str] = field(default_factory=dict)
    _closed_until: dict[str, float] = field(default_factory=dict)

    def outcome(self, sha256: str) -> Outcome | None:
        """The current model's answer on this content, if it was asked."""
        return self.outcomes.get((sha256, self.version))

    def explanation(self, sha256: str) -> Explanation | None:
        """The current model's explanation, if it was asked."""
        return self.explanations.get((sha256, self.version))

    def thumbnail(self, sha256: str, photo: Photo) -> str:
        """A small picture of a photo the API accepted, as a data address."""
        found = self._thumbnails.get(sha256)
        if found is None:
            found = self._thumbnails[sha256] = heatmap.thumbnail(photo.data)
            while len(self._thumbnails) > MAX_THUMBNAILS:
                self._thumbnails.pop(next(iter(self._thumbnails)))
        return found

    def refresh(self) -> None:
        """Ask which model answers now; answers of another one are not shown any more.

        Raises:
            ApiError: the API is down or has no model.
        """
        self.about = self.client.about()
        self.version = self.about.version

    def look_at(self, photo: Photo, sha256: str) -> ApiError | None:
        """Judge one photo and explain it, unless the current model did; without a heatmap where that has to wait.

        Returns:
            Why there is no heatmap; None where there is one, or none to expect.

        Raises:
            ApiError: there is no verdict either; a file the API refuses is an outcome, not an error.
        """
        try:
            self.explain(photo, sha256)
        except ApiError as error:
            if error.kind not in ("rate_limited", "unavailable"):
                raise
            if self.outcome(sha256) is None:
                self._alone(photo, sha256)
            return error
        return None

    def explain(self, photo: Photo, sha256: str) -> None:
        """Judge and explain one photo, unless the current model did.

        Raises:
            ApiError: no answer; a file the API refuses is an outcome, not an error.
        """
        found = self.outcome(sha256)
        if isinstance(found, Refusal) or self.explanation(sha256):
            return
        self._wait_is_over("explain")
        try:
            explanation = self.client.explain(photo)
        except ApiError as error:
            if error.kind == "refused":
                self._keep(photo, sha256, Refusal(str(error), self.version))
                return
            raise self._noted("explain", error) from error
        while len(self.explanations) >= MAX_EXPLANATIONS:
            self.explanations.pop(next(iter(self.explanations)))
        self.explanations[sha256, explanation.verdict.model_version] = explanation
        self._keep(photo, sha256, explanation.verdict)

    def label(self, sha256: str, label: str) -> None:
        """Tell the API what a judged photo really is.

        Raises:
            ApiError: the label was not kept.
        """
        found = self.outcome(sha256)
        if isinstance(found, Verdict):
            self.client.label(found, label)
            self.labels[sha256] = label

    def _alone(self, photo: Photo, sha256: str) -> None:
        self._wait_is_over("predict")
        try:
            self._keep(photo, sha256, self.client.predict(photo))
        except ApiError as error:
            if error.kind != "refused":
                raise self._noted("predict", error) from error
            self._keep(photo, sha256, Refusal(str(error), self.version))

    def judge(self, photos: dict[str, Photo]) -> None:
        """Judge the photos (by sha256) the current model has not judged, in as few requests as the API allows.

        Raises:
            ApiError: some have no answer; those that have one keep it.
        """
        by_identity = {id(photo): sha256 for sha256, photo in photos.items()}
        for _ in range(MAX_ROUNDS):
            missing = [photo for sha256, photo in photos.items() if self.outcome(sha256) is None]
            if not missing:
                return
            for chunk in chunks(missing):
                self._wait_is_over("batch")
                for photo, outcome in zip(chunk, self._batch(chunk), strict=True):
                    self._keep(photo, by_identity[id(photo)], outcome)

    def _batch(self, chunk: list[Photo]) -> list[Outcome]:
        try:
            return list(self.client.batch(chunk))
        except ApiError as error:
            if error.kind == "refused" and len(chunk) == 1:
                return [Refusal(str(error), self.version)]
            raise self._noted("batch", error) from error

    def _keep(self, photo: Photo, sha256: str, outcome: Outcome) -> None:
        # a model exchanged in between answers in its own name
        self.version = outcome.model_version
        known = self.outcomes.get((sha256, self.version))
        self.outcomes[sha256, self.version] = outcome
        if known is None:
            self.history.append(HistoryEntry(datetime.now(UTC), photo.name, sha256, outcome))
            del self.history[:-MAX_HISTORY]

    def _wait_is_over(self, route: str) -> None:
        left = self._closed_until.get(route, 0.0) - time.monotonic()
        if left > 0:
            raise limit_hit(max(1, round(left)))

    def _noted(self, route: str, error: ApiError) -> ApiError:
        if error.kind != "rate_limited":
            return error
        wait_s = error.retry_after_s or 1
        self._closed_until[route] = time.monotonic() + wait_s
        return limit_hit(wait_s, error.request_id)


def limit_hit(wait_s: int, request_id: str = "") -> ApiError:
    """The API's limit, in words that say when it opens again."""
    message = f"The API's limit of requests is reached. Try again in {wait_s} s."
    return ApiError("rate_limited", message, retry_after_s=wait_s, request_id=request_id)


def remembered(client: Client) -> Memory:
    """This browser session's memory of the connection; one with another address or key starts afresh.

    The history stays: each of its lines says when, and which model spoke.
    """
    state: Any = st.session_state
    found = state.get("memory")
    if not isinstance(found, Memory) or found.client != client:
        state["memory"] = Memory(client, history=found.history if isinstance(found, Memory) else [])
    memory: Memory = state["memory"]
    return memory


def content_hash(data: bytes) -> str:
    """sha256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()
