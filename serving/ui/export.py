"""Results as files to take away."""

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final

from serving.ui.client import Refusal
from serving.ui.memory import Outcome

Row = dict[str, str | float | None]

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def row(file: str, sha256: str, outcome: Outcome | None) -> Row:
    """One photo's line; the columns are the same for every outcome."""
    found: Row = {
        "file": file,
        "decision": None,
        "reasons": None,
        "prediction": None,
        "probability": None,
        "confidence": None,
        "threshold": None,
        "error": None,
        "model_version": None,
        "request_id": None,
        "sha256": sha256,
    }
    if outcome is None:
        return found | {"error": "not judged yet"}
    if isinstance(outcome, Refusal):
        return found | {"error": outcome.detail, "model_version": outcome.model_version}
    return found | {
        "decision": outcome.decision,
        "reasons": " ".join(reason["sentence"] for reason in outcome.reasons),
        "prediction": outcome.prediction,
        "probability": outcome.probability,
        "confidence": outcome.confidence,
        "threshold": outcome.threshold,
        "model_version": outcome.model_version,
        "request_id": outcome.request_id,
    }


def as_csv(rows: Sequence[Row]) -> bytes:
    """RFC 4180, UTF-8 with a mark that spreadsheets look for; no cell of text is taken for a formula."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in line.items()} for line in rows)
    return buffer.getvalue().encode("utf-8-sig")


def as_zip(rows: Sequence[Row], heatmaps: Sequence[tuple[str, str, bytes]]) -> bytes:
    """`results.csv`, `results.json` and `heatmaps/` with the pictures explained so far.

    Args:
        rows: of `row`.
        heatmaps: (file name, sha256 of the file, PNG) of each; two files of one name have their own.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("results.csv", as_csv(rows))
        archive.writestr("results.json", json.dumps(list(rows), indent=1, ensure_ascii=False))
        for number, (name, sha256, data) in enumerate(heatmaps, start=1):
            stem = PurePath(name.replace(chr(92), "/")).stem
            archive.writestr(f"heatmaps/{number:03d}-{stem}-{sha256[:8]}.png", data)
    return buffer.getvalue()


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
