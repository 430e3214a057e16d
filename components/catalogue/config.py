"""The knobs of catalogue scoring."""

from typing import Final

from pydantic import Field

from serving.platform.frozen import Section

OF_THE_MODEL: Final = -1.0
"""No threshold of one's own; KFP takes no null."""


class CatalogueConfig(Section):
    """How a catalogue is cut up, fetched and scored."""

    source: str = ""
    """Of a recurring run: folder, feed or Parquet, usually in a bucket; `aidetect score` names its own."""
    output: str = ""
    """Of a recurring run: each gets a folder of its own below this."""
    model_uri: str = ""
    """Of a run in the cloud: `gs://` or `models:/` URI; empty: the champion."""

    shard_photos: int = Field(500, ge=1, le=100_000)
    """Photos of one shard: the unit of work, of commit and of repetition."""
    workers: int = Field(0, ge=0)
    """Processes, each with one single-thread engine; 0: one for each core this process may use."""
    parallel_tasks: int = Field(8, ge=1, le=256)
    """Groups of shards that the compiled pipeline scores at once."""
    columns: tuple[str, ...] = ()
    """Columns of a feed that hold a path or an address; empty: the known names that it has."""
    id_column: str = ""
    """Column that names a row; empty: `id` where there is one, else the row's number."""
    paths_root: str = ""
    """Folder that paths of a feed must lie in; empty: the feed's own."""
    max_file_bytes: int = Field(10 * 2**20, ge=1024)
    """Largest photo that is read or fetched."""
    photo_timeout_s: float = Field(60.0, gt=0)
    """A photo that keeps a worker longer ends that worker, and gets a row that says so."""
    fetch_threads: int = Field(8, ge=1, le=64)
    """Photos that one worker fetches ahead."""
    fetch_deadline_s: float = Field(20.0, gt=0)
    """For one address, redirects included."""
    fetch_attempts: int = Field(3, ge=1, le=10)
    fetch_max_wait_s: float = Field(60.0, ge=0)
    """Longest `Retry-After` that is waited for."""
    per_host: int = Field(8, ge=1)
    """Requests under way to one host, all workers together."""
    rate_per_host: float = Field(0.0, ge=0)
    """Requests a second to one host, all workers together; 0: as many as come."""
    decision_real_below: float = Field(OF_THE_MODEL, ge=OF_THE_MODEL, le=1.0)
    """`likely_real` below this probability of ai_generated; below 0: the model's own threshold."""
    decision_ai_from: float = Field(OF_THE_MODEL, ge=OF_THE_MODEL, le=1.0)
    """`likely_ai` from this probability on; below 0: the model's own."""
    c2pa_trust_lists: tuple[str, ...] = ()
    """Files with certificates (PEM) of C2PA signers to trust; none are shipped."""
    trusted_hosts: tuple[str, ...] = ()
    """Hosts whose addresses may be private, such as a company's own image server."""
