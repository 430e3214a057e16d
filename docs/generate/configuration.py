"""Reference of every key of pipeline_config.yaml and every environment variable of the server."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from docs.generate.markdown import NOTE, code, table
from docs.generate.schema import kind
from pipelines.settings.pipeline import PipelineConfig
from serving.settings import Settings


def page() -> str:
    """`reference/configuration.md`."""
    schema = PipelineConfig.model_json_schema()
    parts = [
        NOTE.format(source="pipelines/settings/ and serving/settings.py"),
        "# Configuration",
        "`pipeline_config.yaml` holds `base` and `profiles`; a profile changes what differs. Single keys are changed "
        "by the environment (`AIDETECT_TRAIN__EPOCHS=15`) and by `--set train.epochs=15`; the last of the two wins. "
        "Unknown keys are refused with the nearest known one. `aidetect config show --profile NAME` prints what is in "
        "force.",
        "## The pipeline: `pipeline_config.yaml`",
    ]
    for section, field in schema["properties"].items():
        model = _resolve(field, schema["$defs"])
        parts += [f"### `{section}`", _first_line(model.get("description", ""))]
        parts.append(table(("key", "type", "default", "meaning"), _rows(model, schema["$defs"])))
    parts += [
        "## The server: environment variables",
        "Read once at the start; a wrong value is refused with its name. Names are not case sensitive.",
        table(("variable", "type", "default", "meaning"), _settings()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(model: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ...]]:
    for name, field in model["properties"].items():
        nested = _resolve(field, definitions)
        if "properties" in nested:
            yield from _rows(nested, definitions, f"{prefix}{name}.")
        else:
            yield code(prefix + name), _type(nested, definitions), _default(field), field.get("description", "")


def _settings() -> Iterator[tuple[str, ...]]:
    schema = Settings.model_json_schema()
    home = str(Settings.model_fields["model_cache_dir"].default.home())
    for name, field in schema["properties"].items():
        # a home folder is the reader's own
        default = _default(field).replace(home, "~")
        words = "secret" if field.get("format") == "password" else _type(field, schema.get("$defs", {}))
        yield code(name.upper()), words, default, field.get("description", "")


def _resolve(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = field.get("$ref", "")
    found: Mapping[str, Any] = definitions[reference.rpartition("/")[2]] if reference else field
    return found


def _type(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    return kind(field, lambda name: _type(definitions[name], definitions))


def _default(field: Mapping[str, Any]) -> str:
    if "default" not in field:
        return ""
    return code(json.dumps(field["default"], ensure_ascii=False)) if field["default"] != "" else "empty"


def _first_line(text: str) -> str:
    return text.partition("\n\n")[0]
