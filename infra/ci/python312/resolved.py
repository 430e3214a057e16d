"""Reads what pip resolved for every extra: says how, holds it to the pins, and picks what needs no torch.

    python resolved.py FOLDER EXTRAS

FOLDER has pip's `report.json` and its `log`. Written there: `install.txt`, the exact distributions that the EXTRAS
(divided by commas) bring without torch and all that is built on it; `missing.txt`, the modules left out.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonicalize

ROOT = Path(__file__).resolve().parents[3]
TORCH = "torch"

Graph = dict[str, set[str]]


def canonical(name: str) -> str:
    """The one spelling of a distribution's name."""
    return canonicalize(name)


def requirements(item: dict[str, Any], extra: str, environment: dict[str, str]) -> set[str]:
    """What one distribution of pip's report asks for with this extra: names, and `name[extra]` for each of theirs."""
    found: set[str] = set()
    for line in item["metadata"].get("requires_dist", []):
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({**environment, "extra": extra}):
            name = canonical(wanted.name)
            found |= {name, *(f"{name}[{one}]" for one in wanted.extras)}
    return found


def graph_from(start: set[str], items: dict[str, dict[str, Any]], environment: dict[str, str]) -> Graph:
    """What leads to what; an extra is a node of its own, as only some of those who want its distribution want it."""
    graph: Graph = {}
    ahead = start
    while ahead:
        for node in ahead:
            name, _, extra = node.rstrip("]").partition("[")
            graph[node] = requirements(items[name], extra, environment)
        ahead = {target for node in ahead for target in graph[node]} - set(graph)
    return graph


def distributions(nodes: set[str]) -> set[str]:
    """Their names, without extras."""
    return {node.partition("[")[0] for node in nodes}


def needing(graph: Graph, name: str) -> set[str]:
    """`name`, and all that leads to it."""
    found = {name}
    while more := {node for node, targets in graph.items() if targets & found} - found:
        found |= more
    return found


def brought_by(graph: Graph, names: set[str], without: set[str]) -> set[str]:
    """What these lead to, themselves included, on ways around `without`."""
    found: set[str] = set()
    ahead = names - without
    while ahead:
        found |= ahead
        ahead = {target for name in ahead for target in graph[name]} - found - without
    return found


def main(folder: Path, extras: list[str]) -> None:
    """Write the two lists.

    Raises:
        SystemExit: something resolved that has no pin.
    """
    report = json.loads((folder / "report.json").read_text())
    items = {canonical(item["metadata"]["name"]): item for item in report["install"]}
    versions = {name: item["metadata"]["version"] for name, item in items.items()}
    ours = next(name for name, item in items.items() if item["is_direct"])
    every = {f"{ours}[{extra}]" for extra in items[ours]["requested_extras"]}
    graph = graph_from(every, items, report["environment"])

    pins = re.findall(r"^([^#\s=]+)==", (ROOT / "infra/constraints.txt").read_text(), re.MULTILINE)
    if unpinned := sorted(set(items) - {canonical(pin) for pin in pins} - {ours}):
        raise SystemExit(f"no pin in infra/constraints.txt: {', '.join(f'{n}=={versions[n]}' for n in unpinned)}")

    needs_torch = needing(graph, TORCH)
    on_torch = needs_torch & set(items)
    first = {target for extra in extras for target in graph[f"{ours}[{extra}]"]}
    kept = distributions(brought_by(graph, first, without=needs_torch))
    without_torch = {target for node in every for target in graph[node]}
    only_torch = set(items) - {ours} - distributions(brought_by(graph, without_torch, without=needs_torch))
    (folder / "install.txt").write_text("".join(f"{name}=={versions[name]}\n" for name in sorted(kept)))
    (folder / "missing.txt").write_text(" ".join(sorted(name.replace("-", "_") for name in on_torch)))

    whole = re.findall(r"^ +Downloading (\S+)(?<!\.metadata) \(", (folder / "log").read_text(), re.MULTILINE)
    sys.stdout.write(
        f"  {len(items) - 1} distributions resolve, each at its pin\n"
        f"  {len(only_torch)} of them come with torch alone and are not installed: "
        f"{' '.join(f'{name}=={versions[name]}' for name in sorted(only_torch))}\n"
        f"  downloaded to be read, as the index serves no metadata of them: {', '.join(sorted(set(whole))) or 'none'}\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","))
