"""Training's record in MLflow: parameters at the start, figures after every epoch, curves and card at the end."""

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.context import RunContext
from components.platform.registry import open_client
from components.platform.tracking import find_or_create_run, record
from components.train.config import TrainConfig
from serving.platform.errors import StageError, one_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_log = logging.getLogger(__name__)


class Tracker:
    """Writes to the MLflow run of a pipeline run; does nothing when the context tracks nowhere.

    A server that cannot be reached stops the training before it starts. Once hours are spent a lost figure is a
    warning: the bundle counts for more than its record.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._client: MlflowClient | None = None
        self._run = ""

    def start(self, config: TrainConfig, data_fingerprint: str) -> None:
        """Open the run and log the configuration and the data fingerprint.

        Raises:
            StageError: the tracking server refused or could not be reached.
        """
        if not self._context.tracking_uri:
            return
        from mlflow.entities import Param, RunTag
        from mlflow.exceptions import MlflowException

        document = config.model_dump(mode="json")
        flat = {f"train.{name}": str(value) for name, value in _flat(document)}
        try:
            client = open_client(self._context.tracking_uri)
            self._run = find_or_create_run(client, self._context)
            client.log_batch(
                self._run,
                params=[Param(name, value) for name, value in flat.items()],
                tags=[RunTag("data_fingerprint", data_fingerprint)],
            )
            client.log_text(self._run, json.dumps(document, indent=1), "train/config.json")
        except (MlflowException, OSError) as error:
            reason = one_line(error)
            raise StageError(
                f"MLflow at {self._context.tracking_uri} cannot record this training: {reason}; check the tracking URI"
            ) from error
        self._client = client

    def epoch(self, figures: dict[str, float]) -> None:
        """Log one epoch's figures at its number."""
        if self._client is None:
            return
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now_ms, step = int(time.time() * 1000), int(figures["epoch"])
        metrics = [Metric(f"train/{k}", float(v), now_ms, step) for k, v in figures.items() if k != "epoch"]
        try:
            self._client.log_batch(self._run, metrics=metrics)
        except MlflowException as error:
            _log.warning("MLflow did not take epoch %d: %s", step, error)

    def finish(self, metrics: dict[str, float], files: Iterable[Path]) -> None:
        """Log the final figures and files."""
        if self._client is None:
            return
        named = {f"train/{name}": value for name, value in metrics.items()}
        try:
            record(self._context, metrics=named, files=files, folder="train")
        except StageError as error:
            _log.warning("%s", error)


def _flat(document: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
