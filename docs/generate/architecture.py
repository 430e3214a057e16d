"""The architecture picture: three floors with their rooms, and on the middle one the DAG as it is compiled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any, Final
from xml.sax.saxutils import escape

from pipelines.compile import compile_pipeline
from pipelines.config import load_config
from pipelines.targets.registry import open_target

ROOT: Final = Path(__file__).resolve().parents[2]
WIDTH: Final = 450
"""Pixels at which the picture is shown where there is room: on a telephone of 390 px its least text still has 11."""
TEXT_PX: Final = 14
MARGIN: Final = 2
PAD: Final = 14
BOX: Final = (132, 36)
PITCH: Final = 86
"""From one stage down to the next."""
FLOORS: Final = {
    "pipelines": ("orchestration", "the DAG, where it runs, when it runs, the aidetect command line"),
    "components": ("the six stages", "one folder each: component.py is KFP's face, the rest the stage's own logic"),
    "serving": ("the product", "serving/detector, a pure library, and the HTTP server around it"),
}
LANES: Final = (30, 112, 206)
"""How far right of the boxes an arrow runs that skips a stage; one lane for each length."""
STYLE: Final = """
text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2937; }
.mono { font-family: ui-monospace, monospace; }
.soft { fill: #4b5563; }
.box, .pill { fill: #ffffff; stroke: #94a3b8; }
.stage { fill: #ffffff; stroke: #1f2937; }
.line { stroke: #1f2937; fill: none; }
.far, .if { stroke: #6b7280; fill: none; }
.if { stroke-dasharray: 5 4; }
.tip { fill: #1f2937; }
.pipelines { fill: #e8eefc; } .components { fill: #e9f6ec; } .serving { fill: #fdf1e3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7eb; }
  .soft { fill: #b6bec9; }
  .box, .pill { fill: #111827; stroke: #64748b; }
  .stage { fill: #111827; stroke: #cbd5e1; }
  .line { stroke: #cbd5e1; }
  .far, .if { stroke: #94a3b8; }
  .tip { fill: #cbd5e1; }
  .pipelines { fill: #1e2a47; } .components { fill: #17342a; } .serving { fill: #3b2a1a; }
}
"""
"""No colour behind all: each text stands on a floor or a pill of its own, so it can be read on pages of any colour."""


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
        lines = _wrapped(says)
        top = y + 40 + 19 * len(lines)
        body: list[str] = []
        if floor == "components":
            body = list(_dag(dag, top))
            top += PITCH * len(dag.stages)
        names = [room for room in rooms(floor) if room.rstrip("/") not in {s.replace("-", "_") for s in dag.stages}]
        chips, height = _chips(names, top)
        total = top + height + PAD - y
        parts += [
            f'<rect class="{floor}" x="{MARGIN}" y="{y:g}" width="{WIDTH - 2 * MARGIN}" height="{total:g}" rx="10"/>',
            _text(PAD, y + 26, f"{floor}/", size=17, weight=700),
            _text(WIDTH - PAD, y + 26, title, size=15, weight=600, anchor="end"),
            *(_text(PAD, y + 47 + 19 * i, line, soft=True) for i, line in enumerate(lines)),
            *body,
            *chips,
        ]
        y += total
        if floor != "serving":
            parts += [
                _arrow(WIDTH / 2, y, WIDTH / 2, y + 30),
                f'<rect class="pill" x="{WIDTH / 2 + 10}" y="{y + 4:g}" width="64" height="22" rx="11"/>',
                _text(WIDTH / 2 + 42, y + 20, "imports", anchor="middle"),
            ]
            y += 30
    return _document(y + MARGIN, parts)


def _wrapped(words: str) -> list[str]:
    """Lines that fit beside the padding, by the mean width of a letter."""
    return wrap(words, int((WIDTH - 2 * PAD) / (0.51 * TEXT_PX)))


def _chips(names: list[str], top: float) -> tuple[list[str], float]:
    parts: list[str] = []
    x, y = float(PAD), top
    for name in names:
        width = 0.61 * TEXT_PX * len(name) + 14
        if x + width > WIDTH - PAD:
            x, y = float(PAD), y + 32
        parts.append(f'<rect class="box" x="{x:g}" y="{y:g}" width="{width:g}" height="26" rx="5"/>')
        parts.append(_text(x + 7, y + 18, name, mono=True))
        x += width + 6
    return parts, y + 26 - top


def _dag(dag: Dag, top: float) -> Iterator[str]:
    place = {stage: top + PITCH * i for i, stage in enumerate(dag.stages)}
    left, right, middle = PAD + 14, PAD + 14 + BOX[0], PAD + 14 + BOX[0] / 2
    for depth, (parameter, inside) in enumerate(dag.conditions):
        inset = 6 * depth
        y0, y1 = min(place[stage] for stage in inside) - 16, max(place[stage] for stage in inside) + BOX[1] + 26
        yield (
            f'<rect class="if" x="{PAD + inset}" y="{y0 + inset:g}" width="{WIDTH - 2 * (PAD + inset)}" '
            f'height="{y1 - y0 - 2 * inset:g}" rx="8"/>'
        )
        yield _text(WIDTH - PAD - 14, min(place[s] for s in inside) + BOX[1] + 13, f"if {parameter}", anchor="end")
    for stage, y in place.items():
        yield f'<rect class="stage" x="{left}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="8"/>'
        yield _text(middle, y + 23, stage.replace("-", "_"), size=15, weight=600, anchor="middle")
    for first, second in zip(dag.stages, dag.stages[1:], strict=False):
        carried = ", ".join(edge.artifact for edge in dag.edges if (edge.source, edge.target) == (first, second))
        yield _arrow(middle, place[first] + BOX[1], middle, place[second])
        yield _text(middle + 8, place[first] + BOX[1] + 20, carried, soft=True)
    yield from _skipping(dag, place, right)


def _skipping(dag: Dag, place: Mapping[str, float], right: float) -> Iterator[str]:
    order = {stage: i for i, stage in enumerate(dag.stages)}
    far = [edge for edge in dag.edges if order[edge.target] - order[edge.source] > 1]
    far.sort(key=lambda edge: (order[edge.target] - order[edge.source], edge.source))
    for number, (lane, edge) in enumerate(zip(LANES, far, strict=False)):
        x, y0, y1 = right + lane, place[edge.source] + 12 + 6 * number, place[edge.target] + 8 + 9 * number
        yield (
            f'<path class="far" d="M{right:g} {y0:g} H{x - 8:g} Q{x:g} {y0:g} {x:g} {y0 + 8:g} V{y1 - 8:g} '
            f'Q{x:g} {y1:g} {x - 8:g} {y1:g} H{right + 2:g}" marker-end="url(#tip)"/>'
        )
        yield _text(x + 6, y0 + 26, edge.artifact, soft=True)


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<path class="line" d="M{x0:g} {y0:g} L{x1:g} {y1:g}" marker-end="url(#tip)"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = TEXT_PX,
    weight: int = 400,
    anchor: str = "start",
    soft: bool = False,
    mono: bool = False,
) -> str:
    kinds = " ".join(name for name, asked in (("soft", soft), ("mono", mono)) if asked)
    style = f' class="{kinds}"' if kinds else ""
    return (
        f'<text{style} x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def _document(height: float, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" role="img" '
        'aria-label="Three floors: pipelines, components with the six stages of the DAG, serving">\n'
        f"<!-- Drawn from the code by `make docs`; do not edit. -->\n<style>{STYLE}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"
