"""Checks of this machine and configuration before a run, each with its mend."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pipelines.findings import Finding
from pipelines.settings.pipeline import PipelineConfig
from serving.platform.errors import PreflightError, StageError

_NEEDED = {"kfp": "pipeline", "mlflow": "local", "onnxruntime": "pipeline", "timm": "train", "torch": "train"}
_DISK_GB = 2.0
PLACEHOLDER: Final = "your-project"
"""Project of the shipped configuration, until `aidetect init` writes the owner's."""


def examine(config: PipelineConfig, commit: str) -> list[Finding]:
    """Look at Python, packages, disk, data and, where a project is configured, the cloud; nothing is changed.

    Args:
        config: of the run to be.
        commit: of the code that runs; empty: not known.
    """
    here = [_python(), *_packages(), _disk(config), _data(config), _git(commit)]
    if config.kubeflow.host and not config.vertex.project:
        return [*here, *_placeholders(config), *_kubeflow(config)]
    return [*here, *_cloud(config), *(_kubeflow(config) if config.kubeflow.host else [])]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Finding("ok" if good else "error", "python", version if good else f"{version}: use 3.11 or 3.12")


def _packages() -> list[Finding]:
    findings = []
    for name, extra in _NEEDED.items():
        if importlib.util.find_spec(name) is None:
            findings.append(Finding("error", name, f"not installed: pip install -e '.[{extra}]'"))
    return findings or [Finding("ok", "packages", f"{', '.join(_NEEDED)} are installed")]


def _disk(config: PipelineConfig) -> Finding:
    folder = config.paths.workspace.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < _DISK_GB:
        return Finding("error", "disk", f"{free:.1f} GB free at {folder}, a run needs {_DISK_GB:.0f} GB")
    return Finding("ok", "disk", f"{free:.0f} GB free at {folder}")


def _data(config: PipelineConfig) -> Finding:
    uri = config.data.uri
    if "://" in uri:
        return Finding("ok", "data", f"{uri} is read when the run starts")
    path = Path(uri).expanduser()
    if not path.exists():
        return Finding("error", "data", f"{uri}: no such folder or table; set data.uri or pass --data")
    return Finding("ok", "data", uri)


def _git(commit: str) -> Finding:
    if shutil.which("git") is None:
        return Finding("warning", "git", "not installed: runs will not know the commit they ran")
    if not commit:
        mend = "clone the repository, or set GIT_SHA"
        return Finding(
            "warning", "git", f"this folder is no checkout that git reads: runs will not know a commit; {mend}"
        )
    return Finding("ok", "git", f"runs record their commit, now {commit}")


def _cloud(config: PipelineConfig) -> list[Finding]:
    """What a run on Vertex AI needs: first what the configuration alone tells, then what Google tells."""
    if not _wants_vertex(config):
        if config.deploy.starts_server:
            return [Finding("ok", "cloud", "not asked for: this profile reads, trains and serves on this machine")]
        return [Finding("warning", "cloud", f"{config.deploy.target} was not looked at: only runs on Vertex AI are")]
    from pipelines.preflight import problems_offline

    offline = [*_placeholders(config), *(_named(problem) for problem in problems_offline(config))]
    if any(importlib.util.find_spec(name) is None for name in ("google.cloud.aiplatform", "google.cloud.storage")):
        return [*offline, Finding("error", "google-cloud-aiplatform", "not installed: pip install -e '.[gcp]'")]
    if not config.vertex.project:
        return [*offline, Finding("warning", "Google Cloud", "was not asked: without vertex.project nobody can be")]
    from pipelines.cloud_checks import examine_cloud

    return [*offline, *examine_cloud(config)]


def _kubeflow(config: PipelineConfig) -> list[Finding]:
    """What a run on Kubeflow needs: what the configuration alone tells, then what its server tells."""
    from pipelines.preflight import jobs_of_their_own
    from pipelines.reach import out_of_reach
    from pipelines.targets.kubeflow_client import look

    found = [_named(problem) for problem in [*jobs_of_their_own(config), *out_of_reach(config, "kubeflow")]]
    try:
        return [*found, Finding("ok", "kubeflow.host", f"{config.kubeflow.host} {look(config)}")]
    except (StageError, PreflightError) as error:
        return [*found, Finding("error", "kubeflow.host", str(error))]


def _wants_vertex(config: PipelineConfig) -> bool:
    """Whether this configuration is for runs on Vertex AI."""
    stored = any(place.startswith("gs://") for place in (config.data.uri, config.deploy.ledger_path))
    return bool(stored or config.register_.vertex or config.vertex.project or config.vertex.bucket)


def _placeholders(config: PipelineConfig) -> list[Finding]:
    """Values that the shipped file has for nobody in particular; images that were never pushed are told of apart."""
    keys = [key for key, value in _texts(config.model_dump(mode="json", by_alias=True)) if PLACEHOLDER in value]
    keys = [key for key in keys if not key.startswith("images.") and not key.endswith("_image")]
    if not keys:
        return []
    return [Finding("error", "placeholder", f"{PLACEHOLDER!r} still stands in {', '.join(keys)}; run: aidetect init")]


def _texts(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _texts(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield f"{prefix}{name}", value


def _named(problem: str) -> Finding:
    """A problem of the configuration under the key that it begins with, if it does."""
    key, space, rest = problem.partition(" ")
    return Finding("error", key, rest) if space and "." in key else Finding("error", "configuration", problem)
