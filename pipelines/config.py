"""The one configuration: `pipeline_config.yaml`, its profiles, the environment and `--set`, typed and checked.

Precedence, last wins: `base` in the file, the profile, `AIDETECT_SECTION__KEY` in the environment, `--set section.key`.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from pipelines.settings.pipeline import PipelineConfig
from serving.platform.errors import ConfigError

CONFIG_FILE: Final = "pipeline_config.yaml"
ENV_PREFIX: Final = "AIDETECT_"
CREDENTIALS: Final = "GOOGLE_APPLICATION_CREDENTIALS"
_FOR_CONTAINERS: Final = frozenset(
    {
        "AIDETECT_API_KEY", "GOOGLE_CLOUD_PROJECT", "HF_TOKEN", "HTTPS_PROXY", "HTTP_PROXY", "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "NO_PROXY", "OMP_NUM_THREADS", "STORAGE_EMULATOR_HOST",
        "TZ",
    }
)  # fmt: skip
"""Credentials, addresses and bounds; paths of this machine mean nothing in a container."""


def load_config(
    profile: str = "sample",
    overrides: Sequence[str] = (),
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> PipelineConfig:
    """Read, layer and check the configuration.

    Args:
        profile: name under `profiles` in the file.
        overrides: `section.key=value` pairs; values are read as YAML.
        file: the configuration file; default `pipeline_config.yaml` in this folder.
        environ: the environment; default the process's own.

    Raises:
        ConfigError: missing file, unknown profile or key, wrong type.
    """
    path = file or Path(CONFIG_FILE)
    document = _read(path)
    profiles = document.get("profiles") or {}
    if profile not in profiles:
        raise ConfigError(f"unknown profile {profile!r} in {path}; it has: {', '.join(profiles) or 'none'}")
    merged: dict[str, Any] = {}
    _merge(merged, document.get("base") or {})
    _merge(merged, profiles[profile] or {})
    for key, value in _from_environment(os.environ if environ is None else environ):
        _assign(merged, key, value)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {override!r}: write it as section.key=value")
        _assign(merged, key.strip(), _scalar(text, f"--set {override!r}"))
    try:
        return PipelineConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; run from the project's folder or pass --config") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or not set(document) <= {"base", "profiles"}:
        raise ConfigError(f"{path}: expected the two sections `base` and `profiles` at the top")
    return document


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, Any]]:
    # only names with a double underscore address a key, so that AIDETECT_* may serve other ends
    pairs = ((name, text) for name, text in sorted(environ.items()) if name.startswith(ENV_PREFIX) and "__" in name)
    return [(name.removeprefix(ENV_PREFIX).lower().replace("__", "."), _scalar(text, name)) for name, text in pairs]


def _scalar(text: str, where: str) -> Any:
    if not text.strip():
        return ""  # YAML would read nothing as null; `--set vertex.network=` means the empty text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: the value is not valid YAML") from error


def _assign(document: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        child = document.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{dotted}: {parent!r} is a value, not a section")
        document = child
    document[leaf] = value


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _explain(error: ValidationError) -> str:
    lines = []
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_suggestion(detail['loc'])}")
        else:
            lines.append(f"{key}: {detail['msg'][0].lower()}{detail['msg'][1:]} (got {detail['input']!r})")
    return "; ".join(lines)


def _suggestion(location: tuple[int | str, ...]) -> str:
    model: Any = PipelineConfig
    for part in location[:-1]:
        fields = {(field.alias or name): field for name, field in model.model_fields.items()}
        if part not in fields or not hasattr(fields[str(part)].annotation, "model_fields"):
            return ""
        model = fields[str(part)].annotation
    names = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(names))}"


def child_environment(**extra: str) -> dict[str, str]:
    """This process's environment for a child, unbuffered, with `extra` on top."""
    quiet = {"PYTHONUNBUFFERED": "1", "MLFLOW_LOGGING_LEVEL": "WARNING"}
    return {**os.environ, **quiet, **extra}


def container_environment() -> dict[str, str]:
    """What of this process's environment a stage in a container on this machine is given."""
    return {key: value for key, value in os.environ.items() if key in _FOR_CONTAINERS}


def application_credentials() -> str:
    """File of Google's application default credentials on this disk; empty when there is none."""
    named = os.environ.get(CREDENTIALS, "")
    usual = Path.home() / ".config/gcloud/application_default_credentials.json"
    return named or (str(usual) if usual.is_file() else "")


def api_key() -> str:
    """Key for a server with authentication on, from `AIDETECT_API_KEY`; never part of a configuration or a spec."""
    return os.environ.get("AIDETECT_API_KEY", "")
