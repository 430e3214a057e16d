"""One row a photo: what `/predict` would have answered, or why there is no answer."""

from typing import Any, Final

import pyarrow as pa

ROW_SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("uri", pa.string()),
        ("decision", pa.string()),
        ("prediction", pa.string()),
        ("probability", pa.float64()),
        ("confidence", pa.string()),
        ("threshold", pa.float64()),
        ("domain", pa.struct([("inside", pa.bool_()), ("signals", pa.list_(pa.string()))])),
        (
            "provenance",
            pa.struct([("declared", pa.string()), ("listing", pa.string()), ("sources", pa.list_(pa.string()))]),
        ),
        ("model_version", pa.string()),
        ("model_digest", pa.string()),
        ("image_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("refused_reason", pa.string()),
        ("seconds", pa.float64()),
    ]
)
"""`refused_reason` is null for a scored photo; then and only then are the verdict's columns filled."""

WORKER_DIED: Final = "worker_died"
"""The photo ended the process that looked at it: killed for memory, for time, or by a defect."""

Row = dict[str, Any]


def refused(entry_id: str, uri: str, reason: str, seconds: float = 0.0) -> Row:
    """The row of a photo without a verdict."""
    return {"id": entry_id, "uri": uri, "refused_reason": reason, "seconds": seconds}


def table_of(rows: list[Row]) -> pa.Table:
    """Rows as a table of the fixed schema; what a row lacks is null."""
    columns = {name: [row.get(name) for row in rows] for name in ROW_SCHEMA.names}
    return pa.table(columns, schema=ROW_SCHEMA)
