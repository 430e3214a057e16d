"""The model card that travels in the bundle: what it was trained on, how, and what it must not be used for."""

from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.context import RunContext
from components.artifacts.dataset import DatasetSummary
from components.train.config import TrainConfig

if TYPE_CHECKING:
    from components.train.calibrate import Calibration
    from components.train.loop import Fitted
    from serving.detector.domain import TrainedDomain


def model_card(
    config: TrainConfig,
    context: RunContext,
    data: DatasetSummary,
    fitted: "Fitted",
    calibration: "Calibration",
    domain: "TrainedDomain",
    parity: float,
) -> str:
    """MODEL_CARD.md of a freshly trained bundle; test figures come later, from evaluate and register."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Markdown for people, not HTML: escaping would show up in it
    environment = Environment(  # noqa: S701 - Markdown
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    best = next((r for r in fitted.history if r["epoch"] == fitted.best_epoch), fitted.history[-1])
    return environment.get_template("model_card.md.j2").render(
        config=config,
        context=context,
        data=data,
        best=best,
        epochs=len(fitted.history),
        rule=calibration.rule,
        bands=calibration.bands,
        domain=domain,
        calibration=calibration,
        parity=parity,
    )
