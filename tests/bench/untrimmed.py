"""`aidetect` as it was before it looked at framing: borders stay on, in training and in the bundle that it seals.

`python -m tests.bench.untrimmed train ...`, for the benchmark of framing: the product cannot be told to do this.
"""

from dataclasses import replace
from unittest import mock

from components.train import cache, dataset, export
from components.train.config import TrainConfig
from pipelines.cli import main
from serving.detector.preprocess import Preparation

_TRIMMED = cache.preparation


def untrimmed(config: TrainConfig) -> Preparation:
    """How the model will take a picture: with its borders."""
    return replace(_TRIMMED(config), trim=False)


if __name__ == "__main__":
    with (
        mock.patch.object(cache, "preparation", untrimmed),
        mock.patch.object(dataset, "preparation", untrimmed),
        mock.patch.object(export, "preparation", untrimmed),
        mock.patch.object(cache, "content_box", return_value=None),
    ):
        main()
