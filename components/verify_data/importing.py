"""Bringing data in: any source to a packed dataset folder, and the public benchmark by its short name."""

from pathlib import Path
from typing import Final

from components.artifacts.dataset import DatasetSummary
from components.verify_data.config import VerifyDataConfig
from components.verify_data.findings import Findings
from components.verify_data.layout import HUB_SCHEME, Reading
from components.verify_data.stage import verify_and_pack
from components.verify_data.writing import REPORT, refuse_used
from serving.platform.errors import StageError

KNOWN_DATASETS: Final = {"cifake": f"{HUB_SCHEME}dragonintelligence/CIFAKE-image-dataset"}
"""Short names of `aidetect data download`."""

CIFAKE_CONFIG: Final = VerifyDataConfig(
    max_exact_duplicate_share=0.05, max_near_duplicate_share=0.05, max_label_conflict_share=0.01, on_shortcut="report"
)
"""CIFAR-10 holds near copies across its official splits (about 3 % of test, Barz & Denzler, arXiv 1902.00423): train's
copies leave, the test split stays as published."""


def import_dataset(
    uri: str, out_dir: Path, config: VerifyDataConfig, reading: Reading | None = None
) -> tuple[Findings, DatasetSummary]:
    """Verify a source and write it as a packed dataset with `report.html`, to train from as often as wanted.

    Args:
        uri: folder, table, `gs://BUCKET/PREFIX` or `hf://DATASET`.
        out_dir: folder of the dataset.
        config: tolerances.
        reading: class names of one's own, and splits to cut.

    Raises:
        StageError: the folder already holds a dataset, the source is unreadable or its data beyond tolerance.
    """
    refuse_used(out_dir)
    if Path(uri).is_dir() and out_dir.resolve().is_relative_to(Path(uri).resolve()):
        raise StageError(f"{out_dir}: lies in {uri}, the folder to read; give a folder elsewhere")
    return verify_and_pack(uri, config, out_dir, out_dir / REPORT, reading, fresh=True)


def download(name: str, out_dir: Path, config: VerifyDataConfig | None = None) -> tuple[Findings, DatasetSummary]:
    """Fetch a public dataset by short name (`cifake`) or `hf://OWNER/NAME` and pack it.

    Raises:
        StageError: unknown name, hub unreachable, or data beyond tolerance.
    """
    uri = name if name.startswith(HUB_SCHEME) else KNOWN_DATASETS.get(name.lower(), "")
    if not uri:
        raise StageError(f"unknown dataset {name!r}; known: {', '.join(KNOWN_DATASETS)}, or hf://OWNER/NAME")
    if config is None:
        config = CIFAKE_CONFIG if name.lower() == "cifake" else VerifyDataConfig()
    return import_dataset(uri, out_dir, config)
