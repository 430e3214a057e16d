"""True labels for answered requests: kept append-only for the next training set, and as live precision and recall.

In FEEDBACK_DIR: `feedback.jsonl` (one line per label, the record that is never rewritten), `index.sqlite` (predictions
that wait for a label, and the latest label of each), `images/` (only with FEEDBACK_KEEP_IMAGES).
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

from serving.detector.decision import Verdict
from serving.detector.labels import Label
from serving.evidence import Evidence
from serving.feedback.answers import SharedAnswers
from serving.feedback.images import KeptImages
from serving.feedback.metrics import FeedbackMetrics
from serving.platform.errors import AnswerNotSharedError, StateError, UnknownPredictionError, one_line
from serving.platform.jsonlines import LocalLines
from serving.platform.recorder import Recorder, Trouble

JSONL: Final = "feedback.jsonl"
FLUSH_S: Final = 0.5
MAX_WAITING: Final = 10_000
"""Predictions that wait in memory for the disk at most."""
PRUNE_S: Final = 3600.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS predictions (
    request_id TEXT NOT NULL, item INTEGER NOT NULL, at REAL NOT NULL, version TEXT NOT NULL,
    prediction TEXT NOT NULL, probability REAL NOT NULL, sha256 TEXT NOT NULL, label TEXT,
    key TEXT NOT NULL DEFAULT '', labelled_key TEXT,
    PRIMARY KEY (request_id, item)
);
CREATE INDEX IF NOT EXISTS labelled ON predictions (version, label, prediction) WHERE label IS NOT NULL;
CREATE INDEX IF NOT EXISTS unlabelled ON predictions (at) WHERE label IS NULL;
"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a label."""

    status: Literal["recorded", "unchanged", "corrected"]
    prediction: Label
    label: Label
    probability: float
    model_version: str


@dataclass(frozen=True, slots=True)
class Labeller:
    """Who gives a label: the id of the API key (empty without one), and what the caller says of itself."""

    key: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class FeedbackPolicy:
    """What is remembered, and how much."""

    retention_s: float
    keep_images: bool = False
    most_images: int = 10_000
    most_image_bytes: int = 1024 * 1024 * 1024


class _Prediction(NamedTuple):
    """A row of the table, in its order."""

    request_id: str
    item: int
    at: float
    version: str
    prediction: Label
    probability: float
    sha256: str
    key: str


class FeedbackStore:
    """Remembers predictions off the request path and joins labels to them; shared by all workers of a server."""

    def __init__(
        self,
        folder: Path,
        policy: FeedbackPolicy,
        metrics: FeedbackMetrics,
        on_trouble: Callable[[Trouble, int], None] = lambda _trouble, _rows: None,
        evidence: Evidence | None = None,
    ) -> None:
        """Open the store; a damaged index is set aside, so that feedback never keeps a server down.

        With `evidence` each label is also an object of its own there (`labels/TIME-REQUEST-ITEM.json`), and so is its
        photo where it is kept: a disk that ends with its instance is no record. Answers are shared there, too, so that
        a label finds its answer whatever instance it reaches.

        Raises:
            StateError: the folder cannot be written.
        """
        self._policy, self._metrics = policy, metrics
        self._evidence = evidence
        self._answers = None
        if evidence is not None:
            self._answers = SharedAnswers(evidence, policy.retention_s, lambda rows: on_trouble("dropped", rows))
        self._version = ""
        self._pruned = 0.0
        self._labels = LocalLines(folder / JSONL, "set FEEDBACK_DIR", 0o600)
        self._images: KeptImages | None = None
        try:
            if policy.keep_images:
                self._images = KeptImages(
                    folder / "images", policy.most_images, policy.most_image_bytes, metrics.refused_images.inc
                )
            self._recorder = Recorder[_Prediction](
                folder / "index.sqlite", _SCHEMA, _write, MAX_WAITING, "FEEDBACK_DIR", on_trouble
            )
            self._add_columns()
        except (OSError, sqlite3.Error, StateError) as error:
            raise StateError(f"FEEDBACK_DIR={folder}: {one_line(error)}; name a writable folder") from error

    def serve(self, version: str) -> None:
        """Report precision and recall of this model version from now on."""
        self._version = version
        with self._recorder.trouble_told():
            self._report()

    def remember(self, request_id: str, item: int, version: str, verdict: Verdict, sha256: str, key: str) -> None:
        """Expect a label for this prediction; O(1), no I/O.

        Args:
            request_id: the server's own.
            item: position in the request.
            version: of the model.
            verdict: what it said.
            sha256: of the file's bytes.
            key: id of the API key that asked; empty without one.
        """
        row = _Prediction(request_id, item, time.time(), version, verdict.prediction, verdict.probability, sha256, key)
        self._recorder.put(row)
        if self._answers is not None:
            self._answers.tell(row)

    def keep(self, sha256: str, data: bytes) -> None:
        """Keep the photo itself, where that is wanted."""
        if self._images is not None:
            self._images.offer(sha256, data)

    def record(self, request_id: str, item: int, label: Label, who: Labeller) -> Accepted:
        """Join a true label to its prediction and keep it; blocks until it is on the disk.

        Raises:
            UnknownPredictionError: never answered by this server, or longer ago than the retention.
            StateError: it could not be kept now (disk full, index busy); nothing was changed, try again.
        """
        try:
            self.flush()
            self._fetch(request_id, item)
            with self._recorder.transaction() as cursor:
                accepted = self._join(cursor, request_id, item, label, who)
            if accepted.status != "unchanged":
                self._metrics.received(accepted.prediction, label)
                self._report()
        except AnswerNotSharedError:
            raise
        except (OSError, sqlite3.Error, StateError) as error:
            with self._recorder.trouble_told():
                raise
            raise StateError(f"the label could not be kept: {_reason(error)}; send it again") from error
        return accepted

    def start(self) -> None:
        """Start the thread that writes remembered predictions."""
        self._recorder.start("feedback", FLUSH_S, self._work)

    def close(self) -> None:
        """Write what is remembered and stop."""
        with self._recorder.trouble_told():
            self.flush()
        self._recorder.close()
        if self._answers is not None:
            with self._recorder.trouble_told():
                self._answers.send(now=True)

    def flush(self) -> None:
        """Write remembered predictions to the index, and photos to their folder.

        Raises:
            sqlite3.Error, OSError: what was not written is still remembered.
        """
        self._recorder.flush()
        if self._images is not None:
            self._images.write(self._expendable)

    def _work(self) -> None:
        self.flush()
        if self._answers is not None:
            self._answers.send()
        if time.monotonic() - self._pruned > PRUNE_S:
            self._pruned = time.monotonic()
            self._prune()

    def _add_columns(self) -> None:
        """Bring an index of an earlier release up to date."""
        columns = {row[1] for row in self._recorder.read("PRAGMA table_info(predictions)")}
        for name, kind in (("key", "TEXT NOT NULL DEFAULT ''"), ("labelled_key", "TEXT")):
            if name not in columns:
                with self._recorder.transaction() as cursor:
                    cursor.execute(f"ALTER TABLE predictions ADD COLUMN {name} {kind}")

    def _join(self, cursor: sqlite3.Cursor, request_id: str, item: int, label: Label, who: Labeller) -> Accepted:
        found = cursor.execute(
            "SELECT version, prediction, probability, sha256, label, at, key, labelled_key FROM predictions "
            "WHERE request_id = ? AND item = ?",
            (request_id, item),
        ).fetchone()
        if found is None:
            raise UnknownPredictionError(
                f"no prediction with request_id {request_id!r} and item {item} in the last "
                f"{self._policy.retention_s / 86400:g} days"
            )
        version, prediction, probability, sha256, before, at, asked_by, labelled_by = found
        status: Literal["recorded", "unchanged", "corrected"] = "corrected" if before else "recorded"
        if before == label:
            return Accepted("unchanged", prediction, label, probability, version)
        image = None if self._images is None else self._images.path(sha256)
        line = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "request_id": request_id,
            "item": item,
            "label": label,
            "prediction": prediction,
            "probability": probability,
            "model_version": version,
            "predicted_at": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
            "predicted_for_key": asked_by or None,
            "image_sha256": sha256,
            "image": f"images/{sha256}" if image else None,
            # whose key gave the label; a correction also says what it takes the place of
            "key": who.key or None,
            "by": who.by,
            "corrects": {"label": before, "key": labelled_by or None} if before else None,
        }
        written = json.dumps(line, sort_keys=True).encode()
        self._share(written, f"{datetime.now(UTC):%Y%m%dT%H%M%S}Z-{request_id}-{item}", image)
        if self._answers is not None:
            self._answers.labelled(request_id, item, label, who.key)
        self._labels.append(written)
        cursor.execute(
            "UPDATE predictions SET label = ?, labelled_key = ? WHERE request_id = ? AND item = ?",
            (label, who.key, request_id, item),
        )
        return Accepted(status, prediction, label, probability, version)

    def _fetch(self, request_id: str, item: int) -> None:
        """Have the answer of another instance in the index, and the label that any of them was told last.

        Raises:
            StateError: the bucket does not answer.
        """
        if self._answers is None:
            return
        known = self._recorder.read(
            "SELECT label, labelled_key FROM predictions WHERE request_id = ? AND item = ?", (request_id, item)
        )
        row = None if known else self._answers.find(request_id, item)
        if not known and row is None:
            return
        label = self._answers.label(request_id, item)
        if row is None and (label is None or label == known[0]):
            return
        with self._recorder.transaction() as cursor:
            if row is not None:
                _write(cursor, [_Prediction(*row)])
            if label is not None:
                cursor.execute(
                    "UPDATE predictions SET label = ?, labelled_key = ? WHERE request_id = ? AND item = ?",
                    (*label, request_id, item),
                )

    def _share(self, line: bytes, name: str, image: Path | None) -> None:
        if self._evidence is None:
            return
        if image is not None:
            self._evidence.add(f"images/{image.name}", image.read_bytes())
        self._evidence.add(f"labels/{name}.json", line)

    def _expendable(self) -> Iterator[str]:
        """Photos that nobody labelled, the oldest first."""
        found = self._recorder.read(
            "SELECT sha256 FROM predictions GROUP BY sha256 HAVING COUNT(label) = 0 ORDER BY MAX(at)"
        )
        return (sha256 for (sha256,) in found)

    def _prune(self) -> None:
        """Forget predictions nobody labelled in time, and their images."""
        with self._recorder.transaction() as cursor:
            old = time.time() - self._policy.retention_s
            gone = cursor.execute(
                "DELETE FROM predictions WHERE label IS NULL AND at < ? RETURNING sha256", (old,)
            ).fetchall()
            still = "SELECT 1 FROM predictions WHERE sha256 = ? LIMIT 1"
            unused = [sha256 for (sha256,) in gone if cursor.execute(still, (sha256,)).fetchone() is None]
        if self._images is not None:
            for sha256 in unused:
                self._images.forget(sha256)

    def _report(self) -> None:
        found = self._recorder.read(
            "SELECT prediction, label, COUNT(*) FROM predictions "
            "WHERE version = ? AND label IS NOT NULL GROUP BY prediction, label",
            (self._version,),
        )
        self._metrics.figures({(prediction, label): n for prediction, label, n in found})


def _reason(error: Exception) -> str:
    """What the caller is told; which bucket it was, and what it said, is for the log."""
    return "the bucket did not take it" if isinstance(error, StateError) else one_line(error)


def _write(cursor: sqlite3.Cursor, rows: Sequence[_Prediction]) -> None:
    # ids are the server's own and unique: a row that is there already was written by a try that seemed to fail
    cursor.executemany(
        "INSERT OR IGNORE INTO predictions (request_id, item, at, version, prediction, probability, sha256, key) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
