"""What a Parquet file's metadata says of its classes is somebody else's text."""

import pyarrow as pa
import pytest

from components.verify_data.classes import ClassNames
from components.verify_data.rows import ImageColumns
from serving.platform.errors import StageError


@pytest.mark.parametrize(
    "told",
    [
        b'{"info":',
        b"[1]",
        b"[" * 100_000,
        b'{"info": null}',
        b"\xff\xfe",
        b'{"info": {"features": {"label": {"names": 5}}}}',
        b'{"info": {"features": {"label": {"names": [1, {}]}}}}',
    ],
)
def test_metadata_that_names_no_classes_is_none(told: bytes) -> None:
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())], metadata={b"huggingface": told})
    with pytest.raises(StageError, match="store class names, or say what they mean"):
        ImageColumns.of(schema, "x", ClassNames({}))
