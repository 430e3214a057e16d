"""Which places the stages of a run elsewhere can reach: by the scheme of each address, key by key."""

import re
from typing import Final, Literal

from pipelines.settings.pipeline import PipelineConfig

_SCHEME: Final = re.compile(r"(?P<name>[a-z][a-z0-9+.-]*):/")
_ROOT: Final = re.compile(r"(gs|s3|minio)://[^/?\s]+(/[^?\s]*)?(\?\S*)?")
"""What the launcher of Kubeflow Pipelines takes for a pipeline root (its objectstore.ParseBucketPathToConfig)."""
_NAMES: Final = {"vertex": "Vertex AI", "kubeflow": "Kubeflow"}


def out_of_reach(config: PipelineConfig, on: Literal["vertex", "kubeflow"], training: bool = True) -> list[str]:
    """Every place that a stage there reads or writes by itself and cannot, each with its key and what to give instead.

    What stages hand to each other is not among them: that lies in the pipeline root, which the place itself reads.

    Args:
        config: of the run.
        on: where it goes.
        training: False: it scores a catalogue, whose own places were looked at already.
    """
    places = _places(config, on) if training else []
    problems = [said for key, place, schemes in places if (said := _problem(key, place, schemes, on))]
    if on == "vertex":
        return problems
    root = config.kubeflow.pipeline_root
    if root and not _ROOT.fullmatch(root):
        problems.append(f"kubeflow.pipeline_root {root!r}: write gs://, s3:// or minio:// and a bucket")
    if not config.tracking.uri.startswith(("http://", "https://", "sqlite:////")):
        problems.append("set tracking.uri to an MLflow server (http:// or https://) that the pods reach")
    return problems


def _places(config: PipelineConfig, on: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """Key, place and the schemes that its reader knows."""
    # training opens these as files: Vertex AI mounts buckets, Kubeflow does not
    mounted = ("gs",) if on == "vertex" else ()
    return [
        ("data.uri", config.data.uri, ("gs", "hf")),
        ("evaluate.outside", config.evaluate.outside, ("gs",)),
        ("evaluate.champion_uri", config.evaluate.champion_uri, ("gs", "models")),
        ("train.checkpoint_dir", config.train.checkpoint_dir, mounted),
        ("train.weights_uri", config.train.weights_uri, mounted),
        ("deploy.ledger_path", config.deploy.ledger_path if config.deploy.auto else "", ("gs",)),
    ]


def _problem(key: str, place: str, schemes: tuple[str, ...], on: str) -> str:
    """What is wrong with one; empty: nothing, or it is not set."""
    place = place.removeprefix("file://")
    where, known = _NAMES[on], " or ".join("models:/" if scheme == "models" else f"{scheme}://" for scheme in schemes)
    folder = "a folder that the pods mount (/...)"
    if on == "kubeflow":
        known = f"{known} or {folder}" if known else folder
    if (found := _SCHEME.match(place)) is not None:
        if found["name"] in schemes:
            return ""
        why = f"no stage reads {found['name']}://"
        if found["name"] == "gs":
            why = "buckets are mounted on Vertex AI only"
        return f"{key} {place!r}: {why}; give {known}" + ("" if schemes else ", or leave it empty")
    # training without its checkpoints still trains, and a path of the image may be meant
    here = not place.startswith("/") if on == "kubeflow" else key in ("data.uri", "evaluate.outside")
    return f"{key} {place!r} is on this disk: {where} needs {known}" if place and here else ""
