"""Checks of this machine and configuration before a run, each with its mend."""

import importlib.util
import shutil
import sys
from pathlib import Path

from pipelines.findings import Finding
from pipelines.settings.pipeline import PipelineConfig

_NEEDED = {"kfp": "pipeline", "mlflow": "local", "onnxruntime": "pipeline", "timm": "train", "torch": "train"}
_DISK_GB = 2.0


def examine(config: PipelineConfig) -> list[Finding]:
    """Look at Python, packages, disk, data and, where a project is configured, the cloud; nothing is changed."""
    here = [_python(), *_packages(), _disk(config), _data(config), _git()]
    return [*here, *_cloud(config)]


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
    path = Path(uri)
    if not path.is_dir():
        return Finding("error", "data", f"{uri}: no such folder; set data.uri or pass --data")
    return Finding("ok", "data", uri)


def _git() -> Finding:
    if shutil.which("git") is None:
        return Finding("warning", "git", "not installed: runs will not know the commit they ran")
    return Finding("ok", "git", "runs record their commit")


def _cloud(config: PipelineConfig) -> list[Finding]:
    """What a run on Vertex AI needs: first what the configuration alone tells, then what Google tells."""
    if not config.vertex.project and not config.vertex.bucket:
        return [Finding("ok", "cloud", "not configured (vertex.project and vertex.bucket are empty)")]
    if any(importlib.util.find_spec(name) is None for name in ("google.cloud.aiplatform", "google.cloud.storage")):
        return [Finding("error", "google-cloud-aiplatform", "not installed: pip install -e '.[gcp]'")]
    from pipelines.cloud_checks import examine_cloud
    from pipelines.preflight import problems_offline

    offline = [Finding("error", "configuration", problem) for problem in problems_offline(config)]
    return [*offline, *examine_cloud(config)]
