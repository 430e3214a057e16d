"""Run stage train alone: `python -m components.train --help`; or `torchrun ... -m components.train` on many ranks."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from components.artifacts.context import RunContext
from components.train.config import TrainConfig
from serving.platform.errors import StageError


def main(arguments: list[str] | None = None) -> int:
    """Command line of the stage; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m components.train", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder packed by verify_data")
    parser.add_argument("--out", type=Path, required=True, help="folder for the bundle (empty or absent)")
    parser.add_argument("--curves", type=Path, help="file for the training curves (HTML)")
    parser.add_argument("--config", type=Path, help="YAML file with the section `train` (or just its content)")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="e.g. augment.jpeg_p=0.8"
    )
    parser.add_argument("--run-id", default="manual")
    parser.add_argument("--tracking-uri", default="", help="MLflow server or sqlite URI; empty: no tracking")
    options = parser.parse_args(arguments)
    try:
        config = TrainConfig.model_validate(_document(options.config, options.settings))
        context = RunContext(run_id=options.run_id, tracking_uri=options.tracking_uri)
        # torch loads here, so that --help and a wrong knob answer at once
        from components.train.stage import train

        summary = train(options.dataset, options.out, config, context, options.curves)
    except ValidationError as error:
        first = error.errors()[0]
        return _fail(f"train.{'.'.join(map(str, first['loc']))}: {first['msg']} (got {first['input']!r})")
    except (StageError, OSError, yaml.YAMLError) as error:
        return _fail(str(error))
    if summary is not None:
        print(json.dumps(asdict(summary), indent=1))  # noqa: T201 - the command's output
    return 0


def _document(file: Path | None, settings: list[str]) -> dict[str, Any]:
    document: Any = yaml.safe_load(file.read_text(encoding="utf-8")) if file else {}
    if not isinstance(document, dict):
        raise StageError(f"{file}: not a mapping of knobs to values")
    knobs: dict[str, Any] = dict(document.get("train", document))
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise StageError(f"--set {setting}: write KEY=VALUE")
        *path, last = key.removeprefix("train.").split(".")
        section = knobs
        for name in path:
            section = section.setdefault(name, {})
        section[last] = yaml.safe_load(value)
    return knobs


def _fail(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)  # noqa: T201 - the command's output
    return 1


if __name__ == "__main__":
    sys.exit(main())
