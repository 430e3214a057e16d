"""The architecture picture: three floors with their rooms, and on the middle one the DAG as it is compiled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from pipelines.compile import compile_pipeline
from pipelines.config import load_config
from pipelines.targets.registry import open_target

ROOT: Final = Path(__file__).resolve().parents[2]
WIDTH: Final = 1180
MARGIN: Final = 24
BOX: Final = (118, 50)
STEP: Final = 196
FLOORS: Final = {
    "pipelines": ("orchestration", "the DAG, where it runs, when it runs, the aidetect command line"),
    "components": ("the six stages", "one folder each: component.py is KFP's face, the rest the stage's own logic"),
    "serving": ("the product", "serving/detector, a pure library, and the HTTP server around it"),
}
COLOURS: Final = {"pipelines": "#e8eefc", "components": "#e9f6ec", "serving": "#fdf1e3"}
INK: Final = "#1f2937"
FAINT: Final = "#6b7280"
LANES: Final = (44, 68, 92)
"""How far below its boxes an arrow runs that skips a stage; one lane for each length."""


@dataclass(frozen=True)
class Edge:
    """An artifact on its way between two stages."""

    source: str
    target: str
    artifact: str


@dataclass(frozen=True)
class Dag:
    """Stages in the order in which they can run, what passes between them, and the conditions around them."""

    stages: tuple[str, ...]
    edges: tuple[Edge, ...]
    conditions: tuple[tuple[str, tuple[str, ...]], ...]
    """Parameter that must be true, stages inside."""


def read_dag(spec: Mapping[str, Any]) -> Dag:
    """The DAG of a compiled pipeline spec, conditions unfolded."""
    edges: list[Edge] = []
    conditions: list[tuple[str, tuple[str, ...]]] = []
    known = _walk(spec, spec["root"]["dag"], {}, edges, conditions)
    depth = dict.fromkeys(known, 0)
    for _ in known:
        for edge in edges:
            depth[edge.target] = max(depth[edge.target], depth[edge.source] + 1)
        for parameter, inside in conditions:
            asked = parameter.partition(".")[0]
            for stage in inside if asked in depth else ():
                depth[stage] = max(depth[stage], depth[asked] + 1)
    edges.sort(key=lambda edge: (edge.source, edge.target, edge.artifact))
    return Dag(tuple(sorted(known, key=lambda stage: (depth[stage], stage))), tuple(edges), tuple(conditions))


def _walk(
    spec: Mapping[str, Any],
    dag: Mapping[str, Any],
    given: Mapping[str, tuple[str, str]],
    edges: list[Edge],
    conditions: list[tuple[str, tuple[str, ...]]],
) -> list[str]:
    found: list[str] = []
    for name, task in dag["tasks"].items():
        inputs = {
            key: given[source["componentInputArtifact"]]
            if "componentInputArtifact" in source
            else (source["taskOutputArtifact"]["producerTask"], source["taskOutputArtifact"]["outputArtifactKey"])
            for key, source in task.get("inputs", {}).get("artifacts", {}).items()
        }
        component = spec["components"][task["componentRef"]["name"]]
        if "dag" not in component:
            found.append(name)
            edges += [Edge(source, name, artifact) for source, artifact in inputs.values()]
            continue
        place = len(conditions)
        inside = _walk(spec, component["dag"], inputs, edges, conditions)
        channel = task["triggerPolicy"]["condition"].split("'")[1].removeprefix("pipelinechannel--")
        parameter = channel.removesuffix("-Output") + ".passed" if channel.endswith("-Output") else channel
        conditions.insert(place, (parameter, tuple(sorted(inside))))
        found += inside
    return found


def rooms(floor: str) -> list[str]:
    """Packages and modules of a floor, as its folder lists them; the stages stand in the DAG."""
    folder = ROOT / floor
    packages = [path.parent.name + "/" for path in folder.glob("*/__init__.py")]
    modules = [path.name for path in folder.glob("*.py") if not path.name.startswith("__")]
    return sorted(packages) + sorted(modules)


def draw() -> str:
    """`architecture.svg`; the same text for the same code."""
    dag = read_dag(compile_pipeline(open_target("local", load_config(file=ROOT / "pipeline_config.yaml", environ={}))))
    parts: list[str] = []
    y = float(MARGIN)
    for floor, (title, says) in FLOORS.items():
        body, height = _chips([room for room in rooms(floor) if room.rstrip("/") not in _names(dag)], y + 64)
        if floor == "components":
            drawn = list(_dag(dag, y + 76))
            body, shelf = _chips(["artifacts/", "platform/"], y + 76 + 190)
            body = [*drawn, *body]
            height = 190 + shelf + 12
        total = 64 + height + 10
        parts += [
            f'<rect x="{MARGIN}" y="{y:g}" width="{WIDTH - 2 * MARGIN}" height="{total:g}" rx="10" '
            f'fill="{COLOURS[floor]}"/>',
            _text(MARGIN + 18, y + 30, f"{floor}/", size=18, weight=700),
            _text(MARGIN + 46 + 11.2 * len(floor), y + 30, title, size=16, weight=600),
            _text(MARGIN + 18, y + 50, says, size=13, colour=FAINT),
            *body,
        ]
        y += total
        if floor != "serving":
            parts += [
                _arrow(WIDTH / 2, y + 2, WIDTH / 2, y + 30),
                _text(WIDTH / 2 + 12, y + 21, "imports", size=12, colour=FAINT),
            ]
            y += 34
    return _document(y + MARGIN, parts)


def _names(dag: Dag) -> set[str]:
    return {stage.replace("-", "_") for stage in dag.stages}


def _chips(names: list[str], top: float) -> tuple[list[str], float]:
    parts: list[str] = []
    x, y = MARGIN + 18.0, top
    for name in names:
        width = 7.4 * len(name) + 18
        if x + width > WIDTH - MARGIN - 18:
            x, y = MARGIN + 18.0, y + 32
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="24" rx="5" fill="#ffffff" stroke="#cbd5e1"/>'
        )
        parts.append(_text(x + 9, y + 16.5, name, size=12, family="monospace"))
        x += width + 8
    return parts, y + 24 - top + 4


def _dag(dag: Dag, top: float) -> Iterator[str]:
    left = {stage: MARGIN + 16 + i * STEP for i, stage in enumerate(dag.stages)}
    middle = top + 36 + BOX[1] / 2
    for depth, (parameter, inside) in enumerate(dag.conditions):
        x0 = min(left[stage] for stage in inside) - 20 + 8 * depth
        x1 = max(left[stage] for stage in inside) + BOX[0] + 14 - 6 * depth
        y0 = top + 14 * depth
        yield (
            f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{BOX[1] + 62 - 22 * depth}" rx="8" fill="none" '
            f'stroke="{FAINT}" stroke-dasharray="5 4"/>'
        )
        yield _text(x0 + 8, y0 + 12, f"if {parameter}", size=11, colour=FAINT)
    for stage in dag.stages:
        yield (
            f'<rect x="{left[stage]}" y="{top + 36}" width="{BOX[0]}" height="{BOX[1]}" rx="8" fill="#ffffff" '
            f'stroke="{INK}"/>'
        )
        yield _text(left[stage] + BOX[0] / 2, middle + 5, stage.replace("-", "_"), size=14, weight=600, anchor="middle")
    for first, second in zip(dag.stages, dag.stages[1:], strict=False):
        carried = ", ".join(edge.artifact for edge in dag.edges if (edge.source, edge.target) == (first, second))
        yield _arrow(left[first] + BOX[0], middle, left[second], middle)
        yield _text(
            (left[first] + BOX[0] + left[second]) / 2, middle - 7, carried, size=10, anchor="middle", colour=FAINT
        )
    yield from _skipping(dag, left, top + 36 + BOX[1])


def _skipping(dag: Dag, left: Mapping[str, float], bottom: float) -> Iterator[str]:
    place = {stage: i for i, stage in enumerate(dag.stages)}
    far = [edge for edge in dag.edges if place[edge.target] - place[edge.source] > 1]
    for lane, edge in zip(
        LANES, sorted(far, key=lambda e: (place[e.target] - place[e.source], e.source)), strict=False
    ):
        x0, x1, y = left[edge.source] + BOX[0] - 22 - lane / 4, left[edge.target] + 8 + lane / 3, bottom + lane
        yield (
            f'<path d="M{x0:g} {bottom:g} V{y - 8:g} Q{x0:g} {y:g} {x0 + 8:g} {y:g} H{x1 - 8:g} '
            f'Q{x1:g} {y:g} {x1:g} {y - 8:g} V{bottom + 2:g}" fill="none" stroke="{FAINT}" marker-end="url(#tip)"/>'
        )
        yield _text(x0 + 12, y - 5, edge.artifact, size=11, colour=FAINT)


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<path d="M{x0:g} {y0:g} L{x1:g} {y1:g}" stroke="{INK}" fill="none" marker-end="url(#tip)"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int,
    weight: int = 400,
    colour: str = INK,
    anchor: str = "start",
    family: str = "system-ui, sans-serif",
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-family="{family}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def _document(height: float, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        'aria-label="Three floors: pipelines, components with the six stages of the DAG, serving">\n'
        "<!-- Drawn from the code by `make docs`; do not edit. -->\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"
