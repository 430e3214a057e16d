"""`python -m docs.generate`: write what is generated; `--check` only says what is out of date."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.generate import api, architecture, cli, configuration, costs, metrics, peers

DOCS = Path(__file__).resolve().parents[1]

PAGES: Mapping[str, Callable[[], str]] = {
    "COSTS.md": costs.page,
    "architecture.svg": architecture.draw,
    "peers.svg": peers.draw,
    "reference/api.md": api.page,
    "reference/cli.md": cli.page,
    "reference/configuration.md": configuration.page,
    "reference/metrics.md": metrics.page,
}


def outdated(folder: Path) -> list[str]:
    """Names of generated files that say something else than the code."""
    return [name for name, make in PAGES.items() if _text(folder / name) != make()]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main() -> int:
    """Write the files, or with `--check` name those that differ; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something is out of date")
    if parser.parse_args().check:
        names = outdated(DOCS)
        for name in names:
            sys.stderr.write(f"docs/{name} is out of date; run: make docs\n")
        return 1 if names else 0
    for name, make in PAGES.items():
        file = DOCS / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
