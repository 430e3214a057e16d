"""The knobs of verify_data; the section `verify_data` of pipeline_config.yaml is validated by this model."""

from typing import Literal

from pydantic import Field

from serving.platform.frozen import Section

Action = Literal["fail", "report"]


class VerifyDataConfig(Section):
    """Tolerances and limits. A share is a fraction of all rows read; 0 tolerates nothing."""

    max_corrupt_share: float = Field(default=0.0, ge=0, le=1)
    """Images that do not decode; within the tolerance they are quarantined."""
    max_exact_duplicate_share: float = Field(default=0.0, ge=0, le=1)
    """Images whose pixels also stand in another split; within the tolerance the copy outside the test split leaves."""
    max_near_duplicate_share: float = Field(default=0.0, ge=0, le=1)
    """The same for re-compressed, resized and mirrored copies."""
    max_label_conflict_share: float = Field(default=0.0, ge=0, le=1)
    """Images that stand under both labels; within the tolerance all copies leave, for nobody knows which is right."""

    max_declared_generated_share: float = Field(default=0.0, ge=0, le=1)
    """Images labelled real whose file says that AI generated it (IPTC digital source type, a generator's parameters,
    Content Credentials); within the tolerance they leave."""

    near_duplicate_bits: int = Field(default=6, ge=0, le=15)
    """Two images are compared closely when their 64-bit perceptual hashes differ in at most so many bits."""
    near_duplicate_levels: float = Field(default=3.0, ge=0)
    """And are near duplicates when their 16x16 grey thumbnails then differ by at most so many of 255 levels (mean)."""

    max_shortcut_auc: float = Field(default=0.9, gt=0.5, le=1)
    """How well format traces (size, type, quantisation, EXIF) alone may separate the classes."""
    on_shortcut: Action = "fail"
    max_imbalance: float = Field(default=10.0, ge=1)
    """Rows of the larger class for one of the smaller, in train, val and test."""
    on_imbalance: Action = "report"
    min_rows: int = Field(default=25, ge=1)
    """Per class in train and test, per class in val a tenth of it (at least 1); whether a test split is large enough to
    trust a model is the gate's question (`gate.min_test_images`)."""

    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of train that becomes val when the source brings none."""
    seed: int = 0
    limit: int = Field(default=0, ge=0)
    """Rows read from each split, balanced between the classes, in stored order; 0 reads all."""
    file_bytes: int = Field(default=512 * 2**20, ge=2**16)
    """A split of more encoded bytes is packed as several Parquet files of about this size."""
    workers: int = Field(default=0, ge=0)
    """Processes that decode; 0: one for each core."""
