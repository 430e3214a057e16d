"""Datasets of the Hugging Face hub, streamed: rows arrive as they are needed, nothing is unpacked to disk first."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from components.artifacts.dataset import SPLITS
from components.verify_data.findings import Skipped
from components.verify_data.layout import BATCH_ROWS, HUB_SCHEME, Reading, split_of
from components.verify_data.rows import Batch, ImageColumns, read_rows
from serving.platform.errors import StageError, one_line

_FIX: Final = "check the name and the network, or give a downloaded copy as a folder"
_ANSWER_S: Final = 15.0
"""What the hub takes to describe a dataset at most."""


class HubSource:
    """`hf://NAME[@REVISION]` of the hub, or `hf:///folder` in hub layout. Official splits are kept."""

    def __init__(self, uri: str, reading: Reading) -> None:
        import datasets
        from huggingface_hub import HfApi

        name, _, revision = uri.removeprefix(HUB_SCHEME).partition("@")
        if not name:
            raise StageError(f"{uri}: no dataset name; write hf://OWNER/NAME")
        if name.startswith(("/", ".")) and not Path(name).is_dir():
            raise StageError(f"{uri}: no such folder")
        self.uri, self._reading = uri, reading
        # the hub's client tells of each retry; the one line below says it all
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        try:
            if not Path(name).is_dir():
                # once, as whoever has no network waits: the library would ask for half a minute before it says so
                HfApi().dataset_info(name, revision=revision or None, timeout=_ANSWER_S)
            found = datasets.load_dataset(name, revision=revision or None, streaming=True)
        except Exception as error:  # the library raises its own, the hub's and the network's errors
            raise StageError(f"{uri}: cannot be opened ({one_line(error)}); {_FIX}") from error
        self._splits: dict[str, Any] = {}
        for key, split in found.items():
            known = split_of(str(key))
            if known is None:
                raise StageError(f"{uri}: unknown split {key!r}; known: {', '.join(SPLITS)}")
            self._splits[known] = split

    @property
    def skipped(self) -> list[Skipped]:
        """Nothing: a hub dataset has rows only."""
        return []

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the dataset brings."""
        return tuple(self._splits)

    @property
    def rows(self) -> int | None:
        """Number of rows, where the dataset's card says it."""
        counts = []
        for name, stream in self._splits.items():
            declared = (stream.info.splits or {}).get(name)
            if declared is None or not declared.num_examples:
                return None
            counts.append(int(declared.num_examples))
        return sum(counts)

    def batches(self, split: str) -> Iterator[Batch]:
        """Rows of a split in stored order, with the encoded bytes as they came."""
        import datasets

        stream = self._splits[split]
        if stream.features is None:
            stream = stream._resolve_features()
        for name, feature in stream.features.items():
            if isinstance(feature, datasets.Image):
                stream = stream.cast_column(name, datasets.Image(decode=False))
        columns = ImageColumns.of(stream.features.arrow_schema, self.uri, self._reading.classes, self._reading.column)
        # a dataset stored as files brings paths in place of bytes; embedding reads those and leaves the rest
        schema = stream.features.arrow_schema
        batches = stream.with_format("arrow").iter(batch_size=BATCH_ROWS)
        tables = (datasets.table.embed_table_storage(table.cast(schema)) for table in batches)
        try:
            yield from read_rows(split, split, columns, tables)
        except (OSError, ValueError) as error:
            raise StageError(f"{self.uri}: reading {split} broke off ({one_line(error)}); {_FIX}") from error
