"""The release's model card: what this version is, how it was judged, where it must not be trusted."""

from importlib.resources import files
from typing import Final

from components.artifacts.evaluation import Evaluation, Metric
from components.artifacts.verdict import GateVerdict
from serving.detector.bundle import Manifest

_WEAKEST: Final = 5
_TRAINING_KEYS: Final = ("architecture", "weights", "epochs", "batch_size", "learning_rate", "label_smoothing")


def render(manifest: Manifest, evaluation: Evaluation, verdict: GateVerdict) -> str:
    """The card as Markdown."""
    from jinja2 import Environment, StrictUndefined

    template = files("components.register").joinpath("model_card.md.j2").read_text()
    # Markdown, not HTML: escaping would put entities into the text
    environment = Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=False)  # noqa: S701 - Markdown
    provenance = manifest.provenance
    return environment.from_string(template).render(
        manifest=manifest,
        evaluation=evaluation,
        confusion=evaluation.test.confusion,
        verdict=verdict,
        worst=_weakest(evaluation),
        interval=_interval,
        training={key: provenance.train_config[key] for key in _TRAINING_KEYS if key in provenance.train_config},
    )


def _interval(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return "none defined"
    return f"{metric.low:.4f} to {metric.high:.4f}"


def _weakest(evaluation: Evaluation) -> list[tuple[str, int, Metric]]:
    places = [(f"{s.dimension} = {s.name}", s.n, s.accuracy) for s in evaluation.test.slices]
    places += [(f"{c.corruption} {c.level}", c.n, c.accuracy) for c in evaluation.robustness]
    return sorted(places, key=lambda place: place[2].value)[:_WEAKEST]
