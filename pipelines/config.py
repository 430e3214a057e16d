"""The one configuration: `pipeline_config.yaml`, its profiles, the environment and `--set`, typed and checked.

Precedence, last wins: `base` in the file, the profile, `AIDETECT_SECTION__KEY` in the environment, `--set section.key`.
"""

import difflib
import os
import re
import reprlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from pipelines.settings.pipeline import PipelineConfig
from serving.platform.account import home
from serving.platform.errors import ConfigError, one_line, plain, system_error

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
_PATHS: Final = (
    ("data", "uri", "data/sample"),
    ("paths", "workspace", "workspace"),
    ("train", "weights_uri", ""),
    ("evaluate", "champion_uri", ""),
    ("evaluate", "outside", ""),
    ("retrain", "feedback_path", ""),
)
"""Keys that hold a path of this disk, with their defaults; `checkpoint_dir` and its like are within the workspace."""
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*:")
"""`gs://`, `hf://`, `models:/`: no path of this disk."""
_MOST_BYTES: Final = 1 << 20
UNKNOWN_REVISION: Final = "unknown"
"""Of code that comes from no checkout and no image of ours."""


def load_config(
    profile: str = "sample",
    overrides: Sequence[str] = (),
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> PipelineConfig:
    """Read, layer and check the configuration.

    Args:
        profile: name under `profiles` in the file.
        overrides: `section.key=value` pairs; a text is taken as it stands, any other value is read as YAML.
        file: the configuration file; default `pipeline_config.yaml` in this folder or the nearest one above it.
        environ: the environment; default the process's own.

    Paths in the file are meant against the file's folder, those of the environment and `overrides` against this one.

    Raises:
        ConfigError: missing file, unknown profile or key, wrong type.
    """
    path = file or find_config()
    document = _read(path)
    profiles = document.get("profiles") or {}
    if profile not in profiles:
        raise ConfigError(f"unknown profile {profile!r} in {path}; it has: {', '.join(profiles) or 'none'}")
    merged: dict[str, Any] = {}
    try:
        _merge(merged, document.get("base") or {})
        _merge(merged, profiles[profile] or {})
    except RecursionError:
        raise ConfigError(f"{path}: a section holds itself by an anchor; write it out") from None
    _against(path.parent, merged)
    for key, text in _from_environment(os.environ if environ is None else environ):
        _assign(merged, key, _value(key, text, key))
    for override in overrides:
        key, separator, text = override.partition("=")
        key = key.strip()
        if not separator or not key:
            raise ConfigError(f"--set {override!r}: write it as section.key=value")
        _assign(merged, key, _value(key, text, f"--set {override!r}"))
    try:
        return PipelineConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def find_config() -> Path:
    """The nearest `pipeline_config.yaml`, from this folder upwards.

    Raises:
        ConfigError: there is none.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the folder that this was started in is gone; cd into the project") from None
    for folder in (here, *here.parents):
        if (folder / CONFIG_FILE).is_file():
            return Path(CONFIG_FILE) if folder == here else folder / CONFIG_FILE
    raise ConfigError(f"no {CONFIG_FILE} here ({here}) or in any folder above it; cd into the project or pass --config")


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ConfigError(f"{path}: more than {_MOST_BYTES >> 20} MiB, which no configuration has; pass --config")
        document = _parsed(text.decode())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; run from the project's folder or pass --config") from error
    except OSError as error:
        raise ConfigError(f"{path}: {system_error(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: not UTF-8 text; write it anew or pass --config") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_why_not(error)}") from error
    if not isinstance(document, dict) or not set(document) <= {"base", "profiles"}:
        raise ConfigError(f"{path}: expected the two sections `base` and `profiles` at the top")
    _check_layers(path, document)
    return document


def _check_layers(path: Path, document: dict[str, Any]) -> None:
    """Refuse a base or a profile that holds no sections, and a profile whose name is no text."""
    profiles = document.get("profiles") or {}
    layers = {"base": document.get("base"), "profiles": profiles}
    if isinstance(profiles, dict):
        layers |= {f"profiles.{name}": layer for name, layer in profiles.items()}
    for name, layer in layers.items():
        if layer is not None and not isinstance(layer, dict):
            raise ConfigError(
                f"{path}: `{name}` holds {reprlib.repr(layer)}, not sections; write `section: {{key: value}}`"
            )
    for name in (name for name in profiles if not isinstance(name, str)):
        raise ConfigError(f"{path}: profiles.{name}: names are texts; put it in quotes")


class _Loader(yaml.SafeLoader):
    """YAML's safe reader, which takes no key twice: of two, it would pass over the first without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        met: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in met:
                problem = f"the key {key.value!r} stands there twice; keep one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            met.add(key.value)
        return node


def _parsed(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except RecursionError:
        # of its depth, or of an anchor that holds itself
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:
        # a date that no calendar has, or a number too long for Python, which names its own setting
        said = "a number of thousands of digits" if "digits" in str(error) else one_line(error)
        raise yaml.YAMLError(said) from None


def _why_not(error: yaml.YAMLError) -> str:
    """What YAML says, on one line: it names the line; a picture of it does not survive here."""
    said = " ".join(str(error).replace('in "<unicode string>", ', "at ").replace(" ^", "").split())
    return said + ("; indent by spaces, not by tabs" if r"'\t'" in said else "")


def _against(folder: Path, document: dict[str, Any]) -> None:
    """Read the file's paths, written or left to their defaults, against its own folder."""
    if folder.resolve() == Path.cwd():
        return
    for section, key, default in _PATHS:
        found = document.setdefault(section, {})
        value = found.get(key, default) if isinstance(found, dict) else None
        if isinstance(value, str) and value and not _ADDRESS.match(value):
            found[key] = str(folder.resolve() / Path(value).expanduser())


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    # only names with a double underscore address a key, so that AIDETECT_* may serve other ends
    pairs = ((name, text) for name, text in sorted(environ.items()) if name.startswith(ENV_PREFIX) and "__" in name)
    return [(name.removeprefix(ENV_PREFIX).lower().replace("__", "."), text) for name, text in pairs]


def _value(key: str, text: str, where: str) -> Any:
    """The text itself where the key takes text: `010`, `#`, `a: b` and `no` are texts too."""
    if not text.strip():
        return ""  # YAML would read nothing as null; `--set vertex.network=` means the empty text
    if _takes_text(key):
        return text
    try:
        return _parsed(text)
    except yaml.YAMLError as error:
        problem = f": {error.problem}" if isinstance(error, yaml.MarkedYAMLError) and error.problem else ""
        raise ConfigError(f"{where}: the value is not valid YAML{problem}; put a text in quotes") from error


def _takes_text(dotted: str) -> bool:
    kind: Any = PipelineConfig
    for part in dotted.split("."):
        fields = {(field.alias or name): field for name, field in getattr(kind, "model_fields", {}).items()}
        if part in fields:
            kind = fields[part].annotation
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            return False
    choices = get_args(kind) if get_origin(kind) in (Union, UnionType, Literal) else (kind,)
    return all(choice in (str, Path) or isinstance(choice, str) for choice in choices)


def _assign(document: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    if not all((*parents, leaf)):
        raise ConfigError(f"{dotted}: a part of the name is empty; write it as section.key")
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
        got = "nothing" if detail["input"] is None else reprlib.repr(detail["input"])
        if detail["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_suggestion(detail['loc'])}")
        elif detail["type"] == "model_type":
            example = next(dotted for dotted in _leaves(PipelineConfig) if dotted.startswith(f"{key}."))
            lines.append(f"{key}: a section, which has keys and no value; set one of them, e.g. {example} (got {got})")
        else:
            said = plain(detail)
            lines.append(f"{key}: {said[0].lower()}{said[1:]} (got {got})")
    return "; ".join(lines)


def _suggestion(location: tuple[int | str, ...]) -> str:
    model: Any = PipelineConfig
    for part in location[:-1]:
        fields = {(field.alias or name): field for name, field in model.model_fields.items()}
        if part not in fields or not hasattr(fields[str(part)].annotation, "model_fields"):
            return ""
        model = fields[str(part)].annotation
    wanted = str(location[-1])
    names = [field.alias or name for name, field in model.model_fields.items()]
    if close := difflib.get_close_matches(wanted, names, n=1) or difflib.get_close_matches(wanted.lower(), names, n=1):
        return f"; did you mean {'.'.join(map(str, (*location[:-1], close[0])))!r}?"
    # the key alone, without its section, or in another one
    everywhere = list(_leaves(PipelineConfig))
    same = [dotted for dotted in everywhere if dotted.rpartition(".")[2] == wanted]
    if not same:
        leaves = {dotted.rpartition(".")[2] for dotted in everywhere}
        likely = difflib.get_close_matches(wanted, leaves, n=1, cutoff=0.8)
        same = [dotted for dotted in everywhere if dotted.rpartition(".")[2] in likely]
    if same:
        return f"; did you mean {' or '.join(map(repr, same[:3]))}?"
    return f"; known: {', '.join(sorted(names))}"


def _leaves(model: Any, prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        dotted = f"{prefix}{field.alias or name}"
        if hasattr(field.annotation, "model_fields"):
            yield from _leaves(field.annotation, f"{dotted}.")
        else:
            yield dotted


def revision() -> str:
    """Commit of the code that runs: of the checkout (`-dirty` when it was changed), or `GIT_SHA` in an image."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("GIT_SHA", "") or UNKNOWN_REVISION


def child_environment(**extra: str) -> dict[str, str]:
    """This process's environment for a child, unbuffered, with `extra` on top."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", **extra}


def container_environment() -> dict[str, str]:
    """What of this process's environment a stage in a container on this machine is given."""
    return {key: value for key, value in os.environ.items() if key in _FOR_CONTAINERS}


def application_credentials() -> str:
    """File of Google's application default credentials on this disk; empty when there is none."""
    named = os.environ.get(CREDENTIALS, "")
    usual = home() / ".config/gcloud/application_default_credentials.json"
    return named or (str(usual) if usual.is_file() else "")


def api_key() -> str:
    """Key for a server with authentication on, from `AIDETECT_API_KEY`; never part of a configuration or a spec."""
    return os.environ.get("AIDETECT_API_KEY", "")


def github_access() -> tuple[str, str]:
    """Token for GitHub from `GITHUB_TOKEN`, and another address of its API from `GITHUB_API_URL`; empty: none."""
    return os.environ.get("GITHUB_TOKEN", ""), os.environ.get("GITHUB_API_URL", "")
